"""What a codec is: how rows of logits become arrays in a cache, and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.errors import DataError

Rows = NDArray[np.float32]
Json = Mapping[str, Any]

BYTES: Json = {"name": "bytes", "configuration": {"endian": "little"}}
PCODEC: Json = {"name": "numcodecs.pcodec", "configuration": {}}
ZSTD: Json = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}


class NotFiniteError(DataError):
    """A teacher's logits hold something that is not a finite number; ``row`` says where."""

    def __init__(self, row: int, what: str) -> None:
        super().__init__(f"the teacher's logits in row {row} of the batch {what}")
        self.row = row
        self.what = what


@dataclass(frozen=True)
class ArraySpec:
    """How one array of codes lies in a view: its rows, and where the positions run.

    With ``axis`` 0 the array is ``[N, *row]``; with ``axis`` 1 it is ``[row[0], N]``, component
    by component. ``row_chunk`` cuts the row axes into inner chunks; ``None`` leaves them whole.
    ``codecs`` are Zarr's codecs for an inner chunk; crc32c follows them always.
    """

    dtype: str  # numpy and Zarr name: "int8"
    row: tuple[int, ...]
    axis: int = 0
    row_chunk: tuple[int, ...] | None = None
    codecs: tuple[Json, ...] = (BYTES,)


@dataclass(frozen=True)
class Encoded:
    """Rows of logits as a codec stores them."""

    norm: NDArray[np.float32]  # [B] L2 norm of the centred logits
    code: Mapping[str, NDArray[Any]]  # rows first, by the names in Codec.arrays


class Codec(Protocol):
    """Stores rows of logits and gives them back."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that determines a code, as it stands in a recipe: at least ``name``."""

    @property
    def classes(self) -> int:
        """C, the length of a row of logits."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """The arrays of a view that hold the codes, by name."""

    @property
    def side(self) -> Mapping[str, Rows]:
        """Arrays float32 that a cache keeps once and all codes depend on, by name."""

    def encode(self, logits: Rows) -> Encoded:
        """Norms and codes of logits ``[B, C]`` float32, row by row.

        Raises:
            NotFiniteError: naming the first row that holds a NaN or an infinity.
        """

    def decode(self, code: Mapping[str, Tensor], norm: Tensor) -> Tensor:
        """The logits ``[B, C]`` float32 of codes (rows first) and norms ``[B]``."""

    def settle(self) -> None:
        """Wait for checks of what was decoded so far.

        Raises:
            DataError: if one failed.
        """


def centre(logits: Rows) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Rows minus their mean, ``[B, C]`` float64, and the rows' L2 norms, ``[B]`` float32.

    The first entry is subtracted before the mean, so rows of equal numbers become exactly zero.

    Raises:
        NotFiniteError: naming the first row that holds a NaN, an infinity, or whose norm float32
            cannot hold.
    """
    _refuse(~np.isfinite(logits).all(axis=1), "hold a NaN or an infinity")
    rows = np.ascontiguousarray(logits).astype(np.float64)
    rows -= rows[:, :1].copy()
    rows -= rows.mean(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        norm = np.sqrt(np.square(rows).sum(axis=1)).astype(np.float32)
    _refuse(~np.isfinite(norm), "are too large for float32")
    return rows, norm


def _refuse(bad: Any, what: str) -> None:
    if bad.any():
        raise NotFiniteError(int(bad.argmax()), what)
