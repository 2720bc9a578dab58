"""Nobody computes what another is at, and nobody waits for the dead."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skd_cache.errors import InputError
from skd_cache.store import Unit, Work, open_cache
from skd_cache.store.claim import LEASE_SECONDS, LEASE_VARIABLE, Builder, Claims
from tests.store.small_cache import create, write

VIEWS = range(1)
HOLD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from skd_cache.store import Work
from tests.store.small_cache import create
with Work(create(sys.argv[1]), range(1)) as work:
    print(next(work.free()), flush=True)
    time.sleep(60)
"""


@pytest.fixture
def cache(tmp_path):
    return create(tmp_path)


@pytest.fixture
def other(cache):
    """Another process, at the first unit."""
    home, here = Path(cache.location).parent, Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLD, str(home), str(here)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert "shard=0" in process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def left_by(cache, what="00000/00000", **changes):
    """The claim of a builder that differs from this process in these fields; its last beat."""
    claims = Claims(cache.objects, Builder.here().model_copy(update=changes))
    claims.beat()
    assert claims.take(what)
    return Path(cache.location) / f"claim/builder/{claims.token}.json"


def silence(beat, seconds):
    past = time.time() - seconds
    os.utime(beat, (past, past))


def shards(work):
    return [unit.shard for unit in work.free()]


def names(cache):
    folder = Path(cache.location) / "claim"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*.json"))


def test_a_unit_that_another_is_at_is_left_to_it(cache, other):
    with Work(cache, VIEWS) as work:
        assert shards(work) == [1, 2]
        (one,) = work.busy()
    assert (one.what, one.builder.pid) == ("00000/00000", other.pid)
    assert one.builder.host == socket.gethostname()


def test_two_builders_in_one_process_share_the_units(cache):
    with Work(cache, VIEWS) as ours, Work(open_cache(cache.location), VIEWS) as theirs:
        turns = [next(ours.free()), next(theirs.free()), next(ours.free())]
        assert turns == [Unit(0, 0), Unit(0, 1), Unit(0, 2)]
        assert shards(theirs) == []


def test_the_units_of_a_killed_process_are_free_at_once(cache, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    with Work(cache, VIEWS) as work:
        assert shards(work) == [0, 1, 2]


def test_a_killed_process_is_dead_before_its_parent_asks(cache, other):
    other.send_signal(signal.SIGKILL)
    while Path(f"/proc/{other.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        time.sleep(0.01)
    with Work(cache, VIEWS) as work:
        assert shards(work) == [0, 1, 2]


def test_what_was_let_go_is_free_again_and_nothing_is_left(cache):
    for _ in range(3):
        with Work(cache, VIEWS) as work:
            assert shards(work) == [0, 1, 2]
    assert names(cache) == []


def test_a_failure_frees_the_units(cache):
    work = Work(cache, VIEWS)
    with pytest.raises(RuntimeError, match="teacher"), work:
        raise RuntimeError(f"the teacher failed at {next(work.free())}")
    assert names(cache) == []


@pytest.mark.parametrize("changes", [{"boot": "earlier"}, {"began": "1"}, {"pid": 2**22 + 1}])
def test_the_units_of_an_earlier_boot_or_process_are_free(cache, changes):
    left_by(cache, **changes)
    with Work(cache, VIEWS) as work:
        assert shards(work) == [0, 1, 2]


def test_the_units_of_another_host_are_free_after_its_lease(cache):
    beat = left_by(cache, host="elsewhere", pid=1234)
    with Work(cache, VIEWS) as work:
        assert shards(work) == [1, 2]
        silence(beat, LEASE_SECONDS - 60)
        assert shards(work) == []
        silence(beat, LEASE_SECONDS + 60)
        assert shards(work) == [0]


def test_a_process_that_hangs_keeps_its_units_for_a_lease(cache, monkeypatch):
    monkeypatch.setenv(LEASE_VARIABLE, "30")
    beat = left_by(cache)
    silence(beat, 31)
    with Work(cache, VIEWS) as work:
        assert shards(work) == [0, 1, 2]


def test_a_builder_that_slept_does_not_take_its_unit_back(cache):
    late = Claims(cache.objects)
    late.beat()
    assert late.take("00000/00000")
    silence(Path(cache.location) / f"claim/builder/{late.token}.json", LEASE_SECONDS + 60)
    with Work(cache, VIEWS) as work:
        assert shards(work) == [0, 1, 2]
        late.beat()
        assert shards(work) == []
        assert names(cache)[0] == "00000/00000.00000001.json"


def test_a_committed_unit_is_nobodys_any_more(cache):
    with Work(cache, VIEWS) as ours, Work(open_cache(cache.location), VIEWS) as theirs:
        unit = next(ours.free())
        write(cache, unit)
        ours.done(unit)
        assert [unit.shard for unit in theirs.free()] == [1, 2]


def test_heartbeats_keep_a_claim_alive(cache, monkeypatch):
    monkeypatch.setenv(LEASE_VARIABLE, "1")
    with Work(cache, VIEWS) as ours, Work(open_cache(cache.location), VIEWS) as theirs:
        next(ours.free())
        time.sleep(1.5)
        assert [unit.shard for unit in theirs.free()] == [1, 2]


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff" * 5000])
def test_a_damaged_claim_holds_nobody_up(cache, damage):
    beat = left_by(cache, host="elsewhere")
    beat.write_bytes(damage)
    with Work(cache, VIEWS) as work:
        assert shards(work) == [0, 1, 2]


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "soon"])
def test_a_lease_that_is_no_number_of_seconds_is_refused(cache, monkeypatch, text):
    monkeypatch.setenv(LEASE_VARIABLE, text)
    with pytest.raises(InputError, match=LEASE_VARIABLE):
        Claims(cache.objects)


def test_readers_need_no_claim(cache, other):
    assert other.poll() is None
    assert open_cache(cache.location).views() == []
