"""A cache as a library reads it: images, labels and what the teacher said, epoch by epoch."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import Tensor

from skd_cache.batch import LogitBatch
from skd_cache.dataset.catalog import names, open_dataset
from skd_cache.dataset.images import ImageSet
from skd_cache.device import open_device
from skd_cache.distill.loader import Loader
from skd_cache.distill.matching import check_images, check_views
from skd_cache.distill.views import Pixels, Seat
from skd_cache.errors import InputError
from skd_cache.home import cache_home
from skd_cache.pixels import normalise
from skd_cache.replay import Policy, Views
from skd_cache.share.place import open_in_place, shard_cache_bytes
from skd_cache.store import Cache, find_cache


@dataclass(frozen=True)
class OpenCache:
    """An open cache, ready to be streamed; ``cache`` gives access to all that it holds."""

    cache: Cache

    @property
    def views(self) -> list[int]:
        """The views that are built."""
        return self.cache.views()

    def stream(
        self,
        images: str | Path | ImageSet,
        batch_size: int,
        epoch: int,
        *,
        views: tuple[int, ...] | None = None,
        first_batch: int = 0,
        size: int | None = None,
        normalised: bool = True,
        pixels: str | None = None,
        decoder: str = "cpu",
        threads: int | None = None,
        device: str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[tuple[Tensor, Tensor, LogitBatch]]:
        """The batches of an epoch: what the teacher saw then, and what it said.

        Args:
            images: what the cache was built from: a dataset's name, the folder of its images, or
                an opened split.
            batch_size: images of a batch, of all ranks together; the last one is short.
            epoch: which one; it replays view ``views[epoch % len(views)]``.
            views: views to go through in turn; None for all that are built.
            first_batch: where in the epoch to start; nothing before it is read.
            size: S, pixels; None for the first teacher's.
            normalised: float32 images as the first teacher took them, else uint8.
            pixels: ``dali``, ``reference``, or None for DALI where it is installed.
            decoder: where images are decoded, ``cpu`` or ``gpu``.
            threads: CPU threads that decode; None for one per core.
            device: where the tensors are wanted.
            rank: which contiguous part of every batch is wanted, of ``world``.
            world: in how many parts batches are read.

        Yields:
            ``images`` float32 ``[B, 3, S, S]`` (or uint8 ``[B, S, S, 3]``), ``labels`` int64
            ``[B]``, and ``teacher``, whose ``logits()`` are ``[B, C]`` float32.

        Raises:
            InputError: the cache is for other images, or a view is not built.
            DataError: pixels are not those the teacher saw, or the cache is damaged.
        """
        recipe, where = self.cache.recipe, open_device(device)
        if epoch < 0 or batch_size < 1 or not 0 <= rank < world:
            raise InputError("stream wants epoch >= 0, batch_size >= 1 and 0 <= rank < world.")
        split = images if isinstance(images, ImageSet) else _open_images(images, self.cache)
        check_images(self.cache, split)
        turn = check_views(self.cache, views)
        loader = Loader(
            Views(split, Policy.from_dict(dict(recipe.policy)), recipe.seed),
            size or recipe.sizes[0],
            batch_size,
            Pixels(pixels, decoder, threads, str(where)),
            cache=self.cache,
            seat=Seat(rank, world),
        )
        for batch in loader.epoch(turn[epoch % len(turn)], first_batch):
            here = batch.to(where)
            seen = here.images
            if normalised:
                first = recipe.teachers[0]
                seen = normalise(seen, first.mean, first.std)
            yield seen, here.labels, cast(LogitBatch, here.teacher)


def open_for_streaming(location: str | Path, shard_cache_size: str | None = None) -> OpenCache:
    """Open a cache by folder, URL, id or the unique beginning of one.

    Shards of a remote cache are fetched ahead of need and kept in ``$SKD_CACHE_HOME/shards``, of
    which there are never more than ``shard_cache_size`` (such as ``"50GB"``; 20 GB by default).

    Raises:
        InputError: if there is no such cache.
        DataError: if it is damaged.
        UnreachableError: if it does not answer, and nothing was kept of it.
    """
    home = cache_home()
    limit = shard_cache_bytes(shard_cache_size)
    found = find_cache(str(location), home)
    return OpenCache(open_in_place(found, home, limit=limit, say=warnings.warn))


def _open_images(images: str | Path, cache: Cache) -> ImageSet:
    """The training split of a dataset, by name or by the folder its files are in."""
    if not Path(images).is_dir():
        return open_dataset(str(images)).train
    kind = str(cache.provenance.get("dataset"))
    return open_dataset(kind if kind in names() else "imagefolder", Path(images)).train
