"""Antialiased resizing on the CPU, image by image in threads.

torch's resize of uint8 works in integers, as Pillow's does: it gives the same bytes whatever
instructions the CPU has, within a grey level or two of Pillow's. DALI's works in floats and
takes six times as long.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

MODES = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest-exact"}

Pixels = NDArray[np.uint8]


class Resizer:
    """Resizes batches in the background."""

    def __init__(self, size: int, interpolation: str, threads: int) -> None:
        """For ``[S, S]`` results, S being ``size``, in so many threads."""
        self._size, self._mode, self._threads = size, MODES[interpolation], threads
        self._pool = ThreadPoolExecutor(threads)

    def start(
        self, images: Sequence[Pixels], shapes: NDArray[np.int32], anchors: NDArray[np.int32]
    ) -> Callable[[], Tensor]:
        """Resize each image to its shape and cut S x S pixels out.

        Args:
            images: B times uint8 ``[h, w, 3]``, which stay as they are until the result is taken.
            shapes: ``[B, 2]`` height and width that each image is resized to.
            anchors: ``[B, 2]`` top and left of what is cut out of that; zeros where it reaches
                outside.

        Returns:
            What waits for the result: uint8 ``[B, S, S, 3]``.
        """
        batch = np.zeros((len(images), self._size, self._size, 3), np.uint8)

        def work(start: int) -> None:
            for i in range(start, len(images), self._threads):
                height, width = shapes[i].tolist()
                top, left = anchors[i].tolist()
                _put(_resized(images[i], (height, width), self._mode), top, left, batch[i])

        futures: list[Future[None]] = [self._pool.submit(work, i) for i in range(self._threads)]

        def wait() -> Tensor:
            for future in futures:
                future.result()
            return torch.from_numpy(batch)

        return wait

    def close(self) -> None:
        """Let the threads go; what was not begun is dropped."""
        self._pool.shutdown(cancel_futures=True)


def _resized(image: Pixels, shape: tuple[int, int], mode: str) -> Pixels:
    if image.shape[:2] == shape:
        return image
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]  # [1, 3, h, w] in the same memory
    antialias = mode != "nearest-exact"
    resized = interpolate(planes, shape, mode=mode, antialias=antialias)
    return resized[0].permute(1, 2, 0).numpy()


def _put(image: Pixels, top: int, left: int, window: Pixels) -> None:
    """Copy what of an image lies in the window, in numpy: torch would start more threads."""
    size = len(window)
    rows = slice(max(top, 0), min(top + size, image.shape[0]))
    columns = slice(max(left, 0), min(left + size, image.shape[1]))
    there = window[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    np.copyto(there, image[rows, columns])
