"""The columns of a split in an HDF5 file: written atomically, mapped back, checked.

Each column is one contiguous dataset of a group (``train``, ``val``), so that it can be mapped:

    label int32 [N]    height, width int32 [N]    length int64 [N]    content uint64 [N]
    fallback uint8 [N]    path uint8 [bytes]    path_offset int64 [N + 1]

``path`` holds the relative paths, UTF-8, each ended by a NUL byte; ``path_offset`` says where
each begins. The file's root has ``classes``, the class names in the same form.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from skd_cache.errors import InputError

Scalar = TypeVar("Scalar", bound=np.generic)

# Pillow refuses larger images as decompression bombs; JPEG cannot be wider.
MAX_PIXELS = 178_956_970
MAX_SIDE = 65_535
MAX_BYTES = 2**31 - 1
ALIGNMENT = 64


@dataclass(frozen=True, eq=False)
class Table:
    """What is known of every sample of a split, one array per column.

    ``heights`` and ``widths`` are pixels after EXIF orientation, ``lengths`` the bytes of the
    encoded image, ``contents`` their xxh3_64, ``fallback`` is true where only PIL decodes the
    image as PIL does. All are ``[N]``; ``paths`` and ``path_offsets`` as in the module.
    """

    labels: NDArray[np.int32]
    heights: NDArray[np.int32]
    widths: NDArray[np.int32]
    lengths: NDArray[np.int64]
    contents: NDArray[np.uint64]
    fallback: NDArray[np.bool_]
    paths: NDArray[np.uint8]
    path_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


def join_names(names: Sequence[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Names as one array of NUL-ended bytes, and the ``[N + 1]`` offsets where each begins."""
    blob = np.frombuffer(b"".join(name + b"\0" for name in names), np.uint8)
    offsets = np.zeros(len(names) + 1, np.int64)
    np.cumsum([len(name) + 1 for name in names], out=offsets[1:])
    return blob, offsets


@contextmanager
def writing(file: Path) -> Iterator[h5py.File]:
    """An HDF5 file that appears under its name only when it is whole and on the disk."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(
            temporary, "w", alignment_threshold=1, alignment_interval=ALIGNMENT, libver="v110"
        ) as h5:
            yield h5
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_classes(h5: h5py.File, classes: Sequence[str]) -> None:
    """Store the class names, in the order of the labels."""
    h5["classes"] = join_names([name.encode("utf-8", "surrogateescape") for name in classes])[0]


def write_table(group: h5py.Group, table: Table) -> None:
    """Store the columns of a split."""
    columns: Mapping[str, NDArray[Any]] = {
        "label": table.labels,
        "height": table.heights,
        "width": table.widths,
        "length": table.lengths,
        "content": table.contents,
        "fallback": table.fallback.astype(np.uint8),
        "path": table.paths,
        "path_offset": table.path_offsets,
    }
    for name, values in columns.items():
        group[name] = values


@dataclass(frozen=True)
class MappedFile:
    """An HDF5 file whose contiguous datasets are read through one memory map."""

    file: Path
    h5: h5py.File
    map: NDArray[np.uint8]

    def fail(self, what: str) -> InputError:
        """The error that says the file is not to be trusted, and why."""
        return InputError(f"{self.file} is not a valid dataset file: {what}; pack it again")

    def require(self, holds: bool | np.bool_, what: str) -> None:
        """Raise unless the file is as it must be."""
        if not holds:
            raise self.fail(what)

    def column(self, name: str, dtype: type[Scalar], length: int | None = None) -> NDArray[Scalar]:
        """The one-dimensional dataset ``name``, mapped. ``length`` is checked when given."""
        where = self.h5
        for part in name.split("/"):
            self.require(isinstance(where, h5py.Group), f"{name} is missing")
            # An external or soft link could lead to another file.
            hard = isinstance(where.get(part, getlink=True), h5py.HardLink)
            self.require(hard, f"{name} is missing")
            where = where[part]
        self.require(isinstance(where, h5py.Dataset), f"{name} is not an array")
        layout = where.id.get_create_plist().get_layout()
        good = layout == h5py.h5d.CONTIGUOUS and where.external is None and where.ndim == 1
        self.require(good, f"{name} is not one contiguous one-dimensional array")
        stored = np.dtype(dtype).newbyteorder("<")
        self.require(where.dtype == stored, f"{name} is {where.dtype}, not {stored}")
        self.require(length in (None, where.size), f"{name} has {where.size} rows, not {length}")
        if where.size == 0:
            return np.empty(0, dtype)
        start = where.id.get_offset()
        end = 0 if start is None else start + where.size * stored.itemsize
        self.require(start is not None and end <= len(self.map), f"{name} is cut off")
        values = self.map[start:end].view(stored)
        return (
            values if values.flags.aligned and stored == np.dtype(dtype) else values.astype(dtype)
        )

    def groups(self) -> list[str]:
        """The names of the splits in the file."""
        return [name for name in ("train", "val") if name in self.h5]


@contextmanager
def mapping(file: Path) -> Iterator[MappedFile]:
    """Open an HDF5 file for mapping; the arrays outlive the ``with``."""
    try:
        h5 = h5py.File(file, "r", locking=False)
    except FileNotFoundError:
        raise InputError(f"there is no file {file}") from None
    except OSError as error:
        raise InputError(f"{file} is not a readable HDF5 file: {error}") from error
    with h5:
        source = MappedFile(file, h5, np.asarray(np.memmap(file, np.uint8, "r")))
        try:
            yield source
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            # What h5py raises over damaged or unheard-of structures.
            raise source.fail(str(error)) from error


def read_classes(source: MappedFile) -> tuple[str, ...]:
    """The class names, in the order of the labels."""
    blob = source.column("classes", np.uint8).tobytes()
    source.require(blob.endswith(b"\0"), "classes does not end with a name")
    return tuple(name.decode("utf-8", "surrogateescape") for name in blob[:-1].split(b"\0"))


def read_table(source: MappedFile, split: str) -> Table:
    """The columns of a split, mapped; `check_table` says whether to trust the values."""
    labels = source.column(f"{split}/label", np.int32)
    count = len(labels)
    return Table(
        labels=labels,
        heights=source.column(f"{split}/height", np.int32, count),
        widths=source.column(f"{split}/width", np.int32, count),
        lengths=source.column(f"{split}/length", np.int64, count),
        contents=source.column(f"{split}/content", np.uint64, count),
        fallback=source.column(f"{split}/fallback", np.uint8, count).view(np.bool_),
        paths=source.column(f"{split}/path", np.uint8),
        path_offsets=source.column(f"{split}/path_offset", np.int64, count + 1),
    )


def check_table(source: MappedFile, split: str, table: Table, classes: int) -> None:
    """Raise unless there are samples and every value is within its bounds."""
    source.require(len(table) > 0, f"{split} is empty")

    def within(values: NDArray[Any], low: int, high: int, what: str) -> None:
        inside = int(values.min()) >= low and int(values.max()) <= high
        source.require(inside, f"{split}/{what} leaves {low} to {high}")

    within(table.labels, 0, classes - 1, "label")
    within(table.heights, 1, MAX_SIDE, "height")
    within(table.widths, 1, MAX_SIDE, "width")
    pixels = int((table.heights.astype(np.int64) * table.widths).max())
    source.require(pixels <= MAX_PIXELS, f"{split} has an image of {pixels:,} pixels")
    within(table.lengths, 1, MAX_BYTES, "length")
    within(table.fallback.view(np.uint8), 0, 1, "fallback")
    check_offsets(source, f"{split}/path_offset", table.path_offsets, len(table.paths))
    ended = bool(np.all(table.paths[table.path_offsets[1:] - 1] == 0))
    once = int(np.count_nonzero(table.paths == 0)) == len(table)
    source.require(ended and once, f"{split}/path does not hold one name per sample")


def check_offsets(source: MappedFile, what: str, offsets: NDArray[np.int64], size: int) -> None:
    """Raise unless ``offsets`` ``[N + 1]`` cut ``size`` bytes into N pieces, none empty."""
    ends = int(offsets[0]) == 0 and int(offsets[-1]) == size
    # Compared, not subtracted: a difference of hostile int64 could overflow.
    source.require(ends and bool(np.all(offsets[1:] > offsets[:-1])), f"{what} is not increasing")
