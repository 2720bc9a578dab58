"""A local copy of what is small in a remote cache: all but its shards, claims and stage.

With it a cache opens without its network, and whatever of its shards is local can be read.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from obstore.store import LocalStore

from skd_cache.errors import DataError, InputError, UnreachableError
from skd_cache.share.locks import locked
from skd_cache.store import side
from skd_cache.store.document import MAX_BYTES
from skd_cache.store.layout import RECIPE, ROOT, SIDE, unit_of
from skd_cache.store.objects import Found, Objects, Print, fingerprint

FOLDER = "remote"
LOCATION = "location"
_PARALLEL_READS = 16


class Mirror:
    """What is kept of one remote cache, in a folder named after its URL."""

    def __init__(self, home: Path, remote: Objects) -> None:
        """Nothing is copied yet.

        Raises:
            InputError: if the folder cannot be made.
        """
        self._remote = remote
        url = remote.location.rstrip("/")
        around = home / hashlib.sha256(url.encode()).hexdigest()[:16]
        self.folder = around / (remote.leaf or "cache")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (around / LOCATION).write_text(url)
        except OSError as error:
            raise InputError(f"cannot use {self.folder}: {error.strerror}") from error
        self._around = around

    @property
    def objects(self) -> Objects:
        """The copies, named as what they are copies of."""
        return Objects(self._remote.location, store=LocalStore(self.folder))

    @property
    def complete(self) -> bool:
        """Whether it was ever brought up to date."""
        return (self.folder / SIDE).is_file()

    def update(self) -> None:
        """Copy what is new, and forget what was taken back.

        Raises:
            InputError: if there is no cache, or it may not be read.
            DataError: if what it has is damaged.
            UnreachableError: if it does not answer; what was copied before is still there.
        """
        with locked(self._around / ".lock"):
            self._update()

    def _update(self) -> None:
        remote = self._remote
        recipe = side.read_recipe(remote)
        commit, layout = side.read_commit(remote, recipe)
        listed = [found for found in remote.list("commit") if unit_of(found.name, recipe)]
        self._put(RECIPE, recipe.canonical())
        self._copy(f"{ROOT}/zarr.json", side.MAX_PROVENANCE_BYTES)
        for name, data in side.side_metadata(layout).items():
            if not self._has(name, data):
                self._copy(name, len(data))
        ours = self.objects
        for name, grid in layout.side().items():
            wanted = commit.objects[name]
            if any(side.check_array(ours, grid, wanted, full=True)):
                for problem in side.check_array(remote, grid, wanted, full=False):
                    raise DataError(f"{remote.location}: {problem}")
                self._copy_array(grid.object(), wanted.print)
        kept = {f"commit/{path.parent.name}/{path.name}" for path in self._commits()}
        for name in kept - {found.name for found in listed}:
            (self.folder / name).unlink(missing_ok=True)
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            list(pool.map(self._copy_commit, listed))
        self._put(SIDE, commit.canonical())

    def _commits(self) -> Iterator[Path]:
        return (self.folder / "commit").glob("*/*.json")

    def _copy_commit(self, found: Found) -> None:
        """Copy a commit unless the copy is of this very one: a unit may have been made again."""
        place, changed = self.folder / found.name, int(found.modified.timestamp() * 1000)
        try:
            told = place.stat()
            if (told.st_size, told.st_mtime_ns // 1_000_000) == (found.size, changed):
                return
        except FileNotFoundError:
            pass
        self._copy(found.name, MAX_BYTES)
        os.utime(place, ns=(changed * 1_000_000, changed * 1_000_000))

    def _copy_array(self, name: str, wanted: Print) -> None:
        for _ in range(2):
            data = self._remote.get(name, wanted.size)
            if fingerprint(data) == wanted:
                return self._put(name, data)
        raise DataError(f"{self._remote.location}/{name} is not what was committed, fetched twice")

    def _copy(self, name: str, limit: int) -> None:
        """Copy an object. Nothing vouches for these bytes on their way, so they are read twice."""
        try:
            before = self._remote.get(name, limit)
            for _ in range(3):
                again = self._remote.get(name, limit)
                if again == before:
                    return self._put(name, again)
                before = again
        except FileNotFoundError:
            raise DataError(f"{self._remote.location}/{name} is missing") from None
        raise DataError(f"{self._remote.location}/{name} is another each time it is read")

    def _has(self, name: str, data: bytes) -> bool:
        try:
            return (self.folder / name).read_bytes() == data
        except OSError:
            return False

    def _put(self, name: str, data: bytes) -> None:
        place = self.folder / name
        partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(place)
        except OSError as error:
            raise UnreachableError(f"could not write {place}: {error.strerror}") from error


def up_to_date(mirror: Mirror, say: Callable[[str], None]) -> Objects:
    """What is small in a remote cache: as it is now, or if it does not answer, as it was.

    Raises:
        InputError, DataError: see :meth:`Mirror.update`.
        UnreachableError: if it does not answer, and nothing was kept of it.
    """
    try:
        mirror.update()
    except UnreachableError as error:
        if not mirror.complete:
            raise
        say(f"offline   {error}; going on with what is here of it")
    return mirror.objects
