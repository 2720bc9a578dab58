"""A team's caches under one URL or folder: which there are, and whether one may write."""

import re
import secrets
from contextlib import suppress
from pathlib import Path

from obstore.exceptions import BaseError

from skd_cache.errors import InputError, SkdCacheError
from skd_cache.store.objects import Objects

_ID = re.compile(r"^[0-9a-f]{16}$")
_PREFIX = re.compile(r"^[0-9a-f]{1,16}$")
CANARY = "canary"


class Registry:
    """Where a team keeps its caches: ``<location>/<cache-id>/``."""

    def __init__(self, location: str) -> None:
        """Look at a location; nothing is asked of it yet."""
        self.location = location.rstrip("/")

    def caches(self) -> list[str]:
        """The ids of the caches there, in order.

        Raises:
            InputError: if there is no such place, or it may not be listed.
        """
        return sorted(name for name in Objects(self.location).folders() if _ID.match(name))

    def find(self, text: str) -> str:
        """The id of the cache whose id begins so.

        Raises:
            InputError: if there is none, or several.
        """
        if _ID.match(text):
            return text
        caches = self.caches()
        found = [name for name in caches if _PREFIX.match(text) and name.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{text} is the beginning of several caches: {', '.join(found)}")
        known = ", ".join(caches[:5]) or "none"
        raise InputError(f"there is no cache {text} in {self.location}; caches there: {known}")

    def objects(self, cache: str, *, create: bool = False) -> Objects:
        """Everything of a cache; ``create`` makes a missing local folder."""
        place = f"{self.location}/{cache}"
        if not create and "://" not in place and not Path(place).is_dir():
            raise InputError(f"there is no cache {cache} in {self.location}")
        return Objects(place, create=create)

    def require_create(self) -> None:
        """Make sure that what exists is not overwritten by those who only may create.

        Everything a cache promises to several builders rests on it, and a server that does not
        know the condition ignores it without a word. So an object is created twice.

        Raises:
            InputError: if it was created twice, or may not be written.
        """
        require_create(self.location)


def require_create(location: str) -> None:
    """See :meth:`Registry.require_create`."""
    objects = Objects(location, create=True)
    if objects.folder is not None:
        return  # a file system's link() is what we rely on, not a server's headers
    name = f"{CANARY}/{secrets.token_hex(8)}"
    try:
        twice = objects.create(name, b"one") and objects.create(name, b"another")
    except SkdCacheError as error:
        if isinstance(error.__cause__, BaseError) and "501" in str(error.__cause__):
            raise _unusable(location) from error
        raise
    finally:
        with suppress(SkdCacheError):
            objects.delete(name)
    if twice:
        raise _unusable(location)


def _unusable(location: str) -> InputError:
    return InputError(
        f"{location} is on a server that overwrites an object it is asked to create "
        "(If-None-Match is ignored), so builders would overwrite each other: it can be read from, "
        "not written to"
    )
