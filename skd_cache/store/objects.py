"""Objects under one folder or URL: put, get, list, with the promises a cache needs.

All bytes go through obstore, so a local folder and an object store look the same. What differs
is said here and nowhere else: obstore's local store stages a put in ``NAME#1`` and links it into
place, atomically but without fsync, so a power cut could leave an empty object under a final
name. On local disk we therefore put under a partial name, fsync, and rename.
"""

import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError
from obstore.store import LocalStore

from skd_cache.errors import DataError, InputError, SkdCacheError, UnreachableError
from skd_cache.store import remote
from skd_cache.store.connect import connect
from skd_cache.store.process import is_alive

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

PARTIAL = ".partial"
# What a put is staged under: ours with host and pid, obstore's own with a number.
_STAGED = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)\.partial(#\d+)?$|#\d+$")
_STALE_SECONDS = 3600.0
_NO_SPACE = re.compile(r"os error (28|122|27)\b")  # ENOSPC, EDQUOT, EFBIG
_READ_ONLY = re.compile(r"os error (30|13|1)\b")  # EROFS, EACCES, EPERM
_PIECE = 4 << 20
_MAX_LISTED = 2_000_000


@dataclass(frozen=True)
class Found:
    """An object as a listing shows it."""

    name: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Print:
    """What identifies an object's bytes."""

    size: int
    sha256: str


def fingerprint(data: bytes | memoryview) -> Print:
    """Size and sha256 of bytes in memory."""
    return Print(len(data), hashlib.sha256(data).hexdigest())


class Objects:
    """Everything under one location: a folder, or an obstore URL such as ``s3://bucket/path``."""

    def __init__(
        self,
        location: str | Path,
        *,
        create: bool = False,
        store: "ObjectStore | None" = None,
    ) -> None:
        """Look at a location; ``create`` makes a missing local folder.

        With ``store``, an obstore object store opened elsewhere, ``location`` only names it.

        Raises:
            InputError: if the location is neither a folder nor a URL obstore knows.
        """
        self.location = str(location)
        self.folder: Path | None = None
        self._durable: set[Path] = set()
        self._received = remote.Received()
        self._proved: dict[str, Print] = {}
        self.store: ObjectStore
        if store is not None:
            self.store = store
            return
        if "://" in self.location and not self.location.startswith("file://"):
            self.store = connect(self.location)
            return
        self.folder = Path(self.location.removeprefix("file://")).expanduser().absolute()
        try:
            if create:
                self.folder.mkdir(parents=True, exist_ok=True)
            if not self.folder.is_dir():
                raise InputError(f"there is no folder {self.folder}")
        except OSError as error:
            raise InputError(f"cannot use the folder {self.folder}: {error.strerror}") from error
        self.store = LocalStore(self.folder, automatic_cleanup=True)  # of empty folders

    @property
    def leaf(self) -> str:
        """The last part of the location: a cache's own name."""
        if self.folder is not None:
            return self.folder.name
        return self.location.rstrip("/").rsplit("/", 1)[-1]

    @contextmanager
    def _explained(self, verb: str, name: str) -> Iterator[None]:
        """Say in one sentence what a failed operation was at and what to do."""
        place = f"{self.location.rstrip('/')}/{name}" if name else self.location
        try:
            yield
        except (FileNotFoundError, AlreadyExistsError) as error:
            if self.folder is None and (refusal := remote.refusal(error, verb, place)):
                raise refusal from error  # not even the bucket is there
            raise
        except (BaseError, OSError, ValueError) as error:
            reason = remote.sentence(error)
            if self.folder is None and (refusal := remote.refusal(error, verb, place)):
                raise refusal from error
            if _NO_SPACE.search(str(error)):
                message = f"no space left to {verb} {place}: free some and run the same again"
                raise SkdCacheError(message) from error
            if isinstance(error, PermissionDeniedError) or _READ_ONLY.search(str(error)):
                raise InputError(f"not allowed to {verb} {place}: {reason}") from error
            kind = SkdCacheError if self.folder is not None else UnreachableError
            raise kind(f"could not {verb} {place}: {reason}") from error

    def get(self, name: str, limit: int) -> bytes:
        """An object's bytes, at most ``limit`` of them.

        Raises:
            FileNotFoundError: if there is no such object.
            DataError: if it is larger than ``limit``, before reading it.
        """
        with self._explained("read", name):
            return self._patiently(partial(self._get, name, limit))

    def _get(self, name: str, limit: int) -> bytes:
        found = obstore.get(self.store, name)
        if (size := found.meta["size"]) > limit:
            place = f"{self.location}/{name}"
            raise DataError(f"{place} has {size:,} bytes; at most {limit:,} can be right")
        return bytes(found.bytes())

    def _patiently(self, act: Callable[[], remote.Result]) -> remote.Result:
        """A disk is asked once, a server until it answers."""
        return remote.patiently(act) if self.folder is None else act()

    def size(self, name: str) -> int | None:
        """An object's size in bytes, or ``None`` if there is no such object."""
        with self._explained("look at", name):
            try:
                return int(self._patiently(partial(obstore.head, self.store, name))["size"])
            except FileNotFoundError:
                return None

    def print_of(self, name: str, size_wanted: int | None = None) -> Print:
        """Size and sha256 of a stored object, read piece by piece; not if it has another size.

        What this process put, and the store's own hash proves it received, is not read again.

        Raises:
            FileNotFoundError: if there is no such object.
        """
        digest = hashlib.sha256()
        with self._explained("read", name):
            meta = self._patiently(partial(obstore.head, self.store, name))
            size = int(meta["size"])
            if known := self._received.sha256(meta["e_tag"], size):
                return Print(size, known)
            if size_wanted not in (None, size):
                return Print(size, "")
            for start in range(0, size, _PIECE):
                end = min(start + _PIECE, size)
                piece = partial(obstore.get_range, self.store, name, start=start, end=end)
                digest.update(self._patiently(piece))
        return Print(size, digest.hexdigest())

    def received(self, name: str, wanted: Print) -> bool:
        """Whether the store has proved that these bytes were put under this name by us."""
        return self._proved.get(name) == wanted

    def holds(self, name: str, wanted: Print) -> bool:
        """Whether an object is there with these bytes."""
        try:
            if self.folder is not None:  # cheaper than reading what has another size
                return self.size(name) == wanted.size and self.print_of(name) == wanted
            return self.print_of(name, wanted.size) == wanted
        except FileNotFoundError:
            return False

    def pieces(self, name: str, size: int) -> Iterator[bytes]:
        """The first ``size`` bytes of an object, piece by piece, each asked for on its own.

        Raises:
            FileNotFoundError: if there is no such object.
        """
        for start in range(0, size, _PIECE):
            (piece,) = self.ranges(name, [start], [min(start + _PIECE, size)])
            yield piece

    def ranges(self, name: str, starts: Sequence[int], ends: Sequence[int]) -> Sequence[bytes]:
        """The bytes of an object between starts and ends, neighbouring ones in one request."""
        with self._explained("read", name):
            asked = partial(obstore.get_ranges, self.store, name, starts=starts, ends=ends)
            return [bytes(part) for part in self._patiently(asked)]

    def list(self, prefix: str = "") -> Iterator[Found]:
        """All objects under a prefix, except what a killed put left behind."""
        with self._explained("list", prefix):
            for meta in self._patiently(partial(self._list, prefix)):
                if not meta["path"].endswith(PARTIAL):
                    yield Found(meta["path"], meta["size"], meta["last_modified"])

    def _list(self, prefix: str) -> "Sequence[ObjectMeta]":
        found: Any = []
        for page in obstore.list(self.store, prefix=prefix or None):
            found += page
            if len(found) > _MAX_LISTED:
                message = f"{self.location}/{prefix} lists more than {_MAX_LISTED:,} names"
                raise DataError(f"{message}: no cache has so many")
        return cast("Sequence[ObjectMeta]", found)

    def folders(self) -> Sequence[str]:
        """The names one level down that others lie under."""
        with self._explained("list", ""):
            listed = self._patiently(partial(obstore.list_with_delimiter, self.store))
            found = listed["common_prefixes"]
        return [prefix.rstrip("/") for prefix in found]

    def create(self, name: str, data: bytes, known: Print | None = None) -> bool:
        """Put an object durably if there is none of that name; whether it was put.

        In an object store, whose answer may be lost, the same bytes count as put. If they are
        ``known``, they need not be hashed again.
        """
        with self._explained("write", name):
            if self.folder is None:
                sha256 = known.sha256 if known else ""
                proof = remote.create(self.store, name, data, self._received, sha256)
                if proof:
                    self._proved[name] = Print(len(data), proof)
                return proof is not None
            try:
                self._put_durably(self.folder, name, data, overwrite=False)
            except AlreadyExistsError:
                return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Put an object durably, whatever stood there."""
        with self._explained("write", name):
            if self.folder is None:
                put = self._patiently(
                    partial(obstore.put, self.store, name, data, use_multipart=False)
                )
                self._received.note(put["e_tag"], data)
            else:
                self._put_durably(self.folder, name, data, overwrite=True)

    def copy(self, source: str, name: str) -> None:
        """Make ``name`` hold what ``source`` holds, durably, whatever stood there.

        Raises:
            FileNotFoundError: if there is no ``source``.
        """
        with self._explained("write", name):
            if self.folder is None:
                self._patiently(partial(obstore.copy, self.store, source, name))
                return
            staged, final = self.folder / _partial(name), self.folder / name
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                staged.hardlink_to(self.folder / source)
                staged.replace(final)
            finally:
                staged.unlink(missing_ok=True)  # still there where both were one file already
            self._fsync_names(self.folder, final.parent)

    def delete(self, *names: str) -> None:
        """Remove objects; it is no error if there is none."""
        with self._explained("remove", names[0]):
            if self.folder is None:  # in one request
                self._patiently(partial(obstore.delete, self.store, names))
                return
            for name in names:
                with suppress(FileNotFoundError):
                    obstore.delete(self.store, name)

    def sweep(self) -> None:
        """Remove what killed puts left behind on local disk, and nothing that may be under way."""
        for place, _ in self.partials():
            place.unlink(missing_ok=True)

    def partials(self) -> Iterator[tuple[Path, int]]:
        """What killed puts left behind on local disk, with its size."""
        if self.folder is None:
            return
        for folder, _, names in os.walk(self.folder):  # unlike rglob, it bears removals
            for name in names:
                place = Path(folder, name)
                if (match := _STAGED.search(name)) and _is_stale(place, match):
                    with suppress(FileNotFoundError):
                        yield place, place.stat().st_size

    def _put_durably(self, folder: Path, name: str, data: bytes, *, overwrite: bool) -> None:
        staged = _partial(name)
        try:
            obstore.put(self.store, staged, data, use_multipart=False)
            _fsync(folder / staged)
            obstore.rename(self.store, staged, name, overwrite=overwrite)
        except BaseException:
            (folder / staged).unlink(missing_ok=True)
            raise
        self._fsync_names(folder, (folder / name).parent)

    def _fsync_names(self, folder: Path, parent: Path) -> None:
        """Make a new name survive a power cut, and once, those of the folders above it."""
        with suppress(FileNotFoundError):  # what was put is removed again, with its folder
            _fsync(parent)
            while parent != folder and parent not in self._durable:
                self._durable.add(parent)
                parent = parent.parent
                _fsync(parent)


def _partial(name: str) -> str:
    return f"{name}.{_host()}-{os.getpid()}{PARTIAL}"


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_stale(place: Path, match: re.Match[str]) -> bool:
    """Whether nobody works on a staged file any more: by its process, else by its age."""
    if match["host"] == _host() and not is_alive(int(match["pid"])):
        return True
    with suppress(FileNotFoundError):
        return time.time() - place.stat().st_mtime > _STALE_SECONDS
    return False


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
