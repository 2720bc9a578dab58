"""Any number of builders, stalled and killed anywhere: every commit matches what is stored.

The model runs the real protocol on a storage in memory. A schedule decides before every operation
on it which builder goes on; builders may die or sleep there for as long as the schedule likes.
"""

import hashlib
import json
import random
import threading
from datetime import UTC, datetime, timedelta

import pytest

from skd_cache.errors import DataError
from skd_cache.store.agree import Agreement
from skd_cache.store.claim import Builder, Claims
from skd_cache.store.objects import Found, Print, fingerprint

COMMIT = "commit/00000/00000.json"
PARTS = ("norm", "code", "probe")
LEASE = 600.0


class Dead(BaseException):
    """The builder is no more."""


class Memory:
    """Objects in memory; ``turn`` is called before each operation, as whoever performs it."""

    location, folder = "memory", None

    def __init__(self):
        self.data, self.written, self.clock, self.turn = {}, {}, 0.0, lambda: None

    def get(self, name, limit):
        self.turn()
        return self._there(name)[:limit]

    def size(self, name):
        self.turn()
        return len(self.data[name]) if name in self.data else None

    def print_of(self, name):
        self.turn()
        return fingerprint(self._there(name))

    def holds(self, name, wanted):
        self.turn()
        return name in self.data and fingerprint(self.data[name]) == wanted

    def received(self, *_):
        return False

    def list(self, prefix=""):
        self.turn()
        start = datetime.now(UTC)
        for name in sorted(self.data):
            if name.startswith(f"{prefix}/"):
                age = timedelta(seconds=self.clock - self.written[name])
                yield Found(name, len(self.data[name]), start - age)

    def create(self, name, data, _known=None):
        self.turn()
        if name in self.data:
            return False
        self._put(name, data)
        return True

    def replace(self, name, data):
        self.turn()
        self._put(name, data)

    def copy(self, source, name):
        self.turn()
        self._put(name, self._there(source))

    def delete(self, *names):
        for name in names:
            self.turn()
            self.data.pop(name, None)

    def _put(self, name, data):
        self.data[name], self.written[name] = data, self.clock

    def _there(self, name):
        if name not in self.data:
            raise FileNotFoundError(name)
        return self.data[name]


def targets(document):
    told = json.loads(document)
    return {f"data/{part}": Print(told[part][0], told[part][1]) for part in PARTS}


def made_by(builder):
    """The objects a builder computes, different in their last bits from all others'."""
    data = {f"data/{part}": f"{part}, last bits {builder}".encode() for part in PARTS}
    prints = {part: fingerprint(data[f"data/{part}"]) for part in PARTS}
    document = {part: [one.size, one.sha256] for part, one in prints.items()}
    return json.dumps(document, sort_keys=True).encode(), data


def quiet(_point):
    pass


def agreement(storage):
    return Agreement(storage, COMMIT, targets, quiet)


def check_storage(storage):
    """If there is a commit, everything it names is there with exactly those bytes."""
    if COMMIT in storage.data:
        for name, wanted in targets(storage.data[COMMIT]).items():
            assert name in storage.data, f"{name} was committed and is not there"
            assert fingerprint(storage.data[name]) == wanted, f"{name} is not what was committed"


class Schedule:
    """Lets one of several threads go on at a time, chosen by a seed, until all have ended."""

    def __init__(self, seed, storage, builders, gentle=False):
        self._draw, self._storage, self._gentle = random.Random(seed), storage, gentle
        self._odds = 0.0 if gentle else self._draw.choice([0.0, 0.02, 0.02, 0.15])  # to die
        self._wake = [threading.Semaphore(0) for _ in range(builders)]
        self._back = threading.Semaphore(0)
        self._left, self._me = set(range(builders)), threading.local()
        self._commits = set()
        self.survivors = set(range(builders))
        storage.turn = self._turn

    def run(self, work):
        threads = [threading.Thread(target=self._live, args=(b, work)) for b in self._left]
        for thread in threads:
            thread.start()
        asleep = {}
        while self._left:
            awake = [b for b in self._left if asleep.get(b, 0) <= 0] or list(self._left)
            chosen = self._draw.choice(sorted(awake))
            if self._draw.random() < 0.05:  # it stalls for a while; the clock goes on
                asleep[chosen] = self._draw.randrange(1, 60)
            for builder in asleep:
                asleep[builder] -= 1
            if not self._gentle:
                self._storage.clock += self._draw.choice([1, 10, LEASE / 3])
            self._wake[chosen].release()
            self._back.acquire()
            self._look()
        for thread in threads:
            thread.join()

    def _look(self):
        """At every moment: a commit never changes and never disappears, and is what is stored."""
        if COMMIT in self._storage.data:
            self._commits.add(self._storage.data[COMMIT])
        elif self._commits:
            raise AssertionError("a commit disappeared")
        assert len(self._commits) <= 1, "a commit was rewritten"
        check_storage(self._storage)

    def _live(self, builder, work):
        self._me.builder = builder
        self._wake[builder].acquire()
        try:
            work(builder)
        except Dead:
            self.survivors.discard(builder)
        finally:
            self._left.discard(builder)
            self._back.release()

    def _turn(self):
        builder = getattr(self._me, "builder", None)
        if builder is None:
            return  # the test itself looks
        if self._draw.random() < self._odds:
            raise Dead
        self._back.release()
        self._wake[builder].acquire()


def run_model(seed, builders=3):
    storage = Memory()
    schedule = Schedule(seed, storage, builders)
    computed, outcomes = [], {}

    def work(builder):
        me = Builder(host=f"host-{builder}", boot="", pid=1)
        claims = Claims(storage, me)
        claims.beat()
        for _ in range(40):
            if claims.take("00000/00000"):
                settled = agreement(storage).finish()
                if settled is None:
                    computed.append(builder)
                    settled = agreement(storage).propose(*made_by(builder))
                outcomes[builder] = settled
                claims.release("00000/00000")
                return
            claims.beat()

    schedule.run(work)
    return storage, schedule, computed, outcomes


@pytest.mark.parametrize("block", range(20))
def test_no_interleaving_of_three_builders_commits_what_is_not_stored(block):
    taken_over = died = 0
    for seed in range(block * 150, block * 150 + 150):
        storage, schedule, computed, outcomes = run_model(seed)
        for settled in outcomes.values():
            assert settled == storage.data[COMMIT], f"seed {seed}: a builder was told another"
        # A successor, alone, brings whatever the dead left to an end.
        storage.turn = lambda: None
        settled = agreement(storage).finish() or agreement(storage).propose(*made_by("heir"))
        assert settled == storage.data[COMMIT]
        check_storage(storage)
        agreement(storage).clear()
        assert not [name for name in storage.data if name.startswith("stage/")]
        taken_over += len(computed) > 1
        died += len(schedule.survivors) < 3
    assert taken_over, "the schedules are too tame to show anything"
    assert died


def test_builders_that_live_compute_a_unit_once():
    for seed in range(300):
        storage = Memory()
        computed = []

        def work(builder, storage=storage, computed=computed):
            claims = Claims(storage, Builder(host=f"host-{builder}", boot="", pid=1))
            claims.beat()
            if claims.take("00000/00000"):
                if agreement(storage).finish() is None:
                    computed.append(builder)
                    agreement(storage).propose(*made_by(builder))
                claims.release("00000/00000")

        Schedule(seed, storage, 3, gentle=True).run(work)
        assert len(computed) == 1, f"seed {seed}"
        check_storage(storage)


def test_a_decision_is_carried_out_by_whoever_comes_next():
    storage = Memory()
    document, data = made_by("killed")
    for part in data.values():
        storage.create(f"stage/00000/00000/{hashlib.sha256(part).hexdigest()}", part)
    storage.create("stage/00000/00000/decision.json", document)
    assert agreement(storage).propose(*made_by("next")) == document
    assert sorted(storage.data) == sorted([COMMIT, *data])
    check_storage(storage)


def test_what_stands_in_the_way_is_replaced():
    storage = Memory()
    storage.create("data/norm", b"left by something else")
    document, data = made_by("ours")
    assert agreement(storage).propose(document, data) == document
    check_storage(storage)


def test_a_stage_that_lost_its_objects_is_an_error_that_says_what_to_do():
    storage = Memory()
    storage.create("stage/00000/00000/decision.json", made_by("killed")[0])
    with pytest.raises(DataError, match=r"memory/stage/00000/00000 .*remove"):
        agreement(storage).finish()


def test_storage_that_forgets_is_found_out():
    class Forgetful(Memory):
        def create(self, name, data, _known=None):
            return super().create(name, data[:-1] if "/stage" not in name else data)

    with pytest.raises(DataError, match="does not read back"):
        agreement(Forgetful()).propose(*made_by("ours"))
