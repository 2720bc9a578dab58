"""Opens a cache wherever it lies: on a disk as it is, elsewhere through the local shard cache."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from skd_cache.errors import InputError
from skd_cache.share import mirror, shard_cache
from skd_cache.share.fetching import Fetched
from skd_cache.share.locks import can_lock
from skd_cache.share.mirror import Mirror, up_to_date
from skd_cache.share.shard_cache import ShardCache
from skd_cache.store import Cache, open_cache
from skd_cache.store.objects import Objects

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*$", re.IGNORECASE)


def is_remote(location: str) -> bool:
    """Whether a location is a URL that is not on this machine's disks."""
    return "://" in location and not location.startswith("file://")


def open_in_place(
    location: str,
    home: Path,
    *,
    limit: int = shard_cache.DEFAULT_BYTES,
    say: Callable[[str], None],
) -> Cache:
    """Open a cache to read it where it lies.

    Shards of a remote one are fetched ahead of need into ``home/shards``, what is small is kept in
    ``home/remote``; with both, it can be read without its network. The units it holds are those of
    this moment.

    Args:
        location: folder or URL of the cache.
        home: where caches live on this machine.
        limit: bytes that ``home/shards`` may have.
        say: hears a sentence if the cache does not answer and what is local must do.

    Raises:
        InputError: if there is none, it may not be read, or the limit is too small for its shards.
        DataError: if its recipe, metadata or commits are damaged.
        UnreachableError: if it does not answer, and nothing was kept of it.
    """
    if not is_remote(location) or not can_lock():
        return open_cache(location)
    remote = Objects(location)
    small = up_to_date(Mirror(home / mirror.FOLDER, remote), say)
    source = Fetched(remote, ShardCache(home / shard_cache.FOLDER, limit))
    cache = Cache(small, source=source)
    if cache.largest_unit > limit:
        raise InputError(
            f"--shard-cache-size {limit:,} is less than one shard of {location} "
            f"({cache.largest_unit:,} bytes): give {5 * cache.largest_unit:,} or more"
        )
    return cache


def shard_cache_bytes(text: str | None) -> int:
    """The limit that is asked for, else ``SKD_CACHE_SHARD_CACHE_SIZE``, else 20 GB.

    Raises:
        InputError: if that is not a size.
    """
    asked = text if text is not None else os.environ.get(shard_cache.SIZE_VARIABLE)
    return shard_cache.DEFAULT_BYTES if not asked else parse_size(asked)


def parse_size(text: str) -> int:
    """Bytes of ``500MB``, ``20GB``, ``1.5TiB`` or plain ``1000000``.

    Raises:
        InputError: if it is none of these.
    """
    if not (match := _SIZE.match(text)):
        raise InputError(f"{text!r} is not a size such as 500MB or 20GB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))
