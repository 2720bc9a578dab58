"""A whole dataset in one ``.h5``: encoded images end to end, read through a memory map.

Beside the columns of `table`, each split has ``data`` uint8 [bytes], the encoded images end to
end, and ``offset`` int64 [N + 1], where each begins. The root's attributes are ``format``
("skd-cache packed dataset"), ``version`` (1), ``kind`` (the format whose defaults apply) and
perhaps ``notice`` (the images' licence).
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import xxhash
from numpy.typing import NDArray

from skd_cache.dataset.dataset import Dataset
from skd_cache.dataset.images import ImageSet, image_set
from skd_cache.dataset.table import (
    MappedFile,
    Table,
    check_offsets,
    check_table,
    mapping,
    read_classes,
    read_table,
    write_classes,
    write_table,
    writing,
)
from skd_cache.errors import DataError, InputError
from skd_cache.progress import track

FORMAT = "skd-cache packed dataset"
VERSION = 1
BUFFER = 16 << 20
READ_THREADS = 8
READ_AHEAD = 256


@dataclass(frozen=True)
class Packed:
    """What a packed file holds."""

    kind: str
    splits: Mapping[str, ImageSet]


def open_packed(file: Path, name: str | None = None) -> Packed:
    """Map a packed file after checking that nothing in it points outside or out of bounds.

    ``name`` is what the splits are called by (the file's name if None).

    Raises:
        InputError: it is no packed dataset, or a damaged one; says what is wrong.
    """
    with mapping(file) as source:
        attributes = source.h5.attrs
        source.require(_text(attributes, "format") == FORMAT, "it was not made by skd-cache pack")
        version = attributes.get("version")
        source.require(
            isinstance(version, np.integer) and int(version) == VERSION,
            f"its version is {version!r}, this reads {VERSION}",
        )
        classes = read_classes(source)
        splits = {
            split: _open_split(source, split, classes, name or file.name)
            for split in source.groups()
        }
        source.require("train" in splits, "it has no train split")
        return Packed(_text(attributes, "kind"), splits)


def _text(attributes: h5py.AttributeManager, name: str) -> str:
    value = attributes.get(name, "")
    return value if isinstance(value, str) else ""


def _open_split(source: MappedFile, split: str, classes: tuple[str, ...], name: str) -> ImageSet:
    table = read_table(source, split)
    check_table(source, split, table, len(classes))
    data = source.column(f"{split}/data", np.uint8)
    offsets = source.column(f"{split}/offset", np.int64, len(table) + 1)
    check_offsets(source, f"{split}/offset", offsets, len(data))
    same = np.array_equal(np.diff(offsets), table.lengths)
    source.require(same, f"{split}/length does not agree with {split}/offset")
    return image_set(
        table,
        name=f"{name}/{split}",
        classes=classes,
        file=source.file,
        data=data,
        offsets=offsets,
    )


def pack(dataset: Dataset, out: Path) -> None:
    """Copy a dataset into one packed file, whose fingerprints are those of the original.

    Raises:
        InputError: ``out`` exists, cannot be written or does not fit on the disk.
        DataError: an image is no longer what was indexed.
    """
    splits = dataset.splits
    write_packed(
        out,
        kind=dataset.kind,
        classes=dataset.train.classes,
        splits={split: (images, read_all(images)) for split, images in splits.items()},
    )


def read_all(images: ImageSet) -> Iterator[NDArray[np.uint8]]:
    """The encoded images in order, read ahead by threads, each checked against its content."""
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for start in range(0, len(images), READ_AHEAD):
            samples = range(start, min(start + READ_AHEAD, len(images)))
            for sample, encoded in zip(samples, pool.map(images.read, samples), strict=True):
                if xxhash.xxh3_64_intdigest(encoded.data) != images.contents[sample]:
                    raise DataError(
                        f"{images.describe(sample)} is not what was indexed: run the command again"
                    )
                yield encoded


def write_packed(
    out: Path,
    *,
    kind: str,
    classes: tuple[str, ...],
    splits: Mapping[str, tuple[Table, Iterable[NDArray[np.uint8]]]],
    notice: str = "",
) -> None:
    """Write a packed file from the columns and the encoded images of each split, atomically.

    Raises:
        InputError: ``out`` exists, cannot be written or does not fit on the disk.
    """
    if out.exists():
        raise InputError(f"{out} exists already: remove it or choose another name")
    need = sum(int(table.lengths.sum()) + 64 * len(table) for table, _ in splits.values())
    check_free_disk(out, need)
    count = sum(len(table) for table, _ in splits.values())
    with writing(out) as h5, track(count, f"packing {out.name}", "images") as bar:
        h5.attrs["format"], h5.attrs["version"], h5.attrs["kind"] = FORMAT, VERSION, kind
        if notice:
            h5.attrs["notice"] = notice
        write_classes(h5, classes)
        for split, (table, images) in splits.items():
            group = h5.create_group(split)
            write_table(group, table)
            group["offset"] = np.concatenate([[0], np.cumsum(table.lengths)]).astype(np.int64)
            data = group.create_dataset("data", (int(table.lengths.sum()),), np.uint8)
            end = 0
            for piece, advanced in buffered(images):
                data[end : end + len(piece)] = piece
                end += len(piece)
                bar.advance(advanced)


def buffered(images: Iterable[NDArray[np.uint8]]) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """Images joined into pieces of about 16 MiB, each with the count of images in it."""
    waiting: list[NDArray[np.uint8]] = []
    size = 0
    for encoded in images:
        waiting.append(encoded)
        size += len(encoded)
        if size >= BUFFER:
            yield np.concatenate(waiting), len(waiting)
            waiting, size = [], 0
    if waiting:
        yield np.concatenate(waiting), len(waiting)


def check_free_disk(out: Path, need: int) -> None:
    """Raise unless ``need`` bytes fit where ``out`` is to lie."""
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < need:
        raise InputError(
            f"{out} needs {need / 1e9:.1f} GB but {folder} has {free / 1e9:.1f} GB free"
        )
