"""Comparing what is replayed with what the teacher saw, without keeping a GPU waiting."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.pixels import check, thumbnails

SMALLEST = 96  # pixels

_LATE = 16  # batches that a GPU may be ahead of the comparison


@dataclass(frozen=True)
class _Pending:
    ours: Tensor
    stored: Tensor
    samples: NDArray[np.int64]
    view: int
    copied: torch.cuda.Event | None


def comparable(size: int, built: int) -> bool:
    """Whether thumbnails of images at two sizes agree within the probes' tolerance.

    They do where their eighths fall on the same edges and are averages of many pixels: on
    photographs against 224 pixels no thumbnail differed by more than 2 levels at 72, 80, …, 288,
    all multiples of 8. At 64, two of 396 did, of small crops that 224 pixels had enlarged, by 3; at
    100, 150 and 180 most did, by up to 9, and at 32 half, by up to 6.
    """
    fit = [side % 8 == 0 and side >= SMALLEST for side in (size, built)]
    return size == built or all(fit)


class ProbeWatch:
    """Compares thumbnails of replayed images with a cache's, on the CPU at once.

    Thumbnails made on a GPU are copied beside its work and compared some batches later.
    """

    def __init__(self, tolerance: int, describe: Callable[[int], str]) -> None:
        self._tolerance, self._describe = tolerance, describe
        self._pending: deque[_Pending] = deque()

    def see(self, images: Tensor, stored: Tensor, samples: NDArray[np.int64], view: int) -> None:
        """Note images uint8 ``[p, S, S, 3]`` against stored thumbnails ``[p, 8, 8, 3]``.

        Raises:
            DataError: if they, or earlier ones, are not what the teacher saw.
        """
        if not len(stored):
            return
        ours, copied = thumbnails(images), None
        if ours.is_cuda:
            host = torch.empty(ours.shape, dtype=ours.dtype, pin_memory=True)
            ours, copied = host.copy_(ours, non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record()
        self._pending.append(_Pending(ours, stored, samples, view, copied))
        self.settle(_LATE if copied is not None else 0)

    def settle(self, leave: int = 0) -> None:
        """Compare all that is noted but the last ``leave``.

        Raises:
            DataError: if some are not what the teacher saw.
        """
        while len(self._pending) > leave:
            one = self._pending.popleft()
            if one.copied is not None:
                one.copied.synchronize()
            check(
                one.ours.numpy(),
                one.stored.numpy(),
                self._tolerance,
                view=one.view,
                samples=one.samples,
                describe=self._describe,
            )
