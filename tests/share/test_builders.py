"""Several processes build one cache straight into a bucket, and one of them is killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skd_cache.store import create_cache, open_cache
from skd_cache.store.claim import LEASE_VARIABLE
from skd_cache.store.objects import Objects
from tests.share.test_team import digests
from tests.store.small_cache import create, fill, fitted, make_recipe, side_arrays

ROOT = Path(__file__).parents[2]
VIEWS = 8  # of three shards
BUILD = """
import os, sys, time
from skd_cache.store import Work, begin_cache
from tests.store.small_cache import make_recipe, side_arrays, write
place, log, views = sys.argv[1], sys.argv[2], range(int(sys.argv[3]))
recipe = make_recipe()
cache = begin_cache(f"{place}/{recipe.cache_id}", recipe, **side_arrays(recipe),
                    provenance={"by": "a test"}, fit=None, waiting=lambda busy: None)
with Work(cache, views) as work:
    while cache.missing(views):
        for unit in work.free():
            with open(log, "a") as file:
                file.write(f"{os.getpid()} {unit.view} {unit.shard}\\n")
            time.sleep(0.2)
            write(cache, unit)
            work.done(unit)
        time.sleep(0.1)
        cache.refresh(views)
"""


@pytest.fixture
def builders(bucket, tmp_path):
    started = []

    def hire():
        environment = {**os.environ, LEASE_VARIABLE: "60", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", BUILD, bucket, str(tmp_path / "log"), str(VIEWS)]
        started.append(subprocess.Popen(command, env=environment))
        return started[-1]

    yield hire
    for process in started:
        process.kill()
        process.wait()


def test_four_builders_fill_a_bucket_and_one_is_killed(builders, bucket, tmp_path):
    log = tmp_path / "log"

    def lines():
        text = log.read_text() if log.exists() else ""
        return [tuple(int(part) for part in line.split()) for line in text.splitlines()]

    team = [builders() for _ in range(4)]
    victim, began = team[1], time.monotonic()
    while sum(pid == victim.pid for pid, *_ in lines()) < 2:
        assert time.monotonic() - began < 120
        time.sleep(0.01)
    victim.kill()
    assert [one.wait(120) for one in team] == [0, -9, 0, 0]
    alone = create(tmp_path / "alone")
    fill(alone, VIEWS)
    found = open_cache(Objects(f"{bucket}/{alone.id}"))
    assert found.views() == list(range(VIEWS))
    assert digests(found) == digests(alone)
    assert list(found.verify(full=True)) == []
    computed = [tuple(unit) for _, *unit in lines()]
    last = [tuple(unit) for pid, *unit in lines() if pid == victim.pid][-1]
    twice = {unit for unit in computed if computed.count(unit) > 1}
    assert twice <= {last}
    assert len({pid for pid, *_ in lines()}) == 4, "one of them had nothing to do"
    left = [one.name for place in ("stage", "claim/0") for one in found.objects.list(place)]
    assert left == []


def test_a_codec_that_must_be_fitted_begins_in_a_bucket(bucket):
    recipe = make_recipe(classes=40, codec="klt")
    place = Objects(f"{bucket}/{recipe.cache_id}")
    made = create_cache(place, recipe, provenance={}, codec=fitted(recipe), **side_arrays(recipe))
    fill(made)
    assert list(open_cache(made.objects).verify(full=True)) == []
