"""Arrays of an HDF5 file that nobody vouches for: nothing outside it, nothing larger than it.

HDF5 lets a file point at other files, claim any shape, and compress a terabyte of zeros into a
megabyte. So an array is read only if it is reached by hard links, stored in this file, of the
very shape and type it should have, and plain, its bytes all there. Only where we compress
ourselves is gzip accepted, and undone here, chunk by chunk, up to the size a chunk should have.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from skd_cache.errors import DataError
from skd_cache.exchange.layout import Column

# What h5py and zlib raise over damaged structures, and numpy over sizes that cannot be.
_STUMBLES = (
    *(OSError, RuntimeError, LookupError, TypeError, ValueError),
    *(ArithmeticError, MemoryError, zlib.error),
)
_PLAIN = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)


@contextmanager
def explained(file: Path) -> Iterator[None]:
    """Say that a file is damaged where h5py, zlib or a check of values stumbles."""
    try:
        yield
    except _STUMBLES as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"{file} is damaged: {reason}: get it again") from error


def require(holds: bool | np.bool_, what: str) -> None:
    """Raise ValueError unless the file is as it must be."""
    if not holds:
        raise ValueError(what)


def find(h5: h5py.File, name: str) -> h5py.Group | h5py.Dataset:
    """What lies under a name of the file itself.

    Raises:
        ValueError: if nothing does, or a link leads elsewhere.
    """
    where: Any = h5
    for part in name.split("/"):
        require(isinstance(where, h5py.Group) and part in where, f"it has no {name}")
        hard = isinstance(where.get(part, getlink=True), h5py.HardLink)
        require(hard, f"{name} is a link to another place")
        where = where[part]
    return where


def number_attribute(h5: h5py.File, name: str) -> int:
    """An attribute that is one integer.

    Raises:
        ValueError: if there is none, or none such.
    """
    require(name in h5.attrs, f"it has no attribute {name}")
    attribute = h5.attrs.get_id(name)
    good = attribute.shape == () and attribute.dtype.kind in "iu"
    require(good, f"its attribute {name} is no integer")
    return int(h5.attrs[name])


def text_attribute(h5: h5py.File, name: str, limit: int) -> bytes:
    """The bytes of an attribute of fixed length.

    Raises:
        ValueError: if there is none, or none such, or it is longer than ``limit``.
    """
    require(name in h5.attrs, f"it has no attribute {name}")
    attribute = h5.attrs.get_id(name)
    good = attribute.shape == () and _is_text(attribute.dtype, limit)
    require(good, f"its attribute {name} is no text of at most {limit:,} bytes")
    return bytes(h5.attrs[name])


def text(h5: h5py.File, name: str, limit: int) -> bytes:
    """The bytes of a scalar text.

    Raises:
        ValueError: if there is none, or none such, or it is longer than ``limit``.
    """
    data = _dataset(h5, name)
    good = data.shape == () and _is_text(data.dtype, limit) and not data.chunks
    require(good, f"{name} is no text of at most {limit:,} bytes")
    return bytes(data[()])


def _is_text(dtype: np.dtype[Any], limit: int) -> bool:
    return dtype.kind == "S" and dtype.itemsize <= limit


@dataclass(frozen=True)
class Stored:
    """An array of a file, checked before any of it is read."""

    name: str
    data: h5py.Dataset
    column: Column

    @classmethod
    def open(cls, h5: h5py.File, name: str, column: Column) -> "Stored":
        """The array under a name, as long as it is exactly what it should be.

        Raises:
            ValueError: if it is not; says how.
        """
        data = _dataset(h5, name)
        found, wanted = f"{data.dtype} {data.shape}", f"{column.dtype} {column.shape}"
        good = data.shape == column.shape and data.dtype == np.dtype(column.dtype)
        require(good, f"{name} is {found}; the recipe says {wanted}")
        _require_storage(name, data, column)
        return cls(name, data, column)

    @property
    def stored_bytes(self) -> int:
        """Bytes it takes in the file."""
        return int(self.data.id.get_storage_size())

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """The rows ``[start, stop)``."""
        if not self.data.compression:
            return np.asarray(self.data[start:stop])
        each = self.data.chunks[0]
        out = np.empty((stop - start, *self.column.shape[1:]), self.column.dtype)
        for first in range(start - start % each, stop, each):
            chunk = self._chunk(first)
            low, high = max(start, first), min(stop, first + each)
            out[low - start : high - start] = chunk[low - first : high - first]
        return out

    def _chunk(self, first: int) -> NDArray[Any]:
        """A compressed chunk, decompressed up to the size it should have and not further."""
        size = self.data.chunks[0] * self.column.row_bytes
        place = (first, *(0 for _ in self.column.shape[1:]))
        stored = self.data.id.get_chunk_info_by_coord(place).size
        require(stored <= 2 * size + 1024, f"{self.name} has a chunk larger than it can be")
        mask, packed = self.data.id.read_direct_chunk(place)
        if mask == 0:
            packed = zlib.decompressobj().decompress(packed, size + 1)
        require(len(packed) == size, f"a chunk of {self.name} has not the size it should have")
        return np.frombuffer(packed, self.column.dtype).reshape(-1, *self.column.shape[1:])


def _dataset(h5: h5py.File, name: str) -> h5py.Dataset:
    data = find(h5, name)
    require(isinstance(data, h5py.Dataset), f"{name} is not an array")
    layout = data.id.get_create_plist().get_layout()
    inside = not data.is_virtual and data.external is None and layout in _PLAIN
    require(inside, f"{name} is stored in another file")
    return data


def _require_storage(name: str, data: h5py.Dataset, column: Column) -> None:
    """Refuse filters other than ours, and arrays that are larger than what is there of them."""
    properties = data.id.get_create_plist()
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    if not filters:
        whole = column.shape[0] * column.row_bytes
        require(data.id.get_storage_size() >= whole, f"{name} is cut off")
        return
    ours = column.gzip and filters == [h5py.h5z.FILTER_DEFLATE]
    require(ours, f"{name} is compressed or filtered in a way that export never uses")
    rows, *row = data.chunks
    cut = tuple(row) == column.shape[1:] and rows <= column.block[0]
    require(cut, f"{name} is cut into chunks that export never makes")
