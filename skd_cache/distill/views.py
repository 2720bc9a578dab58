"""What a run looks at: the positions of its batches, and how they become pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skd_cache.dataset.images import ImageSet
from skd_cache.pixels import Backend, open_backend
from skd_cache.replay import Policy
from skd_cache.store.recipe import PROBE_EVERY

Bounds = Sequence[tuple[int, int]]
"""First position and one past the last of consecutive batches."""


@dataclass(frozen=True)
class Pixels:
    """How files become pixels here: backend (None: DALI where installed), decoder, threads."""

    backend: str | None = None
    decoder: str = "cpu"
    threads: int | None = None
    device: str = "cpu"

    def open(self, images: ImageSet, policy: Policy, size: int) -> Backend:
        """The pixels of images at one size, on the device only where they are decoded there."""
        return open_backend(
            self.backend,
            images,
            size,
            policy,
            decoder=self.decoder,
            threads=self.threads,
            device=self.device if self.decoder == "gpu" else "cpu",
        )


@dataclass(frozen=True)
class Seat:
    """Which part of every batch is read here: one process of ``world``."""

    rank: int = 0
    world: int = 1

    def part(self, start: int, stop: int) -> tuple[int, int]:
        """The contiguous positions of a global batch ``[start, stop)`` that are this rank's."""
        count = stop - start
        first, last = (count * r // self.world for r in (self.rank, self.rank + 1))
        return start + first, start + last


def batch_bounds(count: int, batch_size: int, first_batch: int = 0) -> Bounds:
    """Where the batches of ``count`` positions lie from ``first_batch`` on; the last is short."""
    starts = range(first_batch * batch_size, count, batch_size)
    return [(start, min(start + batch_size, count)) for start in starts]


def probe_positions(start: int, stop: int) -> NDArray[np.int64]:
    """The positions in ``[start, stop)`` of which a cache keeps thumbnails."""
    first = -(-start // PROBE_EVERY)
    return np.arange(first * PROBE_EVERY, stop, PROBE_EVERY)
