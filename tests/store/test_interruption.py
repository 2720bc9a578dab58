"""A build that dies anywhere is finished later and leaves no trace of it."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skd_cache.errors import SkdCacheError
from skd_cache.store import Unit, create_cache, open_cache
from skd_cache.store.writer import FAULT_VARIABLE
from tests.store.small_cache import create, fill, make_recipe, write

PROGRAM = Path(__file__).with_name("small_cache.py")
CACHE_ID = make_recipe().cache_id


def build(home, views=1, **variables):
    """Build in another process; its exit code."""
    environment = {**os.environ, **{key: str(value) for key, value in variables.items()}}
    command = [sys.executable, str(PROGRAM), str(home), str(views)]
    return subprocess.run(command, env=environment, check=False).returncode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The digest of an undisturbed build, and all fault points on the way there."""
    points = []
    cache = create(tmp_path_factory.mktemp("undisturbed"), fault=points.append)
    fill(cache)
    return cache.digest(0), points


def names_of(points):
    return [point.removeprefix("before ") for point in points if point.startswith("before")]


def test_the_commit_comes_after_all_objects(undisturbed):
    names = names_of(undisturbed[1])
    for shard in range(3):
        commit = names.index(f"commit/00000/{shard:05d}.json")
        for array, tail in (("norm", ""), ("code", "/0"), ("probe", "/0/0/0")):
            assert names.index(f"logits.zarr/view/00000/{array}/c/{shard}{tail}") < commit


class Killed(BaseException):
    """What a fault raises where a test wants the writer to stop dead."""


def killer(at):
    left = at

    def fault(_point):
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    return fault


def test_a_stop_at_any_point_leads_to_the_same_cache(undisturbed, tmp_path):
    """Every put of the creation and of the first unit, and the end of the last."""
    digest, points = undisturbed
    end = points.index("after commit/00000/00000.json") + 1
    for at in (*range(1, end + 1), len(points) - 1, len(points)):
        home = tmp_path / str(at)
        with pytest.raises(Killed):
            fill(create(home, fault=killer(at)))
        committed = sum(p.startswith("after commit/00000") for p in points[: at - 1])
        begun = points[at - 1].startswith("after commit/00000")
        cache = create(home)
        todo = fill(cache)
        assert len(todo) == 3 - committed - begun, points[at - 1]
        assert cache.digest(0) == digest, points[at - 1]


@pytest.mark.parametrize(
    "point", ["after logits.zarr/view/00000/code/c/1/0", "after commit/00000/00001.json"]
)
def test_a_process_killed_within_a_unit_is_followed_by_another(undisturbed, tmp_path, point):
    digest, points = undisturbed
    assert build(tmp_path, **{FAULT_VARIABLE: points.index(point) + 1}) == 137
    cache = open_cache(tmp_path / CACHE_ID)
    assert len(cache.commits) == 1 + point.startswith("after commit")
    fill(cache)
    assert cache.digest(0) == digest
    assert list(cache.verify(full=True)) == []


def test_sigkill_at_random_moments_leads_to_the_same_cache(undisturbed, tmp_path):
    command = [sys.executable, str(PROGRAM), str(tmp_path), "8"]
    for pause in (0.05, 0.2, 0.35):
        process = subprocess.Popen(command)
        while process.poll() is None and not list(tmp_path.glob("*/commit/00000/*")):
            time.sleep(0.01)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
    cache = open_cache(tmp_path / CACHE_ID)
    fill(cache, views=8)
    assert cache.digest(0) == undisturbed[0]
    assert list(cache.verify(full=True)) == []
    assert not [p for p in tmp_path.rglob("*") if ".partial" in p.name or "#" in p.name]


def test_uncommitted_leftovers_are_replaced(undisturbed, tmp_path):
    cache = create(tmp_path)
    place = Path(cache.location) / "logits.zarr/view/00000/code/c/0/0"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"another build's")
    assert cache.missing(range(1)) == [Unit(0, 0), Unit(0, 1), Unit(0, 2)]
    fill(cache)
    assert cache.digest(0) == undisturbed[0]


def test_a_full_disk_is_said_and_leaves_no_commit(tmp_path):
    """A limit on file sizes stands in for a full disk: writing fails in the same place."""
    cache = create(tmp_path)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, old[1]))
    try:
        with pytest.raises(SkdCacheError, match=r"no space left to write .*stage") as caught:
            write(cache, Unit(0, 0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert not open_cache(cache.location).commits
    fill(cache)
    assert list(cache.verify(full=True)) == []


def test_a_half_created_cache_is_none_until_it_is_finished(tmp_path):
    recipe = make_recipe()
    where = tmp_path / recipe.cache_id
    with pytest.raises(Killed):
        create(tmp_path, fault=killer(6))
    with pytest.raises(SkdCacheError, match="never completely created"):
        open_cache(where)
    create(tmp_path)
    assert open_cache(where).views() == []


def test_a_cache_is_not_created_under_another_name(tmp_path):
    with pytest.raises(SkdCacheError, match=CACHE_ID):
        create_cache(
            tmp_path / "mine",
            make_recipe(),
            labels=None,
            contents=None,
            class_weight=None,
            provenance={},
        )
