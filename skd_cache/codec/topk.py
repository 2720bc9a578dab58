"""What others store, for comparison: the K largest probabilities and their classes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.codec.codec import BYTES, ZSTD, ArraySpec, Encoded, Rows, centre
from skd_cache.codec.plain import Unfitted
from skd_cache.errors import DataError, InputError

CODE, INDEX = "code", "index"
FLOOR = 2.0**-25  # half of float16's smallest number: what a stored 0 may have been at most
_STEPS = 2**24  # every float16 up to 1 is a multiple of 1/_STEPS
_COUNT = re.compile(r"[1-9][0-9]{0,6}")


@dataclass(frozen=True)
class TopK(Unfitted):
    """Keeps the K largest softmax probabilities at temperature 1 as float16, and their classes.

    Ranked by logit, the lower class first of equal ones. When read, what the probabilities leave
    of 1 is spread evenly over the other C - K classes, and the logits are log-probabilities. The
    stored norm is not put back: another norm would be another temperature, and no longer the
    probabilities that were stored.

    float16 rounds, so: a stored probability counts as at least 2^-25, the rest as at least 2^-25
    in all, and no other class is above the smallest stored one. No logarithm is of zero.
    """

    classes: int
    k: int

    def __post_init__(self) -> None:
        if not 1 <= self.k < self.classes:
            raise InputError(
                f"topk:{self.k} does not fit {self.classes:,} classes: K must be 1 to "
                f"{self.classes - 1:,}"
            )

    @classmethod
    def parse(cls, argument: str, classes: int) -> "TopK":
        """The codec of the K in ``topk:K``.

        Raises:
            InputError: if that is no number from 1 to C - 1.
        """
        if not _COUNT.fullmatch(argument):
            raise InputError(
                f"topk needs how many classes to keep, such as topk:100, not {argument!r}"
            )
        return cls(classes, int(argument))

    @property
    def name(self) -> str:
        """``topk:K``."""
        return f"topk:{self.k}"

    @property
    def settings(self) -> dict[str, Any]:
        """As it stands in a recipe."""
        return {"name": "topk", "k": self.k}

    @property
    def index_dtype(self) -> str:
        """The narrowest type that holds every class."""
        return "int16" if self.classes <= 2**15 else "int32"

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """Probabilities, ``[N, K]`` float16, and classes, ``[N, K]`` int16 or int32.

        zstd takes a quarter off the classes of ImageNet logits (200 to 146 bytes at K = 100).
        """
        return {
            CODE: ArraySpec("float16", (self.k,)),
            INDEX: ArraySpec(self.index_dtype, (self.k,), codecs=(BYTES, ZSTD)),
        }

    def encode(self, logits: Rows) -> Encoded:
        """Probabilities and classes of logits ``[B, C]``, and the norms of the centred rows."""
        rows, norm = centre(logits)  # [B, C] float64
        chosen = rank(logits, self.k)  # [B, K]
        weights = np.exp(rows - rows.max(axis=1, keepdims=True))
        total = weights.sum(axis=1, keepdims=True)
        kept = np.take_along_axis(weights, chosen, axis=1) / total
        index = chosen.astype(self.index_dtype)
        return Encoded(norm, {CODE: kept.astype(np.float16), INDEX: index})

    def decode(self, code: Mapping[str, Tensor], norm: Tensor) -> Tensor:  # noqa: ARG002
        """Log-probabilities ``[B, C]`` float32, whatever the norms.

        Raises:
            DataError: if a stored number is no probability or no class.
        """
        kept = code[CODE].to(torch.float32)  # [B, K]
        index = code[INDEX].to(torch.int64)  # [B, K]
        fits = (kept >= 0) & (kept <= 1) & (index >= 0) & (index < self.classes)
        if not bool(fits.all()):  # a class out of range would end a GPU's process
            raise DataError("a topk code holds what is no probability or no class")
        # In integers every order of adding gives the same sum, so no batch differs from another.
        used = (kept * _STEPS).to(torch.int64).sum(dim=1, keepdim=True)  # [B, 1]
        rest = ((_STEPS - used).to(torch.float32) / _STEPS).clamp_min(FLOOR)
        kept = kept.clamp_min(FLOOR)
        other = torch.minimum(rest / (self.classes - self.k), kept.amin(dim=1, keepdim=True))
        rows = other.log().repeat(1, self.classes)  # [B, C]
        return rows.scatter_(1, index, kept.log())


def rank(logits: Rows, k: int) -> NDArray[np.int64]:
    """The classes ``[B, K]`` of the K largest of ``[B, C]``, largest first, lower first of equals.

    Whole rows are not sorted: all above the K-th value belong, then the lowest classes at it.
    """
    classes = logits.shape[1]
    last = np.partition(logits, classes - k, axis=1)[:, classes - k, None]  # [B, 1]
    above, level = logits > last, logits == last  # [B, C]
    room = k - above.sum(axis=1, keepdims=True)
    chosen = above | (level & (np.cumsum(level, axis=1) <= room))
    found = np.nonzero(chosen)[1].reshape(len(logits), k)  # ascending
    order = np.argsort(-np.take_along_axis(logits, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)
