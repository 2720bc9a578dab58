"""distill --cache s3://… as a person types it: exit codes and sentences."""

import os

import pytest

from benchmarks.line import Line
from skd_cache.store import open_cache
from tests.end_to_end.conftest import Desk, write_images, write_teacher
from tests.share.test_in_place import upload


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    made = Desk(tmp_path_factory.mktemp("desk"))
    write_images(made.images)
    write_teacher(made.weights)
    done = made.build("--codec", "float32", run=made.call)
    assert done.code == 0, done.err
    return made


@pytest.fixture
def url(desk, bucket):
    (place,) = (path for path in desk.home.iterdir() if len(path.name) == 16)
    return upload(open_cache(place), bucket)


@pytest.fixture
def line(server, url, environment):  # noqa: ARG001
    made = Line(server.port)
    environment.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    made.cut()


@pytest.fixture
def away(desk, tmp_path):
    """The same images, another machine."""

    def distill(url, *more):
        there = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        there["SKD_CACHE_HOME"] = str(tmp_path / "there")
        there["SKD_CACHE_RETRY_SECONDS"] = "1"
        other = Desk(desk.folder, there)
        asked = ("--loss", "kd", "--cache", url, "--out", tmp_path / "run", "--epochs", 1, *more)
        return other.distill(*asked, run=other.call)

    return distill


def test_distill_from_a_url(away, url):
    done = away(url)
    assert done.code == 0, done.err
    assert "bound by" in done.err


def test_without_network_it_says_so_in_one_sentence(away, line, url):
    line.cut()
    done = away(url)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "could not read s3://" in done.err
    assert "Traceback" not in done.err


def test_bits_that_flip_always_end_with_exit_code_3(away, line, url):
    assert away(url, "--views", "1").code == 0  # what is small is here now
    line.spare_text, line.flips = True, 10**9
    done = away(url, "--fresh", "--views", "1:2")
    assert done.code == 3, done.err
    assert "view/00001" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("size", ["1kB", "much"])
def test_a_wrong_limit_is_wrong_input(away, url, size):
    done = away(url, "--shard-cache-size", size)
    assert done.code == 2
    assert size in done.err or "less than one shard" in done.err


def test_a_url_without_a_cache_is_wrong_input(away, bucket):
    done = away(f"{bucket}/0123456789abcdef")
    assert done.code == 2
    assert "is not a cache" in done.err
