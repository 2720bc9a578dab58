"""A student is trained from a bucket: the same weights, also when the network goes away."""

import pytest

from benchmarks.line import Line
from skd_cache.distill.run import distill
from skd_cache.errors import UnreachableError
from skd_cache.share.place import open_in_place
from skd_cache.store import open_cache
from tests.distill.workshop import make_cache, make_dataset, make_settings
from tests.share.test_in_place import upload

STUDENT = "tests.distill.tiny_students:student"


@pytest.fixture(scope="module")
def dataset():
    return make_dataset()


@pytest.fixture(scope="module")
def local(dataset, tmp_path_factory):
    return make_cache(tmp_path_factory.mktemp("caches"), dataset.train)


@pytest.fixture(scope="module")
def expected(dataset, local, tmp_path_factory):
    """The weights of a run from local disk."""
    return trained(dataset, open_cache(local.location), tmp_path_factory.mktemp("run"))


@pytest.fixture
def url(local, bucket):
    return upload(local, bucket)


@pytest.fixture
def line(server, url, environment):  # noqa: ARG001
    made = Line(server.port)
    environment.setenv("AWS_ENDPOINT_URL", made.url)
    environment.setenv("SKD_CACHE_RETRY_SECONDS", "1")
    yield made
    made.cut()


def trained(dataset, cache, out, say=lambda _: None):
    settings = make_settings(dataset, cache, student=STUDENT, checkpoint_every=1000)
    return distill(settings, dataset, out, cache=cache, say=say).student.read_bytes()


def in_place(url, tmp_path, limit=10**9):
    return open_in_place(url, tmp_path / "home", limit=limit, say=print)


def cut_after_epoch(line, number):
    def say(text):
        if text.startswith(f"epoch {number}/"):
            line.cut()

    return say


def test_training_from_a_bucket_ends_in_the_same_weights(dataset, url, expected, tmp_path):
    assert trained(dataset, in_place(url, tmp_path), tmp_path / "run") == expected


def test_a_run_goes_on_with_what_is_local(dataset, line, url, expected, tmp_path):
    cache = in_place(url, tmp_path)
    say = cut_after_epoch(line, 2)  # by then both views are here
    assert trained(dataset, cache, tmp_path / "run", say) == expected


def test_a_run_starts_without_network_from_what_is_local(dataset, line, url, expected, tmp_path):
    trained(dataset, in_place(url, tmp_path), tmp_path / "first")
    line.cut()
    assert trained(dataset, in_place(url, tmp_path), tmp_path / "run") == expected


def test_a_run_without_network_stops_saved_and_goes_on_later(
    dataset, local, server, line, url, expected, tmp_path, environment
):
    limit = local.largest_unit * 2
    with pytest.raises(UnreachableError, match=r"could not .* saved in .*run.*: the same command"):
        trained(dataset, in_place(url, tmp_path, limit), tmp_path / "run", cut_after_epoch(line, 1))
    environment.setenv("AWS_ENDPOINT_URL", server.url)
    said = []
    found = trained(dataset, in_place(url, tmp_path, limit), tmp_path / "run", said.append)
    assert "resuming" in said[0]
    assert "after step 0 " not in said[0]
    assert found == expected
