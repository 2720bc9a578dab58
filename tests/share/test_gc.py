"""What nobody needs goes, after it is listed; what anybody may need stays."""

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from skd_cache.share.gc import find_registry_waste, find_waste, waste_of
from skd_cache.share.place import open_in_place
from skd_cache.share.remove import remove_units
from skd_cache.store import Unit, open_cache
from skd_cache.store.claim import Builder, Claims
from skd_cache.store.objects import Objects
from tests.share.test_in_place import upload
from tests.store import small_cache
from tests.store.small_cache import create, fill, write

NOW = timedelta()
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def full(home):
    """A cache of one complete view."""
    made = create(home)
    fill(made, 1)
    return made


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def collect(home, grace=NOW, limit=10**9):
    found = list(find_waste(home, limit, grace))
    for one in found:
        one.remove()
    return {one.why for one in found}


def kill_at(home, point, views):
    """A builder that is killed at a fault point, as by SIGKILL."""
    environment = {**os.environ, "SKD_CACHE_FAULT": str(point), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, small_cache.__file__, str(home), str(views)]
    return subprocess.run(command, env=environment, check=False).returncode


def test_of_a_sound_cache_nothing_goes(home, full):
    before = files(home)
    assert collect(home) == set()
    assert files(home) == before
    assert full.views() == [0]


@pytest.mark.parametrize("point", [*range(1, 40, 3), *range(40, 120, 9)])
def test_after_a_kill_anywhere_the_build_ends_as_ever(home, tmp_path, point):
    whole = create(tmp_path / "whole")
    fill(whole, 1)
    kill_at(home, point, 1)
    collect(home)
    cache = create(home)
    fill(cache, 1)
    assert cache.digest(0) == whole.digest(0)
    assert collect(home) == set()
    assert list(open_cache(cache.location).verify(full=True)) == []


def dead_builder(objects, what):
    """A claim of a process of this machine that is gone."""
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    here = Builder.here()
    claims = Claims(objects, here.model_copy(update={"pid": int(ended.stdout), "began": ""}))
    claims.beat()
    claims.take(what)


def stage(objects, what, decided=False):
    objects.create(f"stage/{what}/{'a' * 64}", b"some bytes")
    if decided:
        objects.create(f"stage/{what}/decision.json", b"{}")


def test_what_a_killed_builder_staged_and_claimed_goes_at_once(home, full):
    before = files(home)
    stage(full.objects, "00001/00000")
    dead_builder(full.objects, "00001/00000")
    day = timedelta(days=1)
    assert collect(home, day) == {
        "staged by a builder that is gone", "a claim of a builder that is gone",
    }  # fmt: skip
    assert files(home) == before


def test_what_a_push_may_have_staged_goes_after_a_while(home, full):
    stage(full.objects, "00001/00000")
    before = files(home)
    assert collect(home, timedelta(hours=1)) == set()
    assert files(home) == before
    assert collect(home) == {"staged and left"}


def test_while_somebody_builds_nothing_of_the_cache_goes(home, full):
    objects = full.objects
    stage(objects, "00001/00000")
    objects.create("logits.zarr/view/00000/norm/c/9", b"nobody commits this")
    with Claims(objects) as claims:
        claims.take("00001/00000")
        before = files(home)
        assert collect(home) == set()
        assert files(home) == before


def test_who_comes_after_the_listing_keeps_what_is_there(home, full):
    stage(full.objects, "00001/00000")
    found = list(waste_of(full.objects, NOW))
    assert found
    with Claims(full.objects):
        before = files(home)
        for one in found:
            one.remove()
        assert files(home) == before


def test_what_was_decided_on_stays(home, full):
    stage(full.objects, "00001/00000", decided=True)
    full.objects.create("logits.zarr/view/00001/norm/c/0", b"copied already")
    before = files(home)
    assert collect(home) == set()
    assert files(home) == before


def test_shards_that_nobody_commits_go(home, full):
    before = files(home)
    full.objects.create("logits.zarr/view/00000/norm/c/9", b"beyond the end")
    full.objects.create("logits.zarr/view/00007/code/c/0/0", b"of no view")
    assert collect(home) == {"a shard nobody commits"}
    assert files(home) == before


def test_half_written_files_of_dead_processes_go(home, full):
    mine = full.objects._put_durably.__globals__["_partial"]("recipe.json")
    gone = mine.replace(f"-{os.getpid()}.", "-4194303.")
    for name in (mine, gone):
        (Path(full.location) / name).write_bytes(b"half")
    assert collect(home) == {"half written by a process that is gone"}
    assert (Path(full.location) / mine).exists()


def test_a_cache_in_a_registry_is_cleaned_alike(full, bucket):
    url = upload(full, bucket)
    there = Objects(url)
    before = sorted(found.name for found in there.list())
    stage(there, "00001/00000")
    there.create("logits.zarr/view/00000/norm/c/9", b"beyond the end")
    found = list(find_registry_waste(Objects(bucket), NOW))
    assert {one.why for one in found} == {"staged and left", "a shard nobody commits"}
    for one in found:
        one.remove()
    assert sorted(found.name for found in there.list()) == before


def test_the_shard_cache_is_cut_to_its_limit_and_forgets_caches_that_are_gone(home, full, bucket):
    url = upload(full, bucket)
    shutil.rmtree(full.location)
    cache = open_in_place(url, home, say=print)
    list(cache.stream(0, 0, 300, 32))
    assert collect(home) == set()
    (home / "shards" / ("e" * 64)).write_bytes(b"of no cache")
    assert collect(home) == {"a shard of no cache that is known here"}
    assert collect(home, limit=full.largest_unit) == {"a shard beyond the limit"}
    assert sum(p.stat().st_size for p in (home / "shards").iterdir()) <= full.largest_unit
    for found in list(Objects(url).list()):
        Objects(url).delete(found.name)
    assert "of a remote cache that is gone" in collect(home)
    assert not list((home / "remote").iterdir())
    collect(home)
    assert [p.name for p in (home / "shards").iterdir()] == [".lock"]


def test_a_remote_cache_that_does_not_answer_is_kept(home, full, bucket, environment):
    open_in_place(upload(full, bucket), home, say=print)
    environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    environment.setenv("SKD_CACHE_RETRY_SECONDS", "0")
    assert collect(home) == set()


def test_a_unit_is_withdrawn_commit_first(full, monkeypatch):
    order, delete = [], Objects.delete

    def noted(self, name):
        order.append(name)
        delete(self, name)

    monkeypatch.setattr(Objects, "delete", noted)
    remove_units(full.objects, [Unit(0, 1)])
    assert order[0] == "commit/00000/00001.json"
    monkeypatch.undo()
    assert open_cache(full.location).missing(range(1)) == [Unit(0, 1)]
    write(open_cache(full.location), Unit(0, 1))
    assert list(open_cache(full.location).verify(full=True)) == []


def test_who_works_without_a_claim_is_not_disturbed(home, tmp_path):
    whole = create(tmp_path / "whole")
    fill(whole, 4)
    command = [sys.executable, small_cache.__file__, str(home), "4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment) as building:
        while building.poll() is None:
            collect(home, timedelta(hours=24))
    assert building.returncode == 0
    cache = open_cache(home / whole.id)
    assert [cache.digest(view) for view in range(4)] == [whole.digest(view) for view in range(4)]
    assert list(cache.verify(full=True)) == []
