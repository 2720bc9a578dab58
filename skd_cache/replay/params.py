"""What happens to sample i in view v: crop boxes and flips, integers in source pixels."""

import decimal
import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from skd_cache.replay.policy import Policy
from skd_cache.seed import below, draw, unit

CROP_PURPOSE = 1
FLIP_PURPOSE = 2
TRIES = 10
RATIO_STEPS = 4096

Sizes = NDArray[np.int32]


@dataclass(frozen=True)
class Params:
    """What happens to a batch of images.

    Attributes:
        box: ``[B, 4]`` int32: top, left, height, width in source pixels after EXIF orientation;
            a ``pad`` policy's boxes may reach outside the image, where there are zeros.
        flip: ``[B]`` bool: whether the resized box is mirrored left to right.
    """

    box: NDArray[np.int32]
    flip: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.flip)


def digest(params: Params) -> str:
    """The sha256 of the parameters: five little-endian int32 per image, box then flip."""
    rows = np.column_stack([params.box, params.flip]).astype("<i4")
    return hashlib.sha256(rows.tobytes()).hexdigest()


def draw_params(
    policy: Policy,
    seed: int,
    view: int,
    samples: NDArray[np.int64],
    heights: Sizes,
    widths: Sizes,
) -> Params:
    """Draw what happens to these samples in a view.

    Args:
        policy: what may happen.
        seed: the cache's 64-bit seed.
        view: which augmented pass.
        samples: ``[B]`` indices into the dataset.
        heights: ``[B]`` source pixels after EXIF orientation.
        widths: ``[B]`` likewise.
    """
    height, width = heights.astype(np.int64), widths.astype(np.int64)
    if policy.crop == "rrc":
        box = _random_resized(policy, seed, view, samples, height, width)
    else:
        box = _centred_square(height, width)
        if policy.crop == "pad":
            words = draw(seed, samples, view, CROP_PURPOSE, 0)
            box[:, :2] += below(words[:2], 2 * policy.padding + 1).T - policy.padding
    flip = np.zeros(len(samples), np.bool_)
    if policy.flip:
        flip = draw(seed, samples, view, FLIP_PURPOSE, 0)[0] >> 31 == 1
    return Params(box.astype(np.int32), flip)


def _centred_square(height: NDArray[np.int64], width: NDArray[np.int64]) -> NDArray[np.int64]:
    side = np.minimum(height, width)
    return np.column_stack([(height - side) // 2, (width - side) // 2, side, side])


def _random_resized(
    policy: Policy,
    seed: int,
    view: int,
    samples: NDArray[np.int64],
    height: NDArray[np.int64],
    width: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Boxes ``[B, 4]`` as torchvision's RandomResizedCrop draws them, all tries at once.

    The first try that fits wins; where none does, the largest centred box whose aspect ratio
    lies in the policy's range.
    """
    ratios = _ratio_table(*policy.ratio)
    smallest, largest = policy.scale
    box = _fallback(policy, height, width)
    open_ = np.arange(len(samples))  # samples that no try has fitted yet
    for index in range(TRIES):
        words = draw(seed, samples[open_], view, CROP_PURPOSE, index)
        h, w = height[open_], width[open_]
        area = (h * w) * (smallest + (largest - smallest) * unit(words[0]))
        ratio = ratios[below(words[1], RATIO_STEPS)]
        box_w = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        box_h = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits = (box_w > 0) & (box_h > 0) & (box_w <= w) & (box_h <= h)
        top = below(words[2], np.maximum(h - box_h + 1, 1))
        left = below(words[3], np.maximum(w - box_w + 1, 1))
        drawn = np.column_stack([top, left, box_h, box_w])
        box[open_[fits]] = drawn[fits]
        open_ = open_[~fits]
    return box


def _fallback(
    policy: Policy, height: NDArray[np.int64], width: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Boxes ``[B, 4]``: centred, whole where the aspect ratio allows, cut to its range else."""
    narrowest, widest = policy.ratio
    aspect = width / height
    box_h = np.where(aspect < narrowest, np.rint(width / narrowest), height).astype(np.int64)
    box_w = np.where(aspect > widest, np.rint(height * widest), width).astype(np.int64)
    box_h, box_w = np.clip(box_h, 1, height), np.clip(box_w, 1, width)
    return np.column_stack([(height - box_h) // 2, (width - box_w) // 2, box_h, box_w])


@lru_cache(maxsize=8)
def _ratio_table(narrowest: float, widest: float) -> NDArray[np.float64]:
    """Log-uniform aspect ratios: the midpoints of 4,096 equal steps of the logarithm.

    Computed with ``decimal``, whose ``ln`` and ``exp`` are correctly rounded: numpy's change in
    the last bit between builds, and a box must not.
    """
    with decimal.localcontext() as context:
        context.prec = 40
        low = decimal.Decimal(narrowest).ln()
        step = (decimal.Decimal(widest).ln() - low) / RATIO_STEPS
        half = decimal.Decimal("0.5")
        return np.array([float((low + step * (k + half)).exp()) for k in range(RATIO_STEPS)])
