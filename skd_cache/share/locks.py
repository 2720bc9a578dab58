"""Locks on files, between the processes of a machine; one is free again when its process ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skd_cache.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


def can_lock() -> bool:
    """Whether this platform has such locks."""
    return fcntl is not None


def try_lock(handle: int) -> bool:
    """Lock an open file until it is closed, unless somebody else has it locked."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold the lock of a file, made if missing; waits for whoever has it.

    Raises:
        InputError: if the disk knows no locks.
    """
    handle = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise InputError(
                f"{place.parent} cannot be locked ({error.strerror}): set SKD_CACHE_HOME to a "
                "folder on a local disk"
            ) from error
        yield
    finally:
        os.close(handle)
