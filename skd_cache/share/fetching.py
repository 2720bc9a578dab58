"""Gives a reader the shards of a remote cache: fetched ahead of need, compared, kept locally."""

import hashlib
import os
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from skd_cache.errors import DataError, SkdCacheError, UnreachableError
from skd_cache.share.shard_cache import ShardCache, Slot, no_room
from skd_cache.store.objects import Objects, Print, fingerprint
from skd_cache.store.shard import Fetch
from skd_cache.store.source import WHOLE_BYTES, Wanted, cuts

SHARDS_AHEAD = 4
"""Shards of a view that are fetched beyond the one that is read."""
FETCH_THREADS = 2
POLL_SECONDS = 0.02
_PIECE = 4 << 20

_Key = tuple[str, ...]
"""What a unit is called here: the sha256 of its objects."""


class Fetched:
    """The source of a remote cache's shards, see :class:`skd_cache.store.source.Source`."""

    def __init__(self, remote: Objects, shards: ShardCache) -> None:
        """Nothing is fetched before it is known what will be read."""
        self._remote, self._shards = remote, shards
        self._lock = threading.Lock()
        self._plan: list[Wanted] = []
        self._keys: list[_Key] = []
        self._reached = 0
        self._coming: dict[_Key, Future[None]] = {}
        self._pool = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="skd-cache-fetch")

    def expect(self, units: Sequence[Wanted]) -> None:
        """Begin to fetch the first of these units; what was expected before no longer is."""
        with self._lock:
            self._plan, self._keys, self._reached = list(units), [_key(one) for one in units], 0
            self._fetch_ahead()

    def ready(self, unit: Wanted) -> None:
        """Wait until a unit is local; those after it are fetched meanwhile."""
        key = _key(unit)
        with self._lock:
            if key in self._keys[self._reached :]:
                self._reached = self._keys.index(key, self._reached)
                self._fetch_ahead()
            coming = self._coming.get(key)
        if coming is not None and not coming.cancel():
            coming.result()
        self._fetch(unit, keep=(), patient=True)

    def open(self, name: str, wanted: Print, *, known: bool) -> Fetch:  # noqa: ARG002
        """An object's bytes, compared with its commit each time it is opened."""
        for _ in range(2):
            while (handle := self._shards.open(wanted)) is None:  # others may need the room
                self._fetch({name: wanted}, keep=(), patient=True)
            if (found := _compared(handle, wanted)) is not None:
                return found
            self._shards.discard(wanted)  # the disk's fault: what arrived was compared
        folder = self._shards.folder
        raise DataError(f"{name} does not read back from {folder} as written: check the disk")

    def _fetch_ahead(self) -> None:
        """Have the next units fetched, and no others; under the lock."""
        window = range(self._reached, min(self._reached + 1 + SHARDS_AHEAD, len(self._plan)))
        keep = {sha256 for place in window for sha256 in self._keys[place]}
        nearest = {self._keys[place] for place in window}
        for key in [key for key in self._coming if key not in nearest]:
            if self._coming[key].cancel():
                del self._coming[key]
        for place in window:
            key, unit = self._keys[place], self._plan[place]
            before = self._coming.get(key)
            if before is not None and not before.done():
                continue
            if not all(self._shards.holds(one) for one in unit.values()):
                self._coming[key] = self._pool.submit(self._fetch, unit, keep, patient=False)

    def _fetch(self, unit: Wanted, keep: Collection[str], *, patient: bool) -> None:
        """Bring a unit here. Without patience, not if there is no room or others are at it.

        Raises:
            DataError: if an object arrives twice otherwise than its commit says.
            UnreachableError: if it cannot be had.
        """
        while not all(self._shards.holds(one) for one in unit.values()):
            slots = self._shards.reserve(unit.values(), keep, press=patient)
            if slots:
                self._fill(unit, slots)
            elif not patient:
                return
            else:
                time.sleep(POLL_SECONDS)

    def _fill(self, unit: Wanted, slots: Sequence[Slot]) -> None:
        names = {wanted.sha256: name for name, wanted in unit.items()}
        left = list(slots)
        try:
            while left:
                self._bring(names[left[0].wanted.sha256], left[0])
                self._shards.keep(left.pop(0))
        finally:
            for slot in left:
                self._shards.drop(slot)

    def _bring(self, name: str, slot: Slot) -> None:
        """Fill a slot with an object, once more if it arrives wrong."""
        place = f"{self._remote.location.rstrip('/')}/{name}"
        try:
            for _ in range(2):
                if self._arrived(name, slot):
                    return
            size = self._remote.size(name)
        except FileNotFoundError:
            raise DataError(f"{place} is missing") from None
        except DataError:
            raise
        except SkdCacheError as error:
            raise UnreachableError(str(error)) from error
        except OSError as error:
            raise no_room(self._shards.folder, "write in", error) from error
        said = "its sha256 differs" if size == slot.wanted.size else f"it has {size:,} bytes"
        raise DataError(f"{place} is not what was committed ({said}), fetched twice")

    def _arrived(self, name: str, slot: Slot) -> bool:
        digest, at = hashlib.sha256(), 0
        for piece in self._remote.pieces(name, slot.wanted.size):
            if not threading.main_thread().is_alive():
                raise UnreachableError(f"{name} is not needed any more: the process ends")
            slot.write(at, piece)
            digest.update(piece)
            at += len(piece)
        return at == slot.wanted.size and digest.hexdigest() == slot.wanted.sha256


def _key(unit: Wanted) -> _Key:
    return tuple(one.sha256 for one in unit.values())


def _compared(handle: int, wanted: Print) -> Fetch | None:
    """Ranges of an open file, which is closed when nobody reads it any more; None if it differs."""
    if wanted.size <= WHOLE_BYTES:
        try:
            whole = os.pread(handle, wanted.size + 1, 0)
        finally:
            os.close(handle)
        return cuts(whole) if fingerprint(whole) == wanted else None
    file = _Ranges(handle)
    digest = hashlib.sha256()
    for start in range(0, wanted.size, _PIECE):
        digest.update(os.pread(handle, min(_PIECE, wanted.size - start), start))
    same = os.fstat(handle).st_size == wanted.size and digest.hexdigest() == wanted.sha256
    return file if same else None


class _Ranges:
    """Ranges of an open file; its bytes stay readable when its name is removed."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        weakref.finalize(self, os.close, handle)

    def __call__(self, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """The bytes between starts and ends."""
        return [
            os.pread(self._handle, end - start, start)
            for start, end in zip(starts, ends, strict=True)
        ]
