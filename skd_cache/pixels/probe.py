"""Probes: thumbnails that tell whether the pixels seen again are those the teacher saw."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.errors import DataError

SIDE = 8


def thumbnails(images: Tensor) -> Tensor:
    """The 8 x 8 block means of images: uint8 ``[B, H, W, 3]`` to uint8 ``[B, 8, 8, 3]``.

    Block k covers rows ``floor(k H / 8)`` up to ``floor((k + 1) H / 8)``, columns likewise; H
    and W are at least 8. The mean of n pixels with sum s is ``floor((2 s + n) / (2 n))``: half
    up, integers throughout, so equal on any device with any number of threads.
    """
    if images.device.type == "cpu":  # torch would wake its threads beside those that decode
        return torch.from_numpy(in_numpy(images.numpy()))
    return in_torch(images)


def in_torch(images: Tensor) -> Tensor:
    """:func:`thumbnails` on the images' device."""
    rows = torch.stack([block.sum(1, dtype=torch.int32) for block in _blocks(images, 1)], 1)
    sums = torch.stack([block.sum(2, dtype=torch.int32) for block in _blocks(rows, 2)], 2)
    heights, widths = _lengths(images.shape[1]), _lengths(images.shape[2])
    count = (heights[:, None] * widths[None, :])[..., None].to(images.device)  # [8, 8, 1]
    return ((2 * sums + count) // (2 * count)).to(torch.uint8)


def in_numpy(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """:func:`thumbnails` by one thread."""
    height, width = images.shape[1:3]
    tops, lefts = (np.arange(SIDE) * length // SIDE for length in (height, width))
    rows = np.add.reduceat(images, tops, axis=1, dtype=np.int32)  # [B, 8, W, 3]
    sums = np.add.reduceat(rows, lefts, axis=2)  # [B, 8, 8, 3]
    heights, widths = np.diff([*tops, height]), np.diff([*lefts, width])
    count = (heights[:, None] * widths[None, :])[..., None]  # [8, 8, 1]
    means: NDArray[np.uint8] = ((2 * sums + count) // (2 * count)).astype(np.uint8)
    return means


def tolerance(ours: tuple[str, str, int], built: tuple[str, str, int]) -> int:
    """How far thumbnails may differ, each pixel source being (backend, decoder, size).

    0 for the build's own backend and size decoded on the CPU, where pixels are the same bytes;
    2 otherwise.
    """
    return 0 if ours == built and ours[1] == "cpu" else 2


def compare(
    ours: NDArray[np.uint8], stored: NDArray[np.uint8], tolerance: int
) -> NDArray[np.int64]:
    """The rows at which thumbnails ``[P, 8, 8, 3]`` differ by more than the tolerance."""
    difference = np.abs(ours.astype(np.int16) - stored.astype(np.int16))
    return np.flatnonzero((difference > tolerance).any(axis=(1, 2, 3)))


def check(
    ours: NDArray[np.uint8],
    stored: NDArray[np.uint8],
    tolerance: int,
    *,
    view: int,
    samples: NDArray[np.int64],
    describe: Callable[[int], str],
) -> None:
    """Stop where the pixels are not those the teacher saw.

    Args:
        ours: uint8 ``[P, 8, 8, 3]`` thumbnails of what was made now.
        stored: likewise, of what the teacher saw.
        tolerance: grey levels that any of their pixels may differ.
        view: which augmented pass.
        samples: ``[P]`` their indices into the dataset.
        describe: says where a sample's image lies.

    Raises:
        DataError: with the first sample that differs, its view and both thumbnails.
    """
    wrong = compare(ours, stored, tolerance)
    if len(wrong) == 0:
        return
    first = int(wrong[0])
    sample = int(samples[first])
    worst = int(np.abs(ours[first].astype(np.int16) - stored[first].astype(np.int16)).max())
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    raise DataError(
        f"the pixels of sample {sample} in view {view} are not those the teacher saw: their "
        f"thumbnails differ by up to {worst} grey levels where {tolerance} are allowed{more}; "
        f"the image is {describe(sample)}: was it changed since the cache was built?\n"
        + _side_by_side(ours[first], stored[first])
    )


def _side_by_side(ours: NDArray[np.uint8], stored: NDArray[np.uint8]) -> str:
    """Both thumbnails as rows of hexadecimal RGB, so that a report can be pasted anywhere."""
    width = 7 * SIDE
    lines = [f"{'pixels now':{width}}  pixels the teacher saw"]
    for left, right in zip(ours, stored, strict=True):
        cells = [" ".join(bytes(pixel).hex() for pixel in row) for row in (left, right)]
        lines.append(f"{cells[0]:{width}}  {cells[1]}")
    return "\n".join(lines)


def _edges(length: int) -> list[int]:
    return [k * length // SIDE for k in range(SIDE + 1)]


def _lengths(length: int) -> Tensor:
    return torch.tensor(_edges(length), dtype=torch.int32).diff()


def _blocks(images: Tensor, axis: int) -> list[Tensor]:
    edges = _edges(images.shape[axis])
    return [images.narrow(axis, edges[k], edges[k + 1] - edges[k]) for k in range(SIDE)]
