"""One builder at a time, and nobody waits for the dead."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skd_cache.errors import InputError, SkdCacheError
from skd_cache.store import Unit, open_cache
from skd_cache.store.claim import LEASE_SECONDS, Claim
from tests.store.small_cache import create, write

HOLD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from tests.store.small_cache import create
with create(sys.argv[1]).claim_builder():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def cache(tmp_path):
    return create(tmp_path)


@pytest.fixture
def other_builder(cache):
    home, here = Path(cache.location).parent, Path(__file__).parent
    command = [sys.executable, "-c", HOLD, str(home), str(here)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def put(cache, **changes):
    """Leave the claim of a builder that differs from this process in these fields."""
    claim = Claim.ours(0).model_copy(update=changes)
    place = Path(cache.location) / claim.name
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(claim.canonical())
    return place


def names(cache):
    return sorted(path.name for path in (Path(cache.location) / "claim").iterdir())


def test_a_second_builder_is_refused_with_host_and_process(cache, other_builder):
    with pytest.raises(InputError) as caught, cache.claim_builder():
        pass
    assert str(other_builder.pid) in str(caught.value)
    assert socket.gethostname() in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_second_builder_in_the_same_process_is_refused(cache):
    with (
        cache.claim_builder(),
        pytest.raises(InputError, match=str(os.getpid())),
        open_cache(cache.location).claim_builder(),
    ):
        pass


def test_a_killed_builder_is_followed_at_once(cache, other_builder):
    other_builder.send_signal(signal.SIGKILL)
    other_builder.wait()
    with cache.claim_builder():
        write(cache, Unit(0, 0))
    assert names(cache) == ["builder-00000001.json"]


def test_a_released_claim_is_followed_at_once(cache):
    for _ in range(3):
        with cache.claim_builder():
            pass
    assert names(cache) == ["builder-00000002.json"]


@pytest.mark.parametrize("changes", [{"boot": "earlier"}, {"began": "1"}, {"pid": 2**22 + 1}])
def test_a_builder_of_an_earlier_boot_or_process_is_followed(cache, changes):
    put(cache, **changes)
    with cache.claim_builder():
        write(cache, Unit(0, 0))


def test_a_builder_on_another_host_is_followed_after_its_lease(cache):
    place = put(cache, host="elsewhere", pid=1234)
    with pytest.raises(InputError, match="process 1234 on elsewhere"), cache.claim_builder():
        pass
    past = time.time() - LEASE_SECONDS - 1
    os.utime(place, (past, past))
    with cache.claim_builder():
        pass


def test_a_builder_that_was_taken_over_cannot_commit(cache):
    with cache.claim_builder():
        put(cache, generation=5)
        with pytest.raises(SkdCacheError, match="took over"):
            write(cache, Unit(0, 0))
    assert not open_cache(cache.location).commits


def test_readers_need_no_claim(cache, other_builder):
    assert other_builder.poll() is None
    assert open_cache(cache.location).views() == []
