"""The K largest probabilities and their classes, as others exchange them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skd_cache.codec import Codec
from skd_cache.codec.topk import TopK
from skd_cache.exchange.layout import Blocks, Column

CODE, PROBABILITY, INDEX = "code", "probability", "index"


@dataclass(frozen=True)
class Top:
    """Probabilities ``[N, K]`` float16, largest first, and classes ``[N, K]``."""

    classes: int
    k: int
    to: str = "topk"

    @property
    def codec(self) -> Codec:
        """``topk:K``."""
        return TopK(self.classes, self.k)

    def columns(self, samples: int) -> dict[str, Column]:
        """The codec's own two arrays."""
        arrays, shape = self.codec.arrays, (samples, self.k)
        return {
            PROBABILITY: Column(arrays[CODE].dtype, shape),
            INDEX: Column(arrays[INDEX].dtype, shape),
        }

    def to_file(self, code: Blocks, norm: NDArray[np.float32]) -> dict[str, NDArray[Any]]:  # noqa: ARG002
        """The codes as they are."""
        return {PROBABILITY: code[CODE], INDEX: code[INDEX]}

    def to_code(self, blocks: Blocks, norm: NDArray[np.float32]) -> dict[str, NDArray[Any]]:  # noqa: ARG002
        """The codes as they are.

        Raises:
            ValueError: if they are no K largest probabilities.
        """
        kept, index = blocks[PROBABILITY].astype(np.float64), blocks[INDEX]
        if not ((kept >= 0) & (kept <= 1)).all():
            raise ValueError("it holds what is no probability")
        # Each is rounded by at most 2^-11 of itself, or by 2^-25 where that is more.
        if (kept.sum(axis=1) > 1 + 2.0**-11 + self.k * 2.0**-25).any():
            raise ValueError("its probabilities add up to more than 1")
        if (np.diff(kept, axis=1) > 0).any():
            raise ValueError("its probabilities are not in descending order")
        if not ((index >= 0) & (index < self.classes)).all():
            raise ValueError(f"it names classes beyond {self.classes:,}")
        if (np.diff(np.sort(index, axis=1), axis=1) == 0).any():
            raise ValueError("it names a class twice in a row")
        return {CODE: blocks[PROBABILITY], INDEX: index}
