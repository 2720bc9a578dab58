"""Carries units of a cache from one place to another, and makes sure they arrive.

What counts at the destination is settled as among builders (:mod:`skd_cache.store.agree`): data
before commits, the first commit stays. An object is compared with its commit when it arrives and
put on the destination's stage under its hash, so a transfer that was cut off finds there what had
arrived.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from skd_cache.errors import DataError, InputError
from skd_cache.progress import Bar
from skd_cache.share.holding import Holding, is_created, require_plain
from skd_cache.store import Unit, side
from skd_cache.store.agree import STAGE, Agreement, Fault, put_object
from skd_cache.store.commit import Commit, ObjectPrint
from skd_cache.store.layout import SIDE, claim_of, metadata_objects
from skd_cache.store.objects import Objects, Print, fingerprint
from skd_cache.store.writer import fault_from_environment, unit_agreement

UNITS_AT_ONCE = 8
BYTES_AT_ONCE = 512 << 20
ATTEMPTS = 3
"""How often an object is fetched that does not arrive as it was committed."""


@dataclass(frozen=True)
class Carried:
    """What a transfer did.

    Attributes:
        units: how many it moved.
        bytes: their data.
        theirs: units of which the destination holds, and keeps, other rows.
    """

    units: int
    bytes: int
    theirs: tuple[Unit, ...]


@dataclass(frozen=True)
class Journey:
    """What is to be moved, found before anything is."""

    source: Holding
    target: Objects
    side: bool  # whether also what lies beside the views
    units: Mapping[Unit, Commit]  # that the destination lacks
    theirs: tuple[Unit, ...]  # that it holds with other rows
    done: int  # bytes it holds already

    @property
    def bytes(self) -> int:
        """Of the data to be moved."""
        beside = _bytes(self.source.side.objects) if self.side else 0
        return beside + sum(_bytes(commit.objects) for commit in self.units.values())


def plan_journey(source: Holding, target: Objects, views: range | None = None) -> Journey:
    """Compare two places.

    Raises:
        InputError: if the destination has the cache with something else beside the views.
        DataError: if what it says it holds cannot be true.
    """
    wanted = source.units(views)
    require_plain(target)
    if not is_created(target):
        return Journey(source, target, True, wanted, (), 0)
    there = Holding.at(target, views)
    require_same_side(source, there)
    have = there.ledger.commits
    lacking = {unit: commit for unit, commit in wanted.items() if unit not in have}
    both = wanted.keys() & have.keys()
    theirs = tuple(sorted(unit for unit in both if have[unit] != wanted[unit]))
    done = sum(_bytes(have[unit].objects) for unit in both)
    return Journey(source, target, False, lacking, theirs, done)


def require_same_side(source: Holding, there: Holding) -> None:
    """Refuse to mix rows on two bases.

    Raises:
        InputError: naming the ways out.
    """
    if source.side != there.side:
        differing = sorted(
            name
            for name in source.side.objects.keys() | there.side.objects.keys()
            if source.side.objects.get(name) != there.side.objects.get(name)
        )
        raise InputError(
            f"{source.objects.location} and {there.objects.location} were created apart: their "
            f"{', '.join(differing) or SIDE} differ, so views of one are worth nothing in the "
            "other; pull theirs in place of yours (remove yours first), or build yours again with "
            "--new, which gives it a name of its own"
        )


def carry(journey: Journey, bar: Bar, *, fault: Fault | None = None) -> Carried:
    """Move what is to be moved, several units at once.

    Args:
        journey: see :func:`plan_journey`.
        bar: told of every byte that stands at the destination.
        fault: called around every put (for tests).

    Raises:
        DataError: if something does not arrive as it was committed; what arrived stays.
        SkdCacheError: if a place fails.
    """
    fault = fault or fault_from_environment()
    source, target = journey.source, journey.target
    bar = _OneAtATime(bar)
    room, stop = _Room(BYTES_AT_ONCE), threading.Event()
    if journey.side:
        _carry_side(source, target, bar, fault)
    theirs = list(journey.theirs)
    waiting = {found.name.rpartition("/")[0] for found in target.list(STAGE)}

    def move(unit: Unit, commit: Commit) -> None:
        with room.of(max(told.size for told in commit.objects.values())):
            begun = f"{STAGE}/{claim_of(unit)}" in waiting
            if not stop.is_set() and not carry_unit(source, target, unit, bar, fault, begun):
                theirs.append(unit)

    described: dict[str, bytes] = {}
    for view in {unit.view for unit in journey.units}:
        described |= metadata_objects(source.layout.view(view))
    with ThreadPoolExecutor(UNITS_AT_ONCE, "skd-cache-carry") as pool:
        put = partial(_put_described, target, fault)
        list(pool.map(put, described.items()))  # before any unit: a commit vouches for them
        moves = [pool.submit(move, unit, commit) for unit, commit in journey.units.items()]
        try:
            done, _ = wait(moves, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        for one in done:
            one.result()
    moved = len(journey.units) + len(journey.theirs) - len(theirs)
    return Carried(moved, journey.bytes, tuple(sorted(theirs)))


def carry_unit(
    source: Holding, target: Objects, unit: Unit, bar: Bar, fault: Fault, staged: bool = True
) -> bool:
    """Move one unit; whether its rows are what counts at the destination.

    With nothing ``staged`` of it there, it is not looked whether some of it had arrived before.
    """
    commit = source.ledger.commits[unit]
    document = commit.canonical()
    settled = unit_agreement(target, source.layout, unit, fault)
    stands = settled.finish() if staged else None  # what a killed builder had decided on
    if stands is None:
        grids = source.layout.view(unit.view)
        for name, told in commit.objects.items():
            _stage(source.objects, grids[name].object(unit.shard), told, settled, bar, staged)
        stands = settled.propose(document, {})
    else:
        bar.advance(_bytes(commit.objects))
    return stands == document


def _put_described(target: Objects, fault: Fault, described: tuple[str, bytes]) -> None:
    name, data = described
    put_object(target, name, data, fault, absent=True)


def _carry_side(source: Holding, target: Objects, bar: Bar, fault: Fault) -> None:
    settled = side.agreement(target, source.recipe, fault)
    for name, grid in source.layout.side().items():
        told = source.side.objects[name]
        for problem in side.check_array(source.objects, grid, told, full=False):
            raise DataError(f"{source.objects.location}: {problem}")
        _stage(source.objects, grid.object(), told, settled, bar, True)
    side.propose(target, source.layout, source.side, {}, source.provenance, fault)
    require_same_side(source, Holding.at(target, range(0)))


def _stage(
    source: Objects,
    name: str,
    told: ObjectPrint,
    settled: Agreement,
    bar: Bar,
    staged: bool,
) -> None:
    """Bring an object onto the destination's stage, unless it waits there."""
    if not staged or not settled.has_staged(told.print):
        settled.stage(_arrived(source, name, told.print), told.print)
    bar.advance(told.size)


def _arrived(source: Objects, name: str, wanted: Print) -> bytes:
    """An object as it was committed.

    Raises:
        DataError: if it does not arrive so, however often it is asked for.
    """
    problem = ""
    for _ in range(ATTEMPTS):
        try:
            data = source.get(name, wanted.size)
        except FileNotFoundError:
            problem = "it is missing"
            continue
        except DataError as error:
            problem = str(error)
            continue
        if fingerprint(data) == wanted:
            return data
        problem = f"{len(data):,} of {wanted.size:,} bytes came, their sha256 differs"
    raise DataError(
        f"{source.location}/{name} is not what was committed ({problem}): whoever keeps that "
        "place can mend it with `skd-cache verify --full --repair` and build or push again"
    )


def _bytes(objects: Mapping[str, ObjectPrint]) -> int:
    return sum(told.size for told in objects.values())


class _OneAtATime:
    """A bar that threads tell."""

    def __init__(self, bar: Bar) -> None:
        self._bar, self._lock = bar, threading.Lock()

    def advance(self, count: int = 1) -> None:
        with self._lock:
            self._bar.advance(count)


class _Room:
    """So many bytes at once; what is larger than that, alone."""

    def __init__(self, most: int) -> None:
        self._most, self._used, self._free = most, 0, threading.Condition()

    @contextmanager
    def of(self, count: int) -> Iterator[None]:
        """Wait until there is room for so many."""
        with self._free:
            self._free.wait_for(lambda: not self._used or self._used + count <= self._most)
            self._used += count
        try:
            yield
        finally:
            with self._free:
                self._used -= count
                self._free.notify_all()
