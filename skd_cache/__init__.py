"""Teacher-free knowledge distillation from a shared cache of logits."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skd_cache.distill.library import OpenCache


def open(path: str | Path, shard_cache_size: str | None = None) -> "OpenCache":  # noqa: A001 - reads as skd_cache.open(...)
    """Open a cache by folder, URL, id or the unique beginning of one, to stream from it.

    ``skd_cache.open(path).stream(images="demo", batch_size=64, epoch=0)`` yields
    ``images, labels, teacher``; see `skd_cache.distill.library.OpenCache.stream`. A cache at a URL
    is read in place, through at most ``shard_cache_size`` (such as ``"20GB"``) of local disk.

    Raises:
        InputError: if there is no such cache.
        DataError: if it is damaged.
    """
    from skd_cache.distill.library import open_for_streaming

    return open_for_streaming(path, shard_cache_size)
