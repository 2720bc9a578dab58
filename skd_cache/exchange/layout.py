"""What lies where in an exported file, as docs/exchange.md tells it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from skd_cache.codec import Codec
from skd_cache.store import Recipe
from skd_cache.store.commit import Name, Sha256, StatisticsRecord
from skd_cache.store.document import Document
from skd_cache.store.layout import THUMBNAIL
from skd_cache.store.recipe import PROBE_EVERY

FORMAT = "skd-cache logits"
VERSION = 1
RECORD_BYTES = 2048
GZIP_LEVEL = 4
BLOCK_BYTES = 2**18

Blocks = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Column:
    """One array of a file."""

    dtype: str  # numpy's name, little-endian
    shape: tuple[int, ...]
    gzip: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, before compression."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape[1:], dtype=np.int64))

    @property
    def block(self) -> tuple[int, ...]:
        """The chunk it is written in: whole rows, about 256 KiB, so that one is quickly read."""
        rows = max(1, BLOCK_BYTES // max(self.row_bytes, 1))
        return (min(rows, self.shape[0]), *self.shape[1:])


class Form(Protocol):
    """How logits stand in a file, and the codec that holds exactly that in a cache."""

    @property
    def to(self) -> str:
        """What ``--to`` calls it."""

    @property
    def codec(self) -> Codec:
        """The codec of a cache made from such a file."""

    def columns(self, samples: int) -> dict[str, Column]:
        """The arrays of a view that hold the logits."""

    def to_file(self, code: Blocks, norm: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """What stands in the file for these codes (rows first) and norms ``[B]``.

        Raises:
            OutOfRangeError: if the file cannot hold a row.
        """

    def to_code(self, blocks: Blocks, norm: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The codes, bit for bit, of what stands in a file that nobody vouches for.

        Raises:
            ValueError: if no codec would have made them.
        """


class OutOfRangeError(Exception):
    """A row does not fit the file; ``row`` says which."""

    def __init__(self, row: int, what: str) -> None:
        super().__init__(what)
        self.row = row


class UnitRecord(Document):
    """What a file tells of one unit beside its rows."""

    params: Sha256  # of the commit
    statistics: StatisticsRecord  # of the commit
    arrays: dict[Name, Sha256] = Field(max_length=16)  # over norm, the codes and probe, as bytes


def view_columns(recipe: Recipe, form: Form) -> dict[str, Column]:
    """The arrays of a view, by name."""
    count = recipe.dataset.samples
    return {
        "sample": Column("int32", (count,)),
        "norm": Column("float32", (count,)),
        **form.columns(count),
        "probe": Column("uint8", (-(-count // PROBE_EVERY), *THUMBNAIL)),
        "unit": Column(f"S{RECORD_BYTES}", (recipe.shards,)),
    }


def side_columns(recipe: Recipe, features: int | None) -> dict[str, Column]:
    """The arrays beside the views; ``features`` is D of the teacher's last layer, if it has one."""
    count = recipe.dataset.samples
    columns = {"label": Column("int32", (count,)), "content": Column("uint64", (count,))}
    if features is not None:
        columns["class_weight"] = Column("float32", (recipe.dataset.classes, features))
    return columns


def view_name(view: int) -> str:
    """The group of a view."""
    return f"view/{view:05d}"


def probe_rows(start: int, stop: int) -> slice:
    """The rows of ``probe`` that belong to positions ``[start, stop)``."""
    return slice(-(-start // PROBE_EVERY), -(-stop // PROBE_EVERY))
