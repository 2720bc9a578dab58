"""Several processes build one cache on a disk, are stopped, killed and overtaken."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from skd_cache.store import open_cache
from skd_cache.store.claim import LEASE_VARIABLE
from tests.store.small_cache import create, logits_of, samples_of

ROOT = Path(__file__).parents[2]
VIEWS = 8  # of three shards
# Every builder's logits differ from all others' in their last bits, as those of GPUs do.
BUILD = """
import os, sys, time
from skd_cache.store import Work
from tests.store.small_cache import create, write
home, pace = sys.argv[1], float(sys.argv[2])
cache = create(home)
while cache.missing(range(8)):
    with Work(cache, range(8)) as work:
        for unit in work.free():
            with open(f"{home}/log", "a") as log:
                log.write(f"{os.getpid()} {unit.view} {unit.shard}\\n")
            time.sleep(pace)
            write(cache, unit, noise=os.getpid() % 97 * 1e-4)
            work.done(unit)
    time.sleep(0.05)
"""


class Crew:
    """Builders of one cache, in processes of their own."""

    def __init__(self, home, lease, pace):
        self.home, self._lease, self._pace = home, lease, pace
        self.processes = []

    def hire(self, program=BUILD):
        environment = {**os.environ, LEASE_VARIABLE: str(self._lease), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program, str(self.home), str(self._pace)]
        self.processes.append(subprocess.Popen(command, env=environment))
        return self.processes[-1]

    def log(self):
        path = self.home / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(int(part) for part in line.split()) for line in lines]

    def await_units(self, count):
        while len(self.log()) < count:
            assert any(process.poll() is None for process in self.processes)
            time.sleep(0.01)

    def dismiss(self):
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@pytest.fixture
def crew(tmp_path):
    crews = []

    def hired(lease, pace):
        crews.append(Crew(tmp_path, lease, pace))
        return crews[-1]

    yield hired
    for one in crews:
        one.dismiss()


def assert_sound(home):
    """Complete, every byte as committed, and of each unit the rows of one builder only."""
    cache = open_cache(next(path for path in home.iterdir() if path.is_dir()))
    assert cache.views() == list(range(VIEWS))
    assert list(cache.verify(full=True)) == []
    for view in range(VIEWS):
        for shard in range(cache.shards):
            start, stop = cache.unit_range(shard)
            found = cache.read(view, start, stop).teacher.logits().numpy()
            exact = logits_of(cache.recipe, view, samples_of(cache.recipe, view, start, stop))
            assert np.ptp(found[:, 0] - exact[:, 0]) < 1e-5, "rows of two builders in one unit"
    return cache


def test_two_builders_share_the_work_and_compute_nothing_twice(tmp_path, crew):
    create(tmp_path)
    team = crew(lease=60, pace=0.05)
    first, second = team.hire(), team.hire()
    assert first.wait() == second.wait() == 0
    units = [unit for _, *unit in team.log()]
    assert len(units) == 24
    shares = [sum(pid == one.pid for pid, *_ in team.log()) for one in (first, second)]
    assert min(shares) >= 6, shares
    assert_sound(tmp_path)


def test_builders_that_begin_together_create_one_cache(tmp_path, crew):
    team = crew(lease=60, pace=0.0)
    builders = [team.hire() for _ in range(3)]
    assert [one.wait() for one in builders] == [0, 0, 0]
    assert len({tuple(unit) for _, *unit in team.log()}) == len(team.log()) == 24
    assert_sound(tmp_path)


def test_stopped_and_killed_builders_leave_a_sound_cache(tmp_path, crew):
    """A stopped one is overtaken after its lease, wakes up later and does no harm."""
    create(tmp_path)
    team, draw = crew(lease=0.5, pace=0.1), random.Random(4)
    team.hire(), team.hire(), team.hire()
    for turn in range(6):
        team.await_units(3 * turn + 3)
        time.sleep(draw.uniform(0, 0.1))
        victim = team.processes[turn % 3]
        if turn % 2:
            victim.kill()
            victim.wait()
            team.processes[turn % 3] = team.hire()
            team.processes.pop()
        else:
            victim.send_signal(signal.SIGSTOP)
            time.sleep(draw.uniform(0.4, 0.9))
            victim.send_signal(signal.SIGCONT)
    for process in team.processes:
        assert process.wait() == 0
    assert len(team.log()) > 24, "nobody was overtaken"
    assert_sound(tmp_path)


# Creates a cache whose codec must be fitted; the fit takes a while and is written down.
BEGIN = """
import os, sys, time
from tests.store.small_cache import fitted, make_recipe, side_arrays
from skd_cache.store import begin_cache
home, recipe = sys.argv[1], make_recipe(classes=40, codec="klt")
def fit():
    with open(f"{home}/log", "a") as log:
        log.write(f"{os.getpid()} 0 0\\n")
    time.sleep(1)
    return fitted(recipe)
cache = begin_cache(f"{home}/{recipe.cache_id}", recipe, **side_arrays(recipe), provenance={},
                    fit=fit, waiting=lambda busy: print("waiting", len(busy), flush=True))
print(cache.codec.settings["name"])
"""


@pytest.mark.parametrize("killed", [False, True])
def test_of_builders_that_begin_together_one_fits(tmp_path, crew, killed):
    team = crew(lease=60, pace=0)
    builders = [team.hire(BEGIN) for _ in range(3)]
    team.await_units(1)
    if killed:
        (fitting,) = {pid for pid, *_ in team.log()}
        os.kill(fitting, signal.SIGKILL)
    codes = sorted(one.wait() for one in builders)
    assert codes == [-signal.SIGKILL if killed else 0, 0, 0]
    assert len(team.log()) == 1 + killed
    (place,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert list(open_cache(place).verify(full=True)) == []
