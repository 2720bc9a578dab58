"""One stored shard of an array: its inner chunks, decoded straight to where they belong.

zarr-python reads the same bytes (a test compares them), at a tenth of the speed: a position chunk
of klt has twenty inner chunks, and each costs it more than decoding does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray
from pcodec import standalone

from skd_cache.codec.codec import BYTES, PCODEC, ZSTD
from skd_cache.store.layout import Grid

CRC_BYTES = 4
Fetch = Callable[[Sequence[int], Sequence[int]], Sequence[bytes | memoryview]]
"""The bytes of an object between starts and ends."""


@dataclass(frozen=True)
class StoredShard:
    """Inner chunks of one object; everything that is wrong with them is a ``ValueError``."""

    grid: Grid
    index: NDArray[np.uint64]  # [blocks of rows, chunks of positions, 2]: offset, length
    fetch: Fetch
    room: int  # bytes of the object before the index

    @classmethod
    def open(cls, grid: Grid, size: int, fetch: Fetch) -> "StoredShard":
        """Read the index of an object of so many bytes."""
        blocks, chunks = _counts(grid)
        length = blocks * chunks * 16
        room = size - length - CRC_BYTES
        if room < 0:
            raise ValueError(f"{size} bytes are too few for its index")
        index = np.frombuffer(_checked(fetch([room], [size])[0]), "<u8")
        if len(index) != blocks * chunks * 2:
            raise ValueError("its index has another length")
        return cls(grid, index.reshape(blocks, chunks, 2), fetch, room)

    def chunk(self, number: int) -> NDArray[Any]:
        """All of a position chunk as it lies: ``[chunk, *row]``, or ``[rows, chunk]`` on axis 1."""
        places = [(int(offset), int(length)) for offset, length in self.index[:, number]]
        if any(offset + length > self.room or length < CRC_BYTES for offset, length in places):
            raise ValueError(f"chunk {number} is not there")
        starts, ends = zip(*((start, start + length) for start, length in places), strict=True)
        shape = list(self.grid.shard)
        shape[self.grid.axis] = _chunk(self.grid)[self.grid.axis]
        found = np.empty(shape, self.grid.dtype)
        into = found.reshape(len(places), -1)  # blocks follow each other in memory
        for data, row in zip(self.fetch(starts, ends), into, strict=True):
            _decode(self.grid, _checked(data), row)
        return found


def _chunk(grid: Grid) -> tuple[int, ...]:
    if grid.chunk is None:
        raise ValueError(f"{grid.name} has no shards")
    return grid.chunk


def _counts(grid: Grid) -> tuple[int, int]:
    """Blocks of rows and chunks of positions in a shard."""
    counts = [whole // part for whole, part in zip(grid.shard, _chunk(grid), strict=True)]
    positions = counts.pop(grid.axis)
    if any(count > 1 for count in counts[1:]) or (grid.axis == 0 and math.prod(counts) > 1):
        raise ValueError(f"{grid.name} is cut along an inner axis")
    return math.prod(counts), positions


def _checked(data: bytes | memoryview) -> memoryview:
    """What stands before a crc32c that fits it."""
    whole = memoryview(data)
    body, check = whole[:-CRC_BYTES], whole[-CRC_BYTES:]
    if google_crc32c.value(bytes(body)) != int.from_bytes(check, "little"):
        raise ValueError("a crc32c differs")
    return body


def _decode(grid: Grid, data: memoryview, into: NDArray[Any]) -> None:
    """Fill ``into``, one dimension, with what an inner chunk holds."""
    if grid.codecs == (BYTES,):
        into[:] = np.frombuffer(data, into.dtype)
    elif grid.codecs == (BYTES, ZSTD):
        into[:] = 0  # zstd does not say when it holds less
        zstd.decompress(data, into.view(np.uint8))
    elif grid.codecs == (PCODEC,):
        if standalone.simple_decompress_into(bytes(data), into).n_processed != len(into):
            raise ValueError("it holds too few numbers")
    else:
        raise ValueError(f"{grid.name} has codecs nobody wrote")
