"""A remote cache is read where it lies, through a folder that never exceeds its limit."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from benchmarks.line import Line
from skd_cache.errors import DataError, InputError, UnreachableError
from skd_cache.share.place import open_in_place, parse_size
from skd_cache.share.shard_cache import FOLDER, ShardCache
from skd_cache.store.objects import Objects, fingerprint
from tests.store.small_cache import Unit, create, fill, make_recipe, write

SAMPLES, SHARD, VIEWS = 1200, 128, 2
ROOT = Path(__file__).parents[2]
READ = """
import sys
from pathlib import Path
from skd_cache.share.place import open_in_place
cache = open_in_place(sys.argv[1], Path(sys.argv[2]), limit=int(sys.argv[3]), say=print)
for turn in range(3):
    for view in (0, 1):
        rows = [r.teacher.logits() for r in cache.stream(view, 0, 1200, 32, then=1 - view)]
        print(turn, view, float(sum(part.double().abs().sum() for part in rows)))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache of twenty shards."""
    recipe = make_recipe(samples=SAMPLES, classes=64, shard=SHARD, chunk=64)
    cache = create(tmp_path_factory.mktemp("made"), recipe)
    fill(cache, VIEWS)
    return cache


def upload(cache, url):
    folder, there = Path(cache.location), Objects(f"{url}/{cache.id}")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            there.create(path.relative_to(folder).as_posix(), path.read_bytes())
    return there.location


@pytest.fixture
def url(made, bucket):
    return upload(made, bucket)


@pytest.fixture
def line(server, url, environment):  # noqa: ARG001
    """What stands between us and the server from now on."""
    made = Line(server.port)
    environment.setenv("AWS_ENDPOINT_URL", made.url)
    environment.setenv("SKD_CACHE_RETRY_SECONDS", "1")
    yield made
    made.cut()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def opened(url, home, limit=10**9):
    said = []
    cache = open_in_place(url, home, limit=limit, say=said.append)
    cache.said = said
    return cache


def logits(cache, view=0, then=None):
    return torch.cat(
        [rows.teacher.logits() for rows in cache.stream(view, 0, SAMPLES, 50, then=then)]
    )


def shards_of(home):
    """What was fetched whole."""
    return [path for path in (home / FOLDER).iterdir() if len(path.name) == 64]


def used(home):
    """Bytes of the folder; what goes while we look counts as long as it is seen."""
    total = 0
    for entry in os.scandir(home / FOLDER):
        try:
            total += entry.stat().st_size
        except FileNotFoundError:
            continue
    return total


class Watch:
    """Looks at the folder all the time."""

    def __init__(self, home):
        self.home, self.most, self._on = home, 0, True
        self._thread = threading.Thread(target=self._look)

    def _look(self):
        while self._on:
            if (self.home / FOLDER).is_dir():
                with (self.home / FOLDER / ".lock").open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)  # one moment, not a walk through several
                    self.most = max(self.most, used(self.home))
            time.sleep(0.001)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._on = False
        self._thread.join()


def test_what_is_read_in_place_is_what_was_built(made, url, home):
    cache = opened(url, home)
    assert cache.location == url
    assert (cache.id, cache.views()) == (made.id, made.views())
    assert cache.digest(1) == made.digest(1)
    assert (cache.labels == made.labels).all()
    assert torch.equal(logits(cache), logits(made))
    some = torch.randperm(SAMPLES)[:40].numpy()
    assert torch.equal(cache.lookup(1, some).logits(), made.lookup(1, some).logits())


def test_shards_come_ahead_of_need_and_once(made, line, url, home):
    cache = opened(url, home)
    before = line.carried
    stream = cache.stream(0, 0, SAMPLES, 50, then=1)
    next(stream)
    until = time.monotonic() + 10
    while len(shards_of(home)) < 15 and time.monotonic() < until:  # 5 shards of 3 objects
        time.sleep(0.02)
    assert len(shards_of(home)) >= 15
    for _ in stream:
        pass
    logits(cache, 1)
    data = sum(o.size for c in made.commits.values() for o in c.objects.values())
    assert line.carried - before < 1.5 * data  # headers weigh something here
    again = line.carried
    assert torch.equal(logits(opened(url, home)), logits(made))
    assert line.carried - again < 0.3 * data  # only what is small


def test_the_folder_never_exceeds_its_limit(made, url, home):
    limit = 3 * made.largest_unit
    with Watch(home) as watch:
        cache = opened(url, home, limit)
        for view in (0, 1, 0):
            assert torch.equal(logits(cache, view, then=1 - view), logits(made, view))
    assert made.largest_unit < watch.most <= limit


def test_a_limit_below_one_shard_is_refused(made, url, home):
    with pytest.raises(InputError, match="less than one shard"):
        opened(url, home, made.largest_unit - 1)
    limit = made.largest_unit
    assert torch.equal(logits(opened(url, home, limit)), logits(made))


def test_two_processes_share_a_folder_that_is_too_small_for_both(made, url, home):
    limit = 3 * made.largest_unit // 2
    command = [sys.executable, "-c", READ, url, str(home), str(limit)]
    with Watch(home) as watch:
        pair = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        said = [process.communicate(timeout=120)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    sums = [float(logits(made, view).double().abs().sum()) for view in (0, 1)]
    for lines in said:
        found = [float(text.split()[2]) for text in lines.splitlines()]
        assert found == pytest.approx(sums * 3)
    assert watch.most <= limit


def test_without_network_what_is_local_is_read_and_the_rest_is_named(made, line, url, home):
    cache = opened(url, home)
    assert torch.equal(logits(cache), logits(made))
    line.cut()
    assert torch.equal(logits(cache), logits(made))
    again = opened(url, home)
    assert "going on with what is here" in again.said[0]
    assert torch.equal(logits(again), logits(made))
    with pytest.raises(UnreachableError, match="view/00001"):
        logits(again, 1)


def test_without_network_and_nothing_kept_it_does_not_open(line, url, home):
    line.cut()
    with pytest.raises(UnreachableError, match="could not"):
        opened(url, home)


def test_a_bit_that_flips_on_the_way_is_fetched_again(made, line, url, home):
    cache = opened(url, home)
    line.flips = 1
    assert torch.equal(logits(cache), logits(made))
    assert line.flips == 0


def test_bits_that_flip_every_time_end_in_an_error_that_names_the_object(line, url, home):
    cache = opened(url, home)
    line.flips = 10**6
    with pytest.raises(DataError, match=r"view/00000/.* is not what was committed .*fetched twice"):
        logits(cache)
    assert all(fingerprint(path.read_bytes()).sha256 == path.name for path in shards_of(home))


@pytest.mark.parametrize("flips", range(1, 60, 7))
def test_a_commit_is_not_believed_at_first_sight(made, line, url, home, flips):
    line.flips = flips
    try:
        cache = opened(url, home)
    except (DataError, UnreachableError, InputError):
        return
    assert [cache.digest(view) for view in cache.views()] == [made.digest(v) for v in cache.views()]
    assert cache.statistics == made.statistics or cache.views() != [0, 1]


def test_a_damaged_file_of_the_folder_is_fetched_again(made, url, home):
    logits(opened(url, home))
    for path in shards_of(home):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert torch.equal(logits(opened(url, home)), logits(made))


def test_a_unit_that_was_made_again_is_noticed(made, url, home, tmp_path):
    logits(opened(url, home))
    other = create(tmp_path / "other", made.recipe)
    write(other, Unit(0, 3), noise=1.0)
    there = Objects(url)
    for path in Path(other.location).rglob("*"):
        name = path.relative_to(other.location).as_posix()
        if path.is_file() and (name == "commit/00000/00003.json" or "/c/3" in name):
            there.replace(name, path.read_bytes())
    found, before = logits(opened(url, home)), logits(made)
    assert not torch.equal(found[384:512], before[384:512])
    assert torch.equal(found[512:], before[512:])


def test_views_that_were_taken_back_are_gone(url, home):
    opened(url, home)
    there = Objects(url)
    for found in list(there.list("commit/00001")):
        there.delete(found.name)
    assert opened(url, home).views() == [0]


def test_a_shard_that_is_missing_is_named(url, home):
    Objects(url).delete("logits.zarr/view/00000/norm/c/2")
    with pytest.raises(DataError, match=r"norm/c/2 is missing"):
        logits(opened(url, home))


def test_room_of_a_killed_process_is_given_back(home):
    shards = ShardCache(home / FOLDER, 1000)
    (home / FOLDER / f"{'a' * 64}.partial").write_bytes(b"x" * 900)
    slots = shards.reserve([fingerprint(b"y" * 800)])
    assert len(slots) == 1
    shards.drop(slots[0])
    assert shards_of(home) == []


def test_what_others_fetch_is_not_fetched_twice_and_not_pressed_out(home):
    shards, data = ShardCache(home / FOLDER, 1000), b"y" * 800
    (slot,) = shards.reserve([fingerprint(data)])
    assert shards.reserve([fingerprint(data)]) == []
    assert shards.reserve([fingerprint(b"z" * 300)], press=True) is None
    slot.write(0, data)
    shards.keep(slot)
    assert shards.holds(fingerprint(data))
    assert shards.reserve([fingerprint(b"z" * 300)], keep={fingerprint(data).sha256}) is None
    (other,) = shards.reserve([fingerprint(b"z" * 300)])
    assert not shards.holds(fingerprint(data))
    shards.drop(other)


@pytest.mark.parametrize(
    ("text", "size"), [("20GB", 20 * 10**9), ("1.5 KiB", 1536), ("7", 7), ("3M", 3 * 10**6)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "1 GBit"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="is not a size"):
        parse_size(text)
