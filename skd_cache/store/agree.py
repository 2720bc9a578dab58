"""Several builders, one outcome: how objects come to count, whoever else works on the same.

A builder puts what it made under names that follow from the bytes, ``stage/PLACE/SHA256``, and
reads it back. It proposes it by creating ``stage/PLACE/decision.json``, the document of the commit
to be, if there is none. Whatever decision stands then is carried out, by anybody: its objects are
copied to their places, the commit is created with the same bytes, the stage is removed.

Why a commit always matches the store, with only create-if-absent to build on: while there is no
commit, a decision is never removed, so there is one at most, and everybody who copies, however late
he wakes up, copies the same bytes. A decision that is created after the stage was removed comes
after the commit, so its builder, who looks for the commit next, finds it and copies nothing.

Fault points, for tests: every put, copy and removal is announced before and after as
``before NAME`` and ``after NAME``.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeVar

from skd_cache.errors import DataError, SkdCacheError
from skd_cache.store.document import MAX_BYTES
from skd_cache.store.objects import Objects, Print, fingerprint

STAGE = "stage"
_DECISION = "decision.json"

Result = TypeVar("Result")
Fault = Callable[[str], None]
Targets = Callable[[bytes], Mapping[str, Print]]
"""Which object names a commit's document speaks of, and what they must hold.

Raises DataError if it is no such document.
"""


class Agreement:
    """What becomes of one commit and its objects."""

    def __init__(self, objects: Objects, commit: str, targets: Targets, fault: Fault) -> None:
        """For the commit of this name, of a unit or of what lies beside the views."""
        self._objects, self._commit, self._targets, self._fault = objects, commit, targets, fault
        self._stage = f"{STAGE}/{commit.removeprefix('commit/').removesuffix('.json')}"
        self._read_back: set[Print] = set()  # of what was put on the stage here

    def propose(self, document: bytes, data: Mapping[str, bytes]) -> bytes:
        """Let these objects, by name, and their commit count, unless others do already.

        Returns:
            the commit's document: this one, or another builder's.

        Raises:
            DataError: if the storage gives back something else than was put.
            SkdCacheError: if it is full or fails.
        """
        while True:
            if (committed := self._committed()) is not None:
                return self._cleared(committed)
            try:
                for part in data.values():
                    self._put_staged(part)
            except FileNotFoundError:  # removed by whoever committed meanwhile
                continue
            create = partial(self._objects.create, self._decision, document)
            ours = document if self._do(self._decision, create) else None
            if (settled := self.finish(ours)) is not None:
                return settled

    def stage(self, data: bytes, wanted: Print) -> None:
        """Put an object of these bytes on the stage, where a later proposal finds it."""
        with suppress(FileNotFoundError):  # removed by whoever committed meanwhile
            put_object(self._objects, self._staged(wanted), data, self._fault, wanted, absent=True)
            self._read_back.add(wanted)

    def has_staged(self, wanted: Print) -> bool:
        """Whether an object of these bytes waits on the stage."""
        return self._objects.holds(self._staged(wanted), wanted)

    def finish(self, decided: bytes | None = None) -> bytes | None:
        """Carry out what is decided, if anything is; the commit's document.

        Whoever has just created the decision knows what it is, and that nobody was at it before.

        Raises:
            DataError: if the stage is damaged.
            SkdCacheError: if the storage is full or fails.
        """
        fresh = decided is not None
        try:
            decided = decided or self._objects.get(self._decision, MAX_BYTES)
        except FileNotFoundError:
            return self._committed()
        # After the decision was read: one that is no more than a latecomer's has a commit by now.
        if (committed := self._committed()) is not None:
            return self._cleared(committed)
        for name, wanted in self._targets(decided).items():
            if not fresh and self._objects.holds(name, wanted):
                continue
            try:
                self._do(name, partial(self._objects.copy, self._staged(wanted), name))
            except FileNotFoundError:
                if (committed := self._committed()) is not None:
                    return self._cleared(committed)
                raise DataError(
                    f"{self._objects.location}/{self._stage} was decided on but lacks an object: "
                    "remove that folder to compute it again, while nobody builds"
                ) from None
            linked = self._objects.folder is not None and wanted in self._read_back
            if not linked and not self._objects.holds(name, wanted):
                raise not_as_written(self._objects, name)
        create = partial(self._objects.create, self._commit, decided)
        if not self._do(self._commit, create) and self._committed() != decided:
            raise SkdCacheError(f"{self._objects.location}/{self._commit} is not what was decided")
        return self._cleared(decided)

    def clear(self) -> None:
        """Remove what latecomers left on the stage of something committed."""
        if (committed := self._committed()) is not None:
            self._cleared(committed)

    def withdraw(self, names: Iterable[str]) -> None:
        """Remove a commit with the objects of these names; only while nobody builds.

        The commit goes before its objects: cut short, this leaves objects that no commit speaks of,
        never a commit that speaks of objects that are gone.
        """
        self._cleared(b"")
        for name in (self._commit, *names):
            self._do(name, partial(self._objects.delete, name))

    @property
    def _decision(self) -> str:
        return f"{self._stage}/{_DECISION}"

    def _staged(self, wanted: Print) -> str:
        return f"{self._stage}/{wanted.sha256}"

    def _put_staged(self, data: bytes) -> None:
        wanted = fingerprint(data)
        put_object(self._objects, self._staged(wanted), data, self._fault, wanted)
        self._read_back.add(wanted)

    def _committed(self) -> bytes | None:
        try:
            return self._objects.get(self._commit, MAX_BYTES)
        except FileNotFoundError:
            return None

    def _cleared(self, committed: bytes) -> bytes:
        names = [found.name for found in self._objects.list(self._stage)]
        if self._objects.folder is None and names:
            self._do(self._stage, partial(self._objects.delete, *names))
            return committed
        for name in names:
            self._do(name, partial(self._objects.delete, name))
        return committed

    def _do(self, name: str, act: Callable[[], Result]) -> Result:
        self._fault(f"before {name}")
        done = act()
        self._fault(f"after {name}")
        return done


def put_object(
    objects: Objects,
    name: str,
    data: bytes,
    fault: Fault,
    wanted: Print | None = None,
    *,
    absent: bool = False,
) -> None:
    """Put an object whose bytes nobody disagrees about, and read it back.

    Args:
        objects: where.
        name: its name.
        data: its bytes.
        fault: told before and after.
        wanted: its fingerprint, if that is known.
        absent: it is most likely not there yet, so it is not looked for first.

    Raises:
        DataError: if the storage gives back something else.
        FileNotFoundError: if somebody removed it meanwhile.
    """
    fault(f"before {name}")
    wanted = wanted or fingerprint(data)
    if absent or not objects.holds(name, wanted):
        if not objects.create(name, data, wanted) and not objects.holds(name, wanted):
            objects.replace(name, data)
        if not objects.received(name, wanted) and objects.print_of(name) != wanted:
            raise not_as_written(objects, name)
    fault(f"after {name}")


def not_as_written(objects: Objects, name: str) -> DataError:
    """What to say of storage that gives back something else than was put."""
    return DataError(f"{objects.location}/{name} does not read back as written: check the disk")
