"""All logits as float16, as they are, with what it takes to find the codec's own bits again.

The codec ``float16`` stores rows at length sqrt(C), so that no row over- or underflows; people
who open a file expect logits. Turning one into the other rounds, and back rounds again: one
code in eight would be off by a step. So each entry has a correction: how many float16 numbers lie
between the code and what the logit leads back to. It is -1, 0 or 1 nearly always, which gzip
makes 0.17 bytes of. A row too small for float16 is all in its corrections.

Both directions are single IEEE operations in float64, rounded once, so all machines agree.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skd_cache.codec import Codec
from skd_cache.codec.plain import Direction
from skd_cache.exchange.layout import Blocks, Column, OutOfRangeError

CODE, LOGITS, CORRECTION = "code", "logits", "correction"
_LARGEST = np.finfo(np.float16).max


@dataclass(frozen=True)
class Dense:
    """Centred logits ``[N, C]`` float16 and their corrections ``[N, C]`` int16."""

    classes: int
    to: str = "hdf5"

    @property
    def codec(self) -> Codec:
        """``float16``."""
        return Direction(self.classes, "float16")

    def columns(self, samples: int) -> dict[str, Column]:
        """Logits for everybody, corrections for `skd-cache import`."""
        shape = (samples, self.classes)
        return {LOGITS: Column("float16", shape), CORRECTION: Column("int16", shape, gzip=True)}

    def to_file(self, code: Blocks, norm: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Logits of rows ``[B, C]`` at length sqrt(C), and what is lost by writing them so.

        Raises:
            OutOfRangeError: if a logit is larger than float16 holds.
        """
        rows, scale = code[CODE], self._scale(norm)
        with np.errstate(over="ignore"):
            logits = (rows.astype(np.float64) * scale).astype(np.float16)
        large = ~np.isfinite(logits).all(axis=1)
        if large.any():
            raise OutOfRangeError(int(large.argmax()), f"a logit above {_LARGEST:,.0f}")
        correction = _place(rows) - _place(self._back(logits, scale))
        return {LOGITS: logits, CORRECTION: correction}

    def to_code(self, blocks: Blocks, norm: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The rows ``[B, C]`` at length sqrt(C) that `to_file` was given.

        Raises:
            ValueError: if one is no number.
        """
        near = _place(self._back(blocks[LOGITS], self._scale(norm)))
        code = _number(near + blocks[CORRECTION])
        if not np.isfinite(code).all():
            raise ValueError("its logits hold a NaN or an infinity")
        return {CODE: code}

    def _scale(self, norm: NDArray[np.float32]) -> NDArray[np.float64]:
        """What a code is multiplied by to become a logit, ``[B, 1]``; 1 where all are zero."""
        scale = norm.astype(np.float64) / np.sqrt(np.float64(self.classes))
        return np.where(scale > 0, scale, 1.0)[:, None]

    def _back(self, logits: NDArray[np.float16], scale: NDArray[np.float64]) -> NDArray[np.float16]:
        with np.errstate(over="ignore", invalid="ignore"):
            return (logits.astype(np.float64) / scale).astype(np.float16)


def _place(numbers: NDArray[np.float16]) -> NDArray[np.int16]:
    """Where float16 numbers stand among all of them, -0 below 0; int16, differences wrap."""
    bits = np.ascontiguousarray(numbers).view(np.int16)
    return bits ^ ((bits >> 15) & np.int16(0x7FFF))


def _number(places: NDArray[np.int16]) -> NDArray[np.float16]:
    """The float16 numbers at these places."""
    return (places ^ ((places >> 15) & np.int16(0x7FFF))).view(np.float16)
