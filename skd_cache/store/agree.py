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
from functools import partial

from skd_cache.errors import DataError, SkdCacheError
from skd_cache.store.document import MAX_BYTES
from skd_cache.store.objects import Objects, Print, fingerprint

STAGE = "stage"
_DECISION = "decision.json"

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
            self._do(self._decision, partial(self._objects.create, self._decision, document))
            if (settled := self.finish()) is not None:
                return settled

    def finish(self) -> bytes | None:
        """Carry out what is decided, if anything is; the commit's document.

        Raises:
            DataError: if the stage is damaged.
            SkdCacheError: if the storage is full or fails.
        """
        try:
            decided = self._objects.get(self._decision, MAX_BYTES)
        except FileNotFoundError:
            return self._committed()
        # After the decision was read: one that is no more than a latecomer's has a commit by now.
        if (committed := self._committed()) is not None:
            return self._cleared(committed)
        for name, wanted in self._targets(decided).items():
            if holds(self._objects, name, wanted):
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
            if not holds(self._objects, name, wanted):
                raise not_as_written(self._objects, name)
        self._do(self._commit, partial(self._objects.create, self._commit, decided))
        committed = self._committed()
        if committed != decided:
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
        put_object(self._objects, self._staged(wanted), data, self._fault)

    def _committed(self) -> bytes | None:
        try:
            return self._objects.get(self._commit, MAX_BYTES)
        except FileNotFoundError:
            return None

    def _cleared(self, committed: bytes) -> bytes:
        for found in list(self._objects.list(self._stage)):
            self._do(found.name, partial(self._objects.delete, found.name))
        return committed

    def _do(self, name: str, act: Callable[[], object]) -> None:
        self._fault(f"before {name}")
        act()
        self._fault(f"after {name}")


def put_object(objects: Objects, name: str, data: bytes, fault: Fault) -> None:
    """Put an object whose bytes nobody disagrees about, and read it back.

    Raises:
        DataError: if the storage gives back something else.
        FileNotFoundError: if somebody removed it meanwhile.
    """
    fault(f"before {name}")
    wanted = fingerprint(data)
    if not holds(objects, name, wanted):
        if not objects.create(name, data) and not holds(objects, name, wanted):
            objects.replace(name, data)
        if objects.print_of(name) != wanted:
            raise not_as_written(objects, name)
    fault(f"after {name}")


def holds(objects: Objects, name: str, wanted: Print) -> bool:
    """Whether an object is there with these bytes."""
    try:
        return objects.size(name) == wanted.size and objects.print_of(name) == wanted
    except FileNotFoundError:
        return False


def not_as_written(objects: Objects, name: str) -> DataError:
    """What to say of storage that gives back something else than was put."""
    return DataError(f"{objects.location}/{name} does not read back as written: check the disk")
