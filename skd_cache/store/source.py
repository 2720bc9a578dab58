"""Where a reader takes the objects of committed units from; each is compared with its commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from skd_cache.errors import DataError
from skd_cache.store.checked import checked_object
from skd_cache.store.objects import Objects, Print
from skd_cache.store.shard import Fetch

WHOLE_BYTES = 16 * 1024 * 1024
"""Objects up to this size are read at once and kept while they are read from."""

Wanted = Mapping[str, Print]
"""The objects of a unit, by name: what each must hold."""


class Source(Protocol):
    """Gives a reader the bytes of shards."""

    def expect(self, units: Sequence[Wanted]) -> None:
        """Hear which units will be read next, in this order."""

    def ready(self, unit: Wanted) -> None:
        """Return when the objects of a unit can be opened without waiting for a network.

        Raises:
            DataError: if one is not what was committed.
            UnreachableError: if one cannot be had.
        """

    def open(self, name: str, wanted: Print, *, known: bool) -> Fetch:
        """The bytes of an object by ranges; one that is ``known`` was compared before.

        Raises:
            DataError: if it is missing or not what was committed.
            UnreachableError: if it cannot be had.
        """


@dataclass(frozen=True)
class Stored:
    """Objects are read where they lie."""

    objects: Objects

    def expect(self, units: Sequence[Wanted]) -> None:
        """Nothing to prepare."""

    def ready(self, unit: Wanted) -> None:
        """Nothing to wait for."""

    def open(self, name: str, wanted: Print, *, known: bool) -> Fetch:
        """Small ones whole, of others what is asked for."""
        whole, problem = checked_object(self.objects, name, wanted, known, WHOLE_BYTES)
        if problem:
            raise DataError(problem)
        return partial(self.objects.ranges, name) if whole is None else cuts(whole)


def cuts(whole: bytes) -> Fetch:
    """Ranges of bytes in memory."""

    def cut(starts: Sequence[int], ends: Sequence[int]) -> list[memoryview]:
        view = memoryview(whole)
        return [view[start:end] for start, end in zip(starts, ends, strict=True)]

    return cut
