"""Files that are there whole or not at all, whatever happens while they are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skd_cache.errors import InputError, SkdCacheError


def write_durably(path: Path, data: bytes) -> None:
    """Put a file in place under its final name only once its bytes are on disk.

    Raises:
        SkdCacheError: if it cannot be written (InputError where the folder is read-only).
    """
    partial = path.with_name(f".{path.name}.partial")
    with explained("write", path):
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explained(verb: str, path: Path) -> Iterator[None]:
    """Say in one sentence what the operating system refused."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"not allowed to {verb} {path}: choose another --out") from error
    except OSError as error:
        raise SkdCacheError(f"cannot {verb} {path}: {error.strerror}") from error
