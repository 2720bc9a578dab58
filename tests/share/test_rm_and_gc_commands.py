"""rm and gc as a person types them."""

import io
import sys
from pathlib import Path

import pytest

from skd_cache.cli import main
from skd_cache.store import open_cache
from skd_cache.store.claim import Claims
from skd_cache.store.objects import Objects
from tests.share.test_in_place import upload
from tests.store.small_cache import create, fill


@pytest.fixture
def home(tmp_path, environment):
    environment.setenv("SKD_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def cache(home):
    made = create(home)
    fill(made, 3)
    return made


@pytest.fixture
def run(capsys):
    def call(*arguments, answer=None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO("" if answer is None else answer + "\n"))
            with pytest.raises(SystemExit) as ended:
                main([str(one) for one in arguments])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return call


def test_rm_asks_naming_id_views_and_size(run, cache):
    code, _, err = run("rm", cache.id[:4], answer="n")
    assert code == 1
    assert cache.id in err
    assert "views 0 to 2" in err
    assert "kB" in err
    assert open_cache(cache.location).views() == [0, 1, 2]
    assert run("rm", cache.id[:4], answer="y")[0] == 0
    assert not Path(cache.location).exists()


def test_rm_without_an_answer_removes_nothing(run, cache):
    code, _, err = run("rm", cache.id)
    assert code == 2
    assert "--yes" in err
    assert Path(cache.location).exists()


def test_rm_of_views_leaves_the_others_sound(run, cache):
    assert run("rm", cache.id, "--views", "1:9", "--yes")[0] == 0
    left = open_cache(cache.location)
    assert left.views() == [0]
    assert list(left.verify(full=True)) == []
    assert left.digest(0) == cache.digest(0)
    assert not list(Path(cache.location).glob("logits.zarr/view/0000[12]"))
    code, _, err = run("rm", cache.id, "--views", "5:6", "--yes")
    assert code == 2
    assert "it has 0" in err


def test_rm_refuses_while_somebody_builds(run, cache):
    with Claims(cache.objects) as claims:
        claims.take("00003/00000")
        for more in ((), ("--views", "0:1")):
            code, _, err = run("rm", cache.id, "--yes", *more)
            assert code == 2
            assert "builds" in err
    assert open_cache(cache.location).views() == [0, 1, 2]


def test_rm_of_what_is_not_there_says_so(run, home):
    home.mkdir()
    code, _, err = run("rm", "abcd", "--yes")
    assert code == 2
    assert "there is no cache abcd" in err


def test_a_registry_is_touched_only_by_name(run, cache, bucket):
    url = upload(cache, bucket)
    code, _, err = run("rm", url, "--yes")
    assert code == 2
    assert f"--registry {bucket}" in err
    assert run("rm", cache.id, "--yes")[0] == 0
    assert open_cache(url).views() == [0, 1, 2]
    code, _, err = run("rm", cache.id[:5], "--registry", bucket, "--views", "2:3", answer="y")
    assert code == 0, err
    assert open_cache(url).views() == [0, 1]
    assert run("rm", cache.id, "--registry", bucket, answer="n")[0] == 1
    assert run("rm", cache.id, "--registry", bucket, "--yes")[0] == 0
    assert not list(Objects(url).list())


def test_gc_lists_with_sizes_and_a_dry_run_removes_nothing(run, cache):
    cache.objects.create("logits.zarr/view/00000/norm/c/9", b"x" * 3000)
    code, out, _ = run("gc", "--dry-run")
    assert code == 0
    assert "3.0 kB" in out
    assert "norm/c/9  (a shard nobody commits)" in out
    assert "would remove" in out
    assert cache.objects.size("logits.zarr/view/00000/norm/c/9")
    assert run("gc")[0] == 0
    assert cache.objects.size("logits.zarr/view/00000/norm/c/9") is None
    assert "nothing to remove" in run("gc")[1]


def test_gc_of_a_registry_asks(run, cache, bucket):
    there = Objects(upload(cache, bucket))
    there.create("logits.zarr/view/00000/norm/c/9", b"x" * 3000)
    assert "nothing to remove" in run("gc")[1]
    assert run("gc", "--registry", bucket)[0] == 2
    assert run("gc", "--registry", bucket, answer="n")[0] == 1
    assert there.size("logits.zarr/view/00000/norm/c/9")
    assert run("gc", "--registry", bucket, "--yes")[0] == 0
    assert there.size("logits.zarr/view/00000/norm/c/9") is None


@pytest.mark.parametrize("command", ["gc", "rm"])
def test_help_has_examples(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Examples:" in out
    assert "--registry" in out
