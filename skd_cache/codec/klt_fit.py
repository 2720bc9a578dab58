"""Fits the klt codec's basis, and when its coefficients are worth their bits.

Shape legend: n rows, C classes, D dimensions the logits live in, R components.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from skd_cache.codec.codec import centre
from skd_cache.codec.klt import BLOCK, LARGEST_OFFSET, Klt, significant
from skd_cache.codec.klt_reconstruction import FRACTION_BITS
from skd_cache.codec.klt_settings import KltSettings
from skd_cache.errors import InputError

MIN_SAMPLES = 8192
"""Fewer rows do not show a thousand directions."""
MIN_CLASSES = 32
"""Of fewer classes int8 codes are as small."""
WHOLE_CLASSES = 4096
"""Up to so many classes the covariance is that of all of them."""
LONGEST_CODE = 40
ROUNDS = 4
DEAD_ZONE = 0.65

Doubles = NDArray[np.float64]


def fit_klt(
    chosen: KltSettings,
    batches: Iterable[NDArray[np.float32]],
    class_weight: NDArray[np.float32] | None = None,
) -> Klt:
    """The basis of these logits, batches ``[b, C]`` float32, read once.

    Each coefficient gets the thresholds at which squared error plus ``lagrange`` times the bits
    of its code is least, bits and gain being measured on the same rows (rate-distortion
    optimised quantisation with centroid reconstruction; Sullivan, "Efficient scalar quantization
    of exponential and Laplacian random variables", IEEE Trans. Inf. Theory 42, 1996).

    With many classes the basis lies in the range of ``class_weight`` ``[C, D]``, the teacher's
    last layer, or without one in that of the first rows.

    Raises:
        InputError: if the logits are too long for the step.
        NotFiniteError: naming the first row of a batch that holds a NaN or an infinity.
    """
    mean, coordinates, frame = _gather(batches, class_weight)
    classes = len(mean)
    if (length := float(np.linalg.norm(mean)) / chosen.step) > LARGEST_OFFSET - 1:
        least = float(np.linalg.norm(mean)) / (LARGEST_OFFSET - 1)
        raise InputError(
            f"the teacher's mean logits are {length:,.0f} steps long: use --codec "
            f"klt:step={math.ceil(least * 100) / 100:g} or more, or int8"
        )
    values, vectors = np.linalg.eigh(coordinates.T @ coordinates / len(coordinates))
    values, vectors = values[::-1], vectors[:, ::-1]
    most = min(classes - 1, len(values))
    kept = min(_blocks(int((values > chosen.step**2 / 12).sum())), most)
    coefficients = coordinates @ vectors[:, :kept] / chosen.step  # [n, R]
    fitted = [_fit_component(column, chosen.lagrange) for column in coefficients.T]
    gain, threshold = np.array([f[0] for f in fitted]), np.array([f[1:] for f in fitted])
    columns = vectors[:, :kept] * gain
    columns = columns if frame is None else frame @ columns
    basis = np.zeros((classes, _blocks(kept)), np.float32)
    basis[:, :kept] = significant(_on_grid(columns))
    thresholds = np.ones((basis.shape[1], 2), np.float32)
    thresholds[:kept] = threshold
    return Klt(chosen, basis, _on_grid(mean / chosen.step), thresholds)


def _gather(
    batches: Iterable[NDArray[np.float32]], class_weight: NDArray[np.float32] | None
) -> tuple[Doubles, Doubles, Doubles | None]:
    """Mean ``[C]``, rows minus mean in a frame ``[n, D]``, and the frame ``[C, D]`` (None: C)."""
    frame: Doubles | None = None
    total: Doubles | None = None
    pieces, count = [], 0
    for batch in batches:
        rows, _ = centre(batch)
        if total is None:
            total = np.zeros(rows.shape[1])
            frame = _frame(rows.shape[1], class_weight)
        total += rows.sum(axis=0)
        count += len(rows)
        pieces.append((rows if frame is None else rows @ frame).astype(np.float32))
    if total is None:
        raise InputError("there are no logits to fit a basis to")
    mean = total / count
    coordinates = np.concatenate(pieces).astype(np.float64)
    coordinates -= mean if frame is None else mean @ frame
    return mean, coordinates, frame


def _frame(classes: int, class_weight: NDArray[np.float32] | None) -> Doubles | None:
    """An orthonormal frame ``[C, D]`` of what a last layer can say, if it is worth having."""
    if class_weight is None or class_weight.shape[1] >= classes:
        return None
    weight = class_weight.astype(np.float64)
    weight -= weight.mean(axis=0)
    return np.linalg.qr(weight)[0]


def _fit_component(y: Doubles, lagrange: float) -> tuple[float, float, float]:
    """Gain, and thresholds in codes, of one coefficient ``[n]`` in steps."""
    size = np.abs(y)
    code, gain = np.floor(size + 1 - DEAD_ZONE), 1.0
    first, later = DEAD_ZONE, 0.0
    for _ in range(ROUNDS):
        if energy := float(np.square(code).sum()):
            gain = min(max(float((size * code).sum()) / energy, 0.5), 1.5)
        bits, counts = _bits(code)
        worth = lagrange / (2 * gain * gain)
        steps = np.diff(bits)
        first = 0.5 + worth * float(steps[0])
        often = counts[2:].sum() >= 5
        usual = np.average(steps[1:], weights=counts[2:]) if often else steps[1]
        later = min(worth * float(usual), 0.5)
        scaled = size / gain
        code = np.where(scaled < first, 0.0, np.maximum(np.floor(scaled + 0.5 - later), 1.0))
    return gain, first, later


def _bits(code: Doubles) -> tuple[Doubles, Doubles]:
    """What each magnitude costs, ``[L+1]`` bits with its sign, and how often it occurs."""
    counts = np.bincount(
        np.minimum(code, LONGEST_CODE).astype(np.int64), minlength=LONGEST_CODE + 1
    ).astype(np.float64)
    # Half a count less for each magnitude: what was not seen here is rarer, not impossible.
    seen = counts + 0.5 ** np.arange(LONGEST_CODE + 1)
    bits = -np.log2(seen / seen.sum())
    bits[1:] += 1
    return bits, counts


def _on_grid(values: Doubles) -> NDArray[np.float32]:
    return (np.rint(values * 2.0**FRACTION_BITS) / 2.0**FRACTION_BITS).astype(np.float32)


def _blocks(components: int) -> int:
    """The next multiple of a block, and at least one."""
    return max(-(-components // BLOCK), 1) * BLOCK
