"""What a run looks at: the positions of its batches, and how they become pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skd_cache.dataset.images import ImageSet
from skd_cache.errors import InputError
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
        """The contiguous positions of a global batch ``[start, stop)`` that are this rank's.

        Pairs stay together, since an image may be mixed with its neighbour, and are shared as
        evenly as can be, the first ranks having one more: of few images the last ranks have none.
        """
        pairs = -(-(stop - start) // 2)
        first, last = (2 * -(-pairs * r // self.world) for r in (self.rank, self.rank + 1))
        return min(start + first, stop), min(start + last, stop)


def micro_bounds(images: int, whole: int, world: int, accumulate: int) -> Bounds:
    """Where the micro-batches lie in one process's ``images`` of a batch of ``whole``.

    Their number follows from ``whole`` alone, so it is the same in every process.
    """
    count = max(1, min(accumulate, -(-whole // 2) // world))
    return [Seat(number, count).part(0, images) for number in range(count)]


def smallest_part(count: int, batch_size: int, world: int, accumulate: int) -> int:
    """Images of the smallest micro-batch that any process meets in an epoch of ``count``."""
    last = count % batch_size or batch_size
    shares = (
        (stop - start, whole)
        for whole in {batch_size, last}
        for start, stop in (Seat(rank, world).part(0, whole) for rank in range(world))
    )
    return min(
        stop - start
        for images, whole in shares
        for start, stop in micro_bounds(images, whole, world, accumulate)
        if start < stop
    )


def check_division(batch_size: int, count: int, world: int, accumulate: int) -> None:
    """See that a global batch divides into pairs, processes and micro-batches.

    Raises:
        InputError: if it does not; the message names the nearest sizes that do.
    """
    parts = world * accumulate
    if parts == 1 or batch_size % (2 * parts) == 0:
        return
    below = batch_size // (2 * parts) * 2 * parts
    fit = [size for size in (below, below + 2 * parts) if 0 < size <= count]
    processes = f"{world} processes" if world > 1 else "one process"
    said = f" in {accumulate} micro-batches each" if accumulate > 1 else ""
    raise InputError(
        f"batch-size {batch_size:,} is that of all processes together, and {processes}{said} take "
        f"multiples of {2 * parts:,}: "
        + (
            f"choose {' or '.join(f'{size:,}' for size in fit)}."
            if fit
            else f"the {count:,} images are too few for that."
        )
    )


def batch_bounds(count: int, batch_size: int, first_batch: int = 0) -> Bounds:
    """Where the batches of ``count`` positions lie from ``first_batch`` on; the last is short."""
    starts = range(first_batch * batch_size, count, batch_size)
    return [(start, min(start + batch_size, count)) for start in starts]


def probe_positions(start: int, stop: int) -> NDArray[np.int64]:
    """The positions in ``[start, stop)`` of which a cache keeps thumbnails."""
    first = -(-start // PROBE_EVERY)
    return np.arange(first * PROBE_EVERY, stop, PROBE_EVERY)
