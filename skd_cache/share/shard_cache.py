"""Shards of remote caches on this disk: one folder for all, which never exceeds its limit.

An object lies under the sha256 that its commit says. While it is fetched, a partial file of its
full size takes its room, locked by the process that fetches it; it is renamed when its bytes are
right. What was used longest ago goes when room is needed. Any number of processes share the folder:
all that changes names happens under one lock, and whoever has a file open reads on when it goes.
"""

import os
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from skd_cache.errors import InputError, UnreachableError
from skd_cache.share.locks import locked, try_lock
from skd_cache.store.objects import Print

FOLDER = "shards"
DEFAULT_BYTES = 20 * 10**9
SIZE_VARIABLE = "SKD_CACHE_SHARD_CACHE_SIZE"
STUCK_SECONDS = 300.0
"""A partial file that did not grow for so long is its owner's no more; retries take less."""
_LOCK, _PARTIAL = ".lock", ".partial"


@dataclass(frozen=True)
class Slot:
    """Room for an object: a file of its size, locked until it is kept or dropped."""

    wanted: Print
    handle: int

    def write(self, at: int, data: bytes) -> None:
        """Bytes that belong ``at`` bytes into the object."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self.handle, view, at)
            view, at = view[count:], at + count


@dataclass(frozen=True)
class Shelved:
    """A file of the folder, as one look found it."""

    name: str
    size: int
    used: float

    @property
    def partial(self) -> bool:
        """Whether it is being fetched."""
        return self.name.endswith(_PARTIAL)


class ShardCache:
    """The folder, as this process uses it."""

    def __init__(self, folder: Path, limit: int = DEFAULT_BYTES) -> None:
        """Make the folder if it is missing.

        Raises:
            InputError: if it cannot be made or written.
        """
        self.folder, self.limit = folder, limit
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / _LOCK):
                pass
        except OSError as error:
            raise InputError(
                f"cannot use {folder} for shards of remote caches: {error.strerror}"
            ) from error

    def holds(self, wanted: Print) -> bool:
        """Whether an object is there, as of now."""
        return (self.folder / wanted.sha256).exists()

    def open(self, wanted: Print) -> int | None:
        """A handle on an object if it is there; it counts as used. The caller closes it."""
        try:
            handle = os.open(self.folder / wanted.sha256, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with suppress(OSError):
            os.utime(handle)
        return handle

    def reserve(
        self, objects: Collection[Print], keep: Collection[str] = (), *, press: bool = False
    ) -> list[Slot] | None:
        """Room for the objects that are neither there nor being fetched by anybody.

        What was used longest ago makes room, but not what ``keep`` names by sha256, unless
        ``press``.

        Returns:
            a slot for each, all or none; None if there is no room now.
        """
        with self._changing("find room in"):
            present = self._present()
            names = {one.name for one in present}
            lacking = {
                one.sha256: one
                for one in objects
                if one.sha256 not in names and one.sha256 + _PARTIAL not in names
            }
            room = self.limit - sum(one.size for one in present)
            needed = sum(one.size for one in lacking.values())
            own = {one.sha256 for one in objects}
            others = [one for one in present if not one.partial and one.name not in own]
            if not press:
                others = [one for one in others if one.name not in keep]
            others.sort(key=lambda one: (one.name in keep, one.used))
            goes: list[Shelved] = []
            while room < needed and others:
                goes.append(others.pop(0))
                room += goes[-1].size
            if room < needed:
                return None
            for one in goes:
                (self.folder / one.name).unlink(missing_ok=True)
            return self._slots(list(lacking.values()))

    def keep(self, slot: Slot) -> None:
        """Put what a slot holds in its place; its bytes were compared."""
        with self._changing("write in"):
            if self._owns(slot):
                self._partial(slot.wanted).replace(self.folder / slot.wanted.sha256)
            os.close(slot.handle)

    def drop(self, slot: Slot) -> None:
        """Give a slot's room back."""
        with self._changing("write in"):
            if self._owns(slot):
                self._partial(slot.wanted).unlink()
            os.close(slot.handle)

    def discard(self, wanted: Print) -> None:
        """Remove an object that is damaged."""
        with self._changing("write in"):
            (self.folder / wanted.sha256).unlink(missing_ok=True)

    def surplus(self, known: Collection[str] | None = None) -> list[Shelved]:
        """What can go: beyond the limit, not ``known`` by sha256, or left by a killed process."""
        with self._changing("look at"):
            files = self._files()
            left = self._abandoned(files)
        stays = sorted((one for one in files if not one.partial), key=lambda one: one.used)
        goes = [one for one in stays if known is not None and one.name not in known]
        stays = [one for one in stays if known is None or one.name in known]
        excess = sum(one.size for one in stays) - self.limit
        while excess > 0:
            goes.append(stays.pop(0))
            excess -= goes[-1].size
        return [*left, *goes]

    def remove(self, found: Shelved) -> None:
        """Remove what :meth:`surplus` found, unless it was used or taken up since."""
        with self._changing("write in"):
            files = [one for one in self._files() if one == found]
            if self._abandoned(files) if found.partial else files:
                (self.folder / found.name).unlink(missing_ok=True)

    @contextmanager
    def _changing(self, verb: str) -> Iterator[None]:
        try:
            with locked(self.folder / _LOCK):
                yield
        except OSError as error:
            raise no_room(self.folder, verb, error) from error

    def _present(self) -> list[Shelved]:
        """All files that take room, those of killed processes being removed; under the lock."""
        files = self._files()
        dead = self._abandoned(files)
        for one in dead:
            (self.folder / one.name).unlink(missing_ok=True)
        return [one for one in files if one not in dead] if dead else files

    def _files(self) -> list[Shelved]:
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                told = entry.stat(follow_symlinks=False)
                if entry.name != _LOCK and stat.S_ISREG(told.st_mode):
                    found.append(Shelved(entry.name, told.st_size, told.st_mtime))
        return found

    def _abandoned(self, files: Sequence[Shelved]) -> list[Shelved]:
        """Partial files among these that nobody fills any more; under the lock."""
        found = []
        for one in files:
            if one.partial:
                handle = os.open(self.folder / one.name, os.O_RDWR)
                try:
                    if try_lock(handle) or time.time() - one.used > STUCK_SECONDS:
                        found.append(one)
                finally:
                    os.close(handle)
        return found

    def _slots(self, objects: Sequence[Print]) -> list[Slot]:
        slots: list[Slot] = []
        try:
            for one in objects:
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                slots.append(Slot(one, os.open(self._partial(one), flags, 0o644)))
                try_lock(slots[-1].handle)
                os.truncate(slots[-1].handle, one.size)
        except OSError:
            for slot in slots:
                self._partial(slot.wanted).unlink(missing_ok=True)
                os.close(slot.handle)
            raise
        return slots

    def _owns(self, slot: Slot) -> bool:
        """Whether the partial file is still the slot's: one that was stuck for long is not."""
        with suppress(FileNotFoundError):
            return os.path.samestat(self._partial(slot.wanted).stat(), os.fstat(slot.handle))
        return False

    def _partial(self, wanted: Print) -> Path:
        return self.folder / f"{wanted.sha256}{_PARTIAL}"


def no_room(folder: Path, verb: str, error: OSError) -> UnreachableError:
    """What to say when the disk refuses."""
    return UnreachableError(
        f"could not {verb} {folder}: {error.strerror}; free some room, or set --shard-cache-size "
        "or SKD_CACHE_HOME otherwise"
    )
