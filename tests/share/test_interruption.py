"""Transfers that are killed or cut off anywhere, and run again."""

import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from skd_cache.errors import SkdCacheError
from skd_cache.share import Registry, push
from skd_cache.share.transfer import UNITS_AT_ONCE
from skd_cache.store import open_cache
from tests.share.test_team import digests, pull_all, quiet
from tests.store.small_cache import create, fill, make_recipe

ROOT = Path(__file__).parents[2]
DATA = re.compile(r"/logits\.zarr/(?:view/\d+|sample|teacher|codec)/\w+/c/\d[/\d]*$")
PUSH = """
import sys
from skd_cache.share import Registry, push
push(sys.argv[1], Registry(sys.argv[2]), None, print)
"""
PULL = """
import sys
from pathlib import Path
from skd_cache.share import Registry, pull
pull(Path(sys.argv[1]).name, Registry(sys.argv[2]), Path(sys.argv[1]).parent, None, None, print)
"""


@pytest.fixture
def large(tmp_path):
    """A cache of about 1.5 MB in 24 units."""
    made = create(tmp_path / "made", make_recipe(samples=700, classes=60))
    fill(made, 4)
    return made


def start(program, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def run_killed(program, proxy, kills, *arguments):
    """Run it, killed each time after so many more bytes, until it is left alone."""
    for count in kills:
        running = start(program, *arguments)

        def kill(running=running):
            running.send_signal(signal.SIGKILL)

        proxy.left, proxy.on_cut = count, kill
        assert running.wait(60) in (0, -signal.SIGKILL)
        proxy.left = None
    assert start(program, *arguments).wait(60) == 0


def fetched_whole(seen):
    """How often each object of data was sent to its last byte."""
    return Counter(one.path for one in seen if one.method == "GET" and DATA.search(one.path))


def assert_same(place, large):
    found = open_cache(place)
    assert digests(found) == digests(large)
    assert list(found.verify(full=True)) == []


def test_a_push_killed_at_random_bytes_goes_on(large, proxy, bucket):
    draw = random.Random(1)
    kills = [draw.randrange(1000, 600_000) for _ in range(4)]
    run_killed(PUSH, proxy, kills, large.location, bucket)
    assert_same(Registry(bucket).objects(large.id), large)


def test_a_pull_killed_at_random_bytes_goes_on(large, proxy, bucket, tmp_path):
    push(large.location, Registry(bucket), None, quiet)
    proxy.seen.clear()
    draw = random.Random(2)
    kills = [draw.randrange(1000, 600_000) for _ in range(4)]
    home = tmp_path / "home" / large.id
    run_killed(PULL, proxy, kills, str(home), bucket)
    assert_same(home, large)
    # Only what was on its way when the kill came is asked for again.
    again = sum(count - 1 for count in fetched_whole(proxy.seen).values())
    assert again <= len(kills) * UNITS_AT_ONCE


def test_what_had_arrived_is_not_fetched_again(large, proxy, bucket, environment, tmp_path):
    """Cut off by the network at random bytes; whatever was kept is not asked for any more."""
    push(large.location, Registry(bucket), None, quiet)
    environment.setenv("SKD_CACHE_RETRY_SECONDS", "0")
    home, draw, cuts = tmp_path / "home" / large.id, random.Random(3), 0
    sha256 = {
        f"/{bucket.removeprefix('s3://')}/{large.id}/{grid.object(unit.shard)}": told.sha256
        for unit, commit in large.commits.items()
        for name, told in commit.objects.items()
        for grid in [large._layout.view(unit.view)[name]]
    }
    for _ in range(20):
        kept = {path.name for path in home.rglob("stage/*/*/*")} if home.exists() else set()
        done = {str(path.relative_to(home)) for path in home.rglob("logits.zarr/view/*/*/c/**/*")}
        proxy.seen.clear()
        proxy.left = draw.randrange(1000, 400_000)
        with suppress(SkdCacheError):
            pull_all(large, bucket, tmp_path / "home")
        cuts += proxy.left <= 0
        for path in fetched_whole(proxy.seen):
            assert sha256.get(path) not in kept, path
            assert path.split(f"{large.id}/", 1)[1] not in done, path
    assert cuts >= 3
    proxy.left = None
    pull_all(large, bucket, tmp_path / "home")
    assert_same(home, large)


def test_a_push_cut_off_at_random_bytes_goes_on(large, proxy, bucket, environment):
    environment.setenv("SKD_CACHE_RETRY_SECONDS", "0")
    draw, cuts = random.Random(4), 0
    for _ in range(8):
        proxy.left = draw.randrange(1000, 600_000)
        with suppress(SkdCacheError):
            push(large.location, Registry(bucket), None, quiet)
        cuts += proxy.left <= 0
    assert cuts >= 2
    proxy.left = None
    push(large.location, Registry(bucket), None, quiet)
    assert_same(Registry(bucket).objects(large.id), large)
