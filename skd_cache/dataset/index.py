"""What is known of the images of a folder, kept in the cache home and never stale silently.

An index is an HDF5 file with the columns of `table` and ``mtime`` int64 [N], the modification
time in ns of each file when it was read. Opening one looks at every file's size and time and
reads those again that differ; an interrupted index goes on where it was last saved.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from skd_cache.dataset.check import BadImage, reason_of
from skd_cache.dataset.header import read_header
from skd_cache.dataset.images import ImageSet, image_set
from skd_cache.dataset.listing import Listing, list_images
from skd_cache.dataset.table import (
    MappedFile,
    Table,
    check_offsets,
    mapping,
    read_classes,
    read_table,
    write_classes,
    write_table,
    writing,
)
from skd_cache.errors import InputError
from skd_cache.home import cache_home
from skd_cache.progress import track

FORMAT = "skd-cache index"
VERSION = 1  # also of what `read_header` makes of an image
UNREAD = -1
THREADS = 16
TASK = 64
SAVE_EVERY_SECONDS = 60.0
# A file written again within this time may keep its modification time (FAT's resolution).
CLOCK_NS = 2_000_000_000


@dataclass(frozen=True, eq=False)
class Rows:
    """The columns of a split, being filled; ``mtimes`` [N] is UNREAD where they are not yet."""

    table: Table
    mtimes: NDArray[np.int64]


def open_index(name: str, splits: Mapping[str, Path]) -> dict[str, ImageSet]:
    """The images of the folder of each split, indexed now where they were not before.

    Raises:
        InputError: the folders cannot be used, or files in them are not images.
    """
    file = index_file(name, splits)
    began = time.time_ns()
    listings = list_splits(splits)
    ended = time.time_ns()
    old = load_index(file)
    parts = {split: (listed, carry(listed, old.get(split))) for split, listed in listings.items()}
    unread = sum(int(np.sum(rows.mtimes == UNREAD)) for _, rows in parts.values())
    if unread or not _is_same(old, {split: rows for split, (_, rows) in parts.items()}):
        bad = read_parts(name, parts, unread, lambda: save_index(file, parts))
        for listed, rows in parts.values():
            recent = (listed.mtimes > began - CLOCK_NS) & (listed.mtimes <= ended)
            rows.mtimes[recent] = UNREAD
        save_index(file, parts)
        if bad:
            raise unreadable(name, bad)
    return map_index(file, name, splits)


def list_splits(splits: Mapping[str, Path]) -> dict[str, Listing]:
    """The images now under the folder of each split; the classes are those of ``train``."""
    train = list_images(splits["train"])
    return {
        split: train if split == "train" else list_images(folder, train.classes)
        for split, folder in splits.items()
    }


def index_file(name: str, splits: Mapping[str, Path]) -> Path:
    """Where the index of these folders lies."""
    folders = "\0".join(f"{split}\0{folder.absolute()}" for split, folder in splits.items())
    digest = hashlib.sha256(os.fsencode(f"{name}\0{folders}")).hexdigest()[:16]
    return cache_home() / "index" / f"{digest}.h5"


def unreadable(name: str, bad: list[BadImage]) -> InputError:
    """The error that names the first of the files that are no images."""
    more = f" and {len(bad) - 1:,} more cannot be read" if len(bad) > 1 else " cannot be read"
    return InputError(
        f"{bad[0].where}{more} ({bad[0].reason}): `skd-cache index {name} --check` lists all; "
        "repair or remove them"
    )


def load_index(file: Path) -> dict[str, Rows]:
    """The index as it was last saved; nothing if there is none or it cannot be used."""
    if not file.exists():
        return {}
    try:
        with mapping(file) as source:
            attributes = source.h5.attrs
            usable = attributes.get("format") == FORMAT and attributes.get("version") == VERSION
            return {split: _load_rows(source, split) for split in source.groups() if usable}
    except InputError:  # damaged, so it is made again
        return {}


def _load_rows(source: MappedFile, split: str) -> Rows:
    table = read_table(source, split)
    check_offsets(source, f"{split}/path_offset", table.path_offsets, len(table.paths))
    return Rows(table, source.column(f"{split}/mtime", np.int64, len(table)))


def carry(listed: Listing, old: Rows | None) -> Rows:
    """The rows of the listed files, with what the old index knew of those that are unchanged."""
    count = len(listed)
    table = Table(
        labels=listed.labels,
        heights=np.zeros(count, np.int32),
        widths=np.zeros(count, np.int32),
        lengths=np.zeros(count, np.int64),
        contents=np.zeros(count, np.uint64),
        fallback=np.zeros(count, np.bool_),
        paths=listed.paths,
        path_offsets=listed.path_offsets,
    )
    rows = Rows(table, np.full(count, UNREAD, np.int64))
    if old is None:
        return rows
    here, there = match_paths(table, old.table)
    same = listed.mtimes[here] == old.mtimes[there]
    same &= listed.sizes[here] == old.table.lengths[there]
    same &= old.mtimes[there] != UNREAD
    here, there = here[same], there[same]
    for column in ("heights", "widths", "lengths", "contents", "fallback"):
        getattr(table, column)[here] = getattr(old.table, column)[there]
    rows.mtimes[here] = old.mtimes[there]
    return rows


def match_paths(new: Table, old: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of ``new`` and of ``old`` that have the same path."""
    if np.array_equal(new.paths, old.paths):
        every = np.arange(len(new))
        return every, every
    row_of = {path: row for row, path in enumerate(_paths(old))}
    pairs = [(row, row_of[path]) for row, path in enumerate(_paths(new)) if path in row_of]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _paths(table: Table) -> list[bytes]:
    return table.paths.tobytes()[:-1].split(b"\0")


def _is_same(old: Mapping[str, Rows], new: Mapping[str, Rows]) -> bool:
    return old.keys() == new.keys() and all(
        np.array_equal(old[split].table.paths, rows.table.paths)
        and np.array_equal(old[split].table.labels, rows.table.labels)
        for split, rows in new.items()
    )


def read_parts(
    name: str,
    parts: Mapping[str, tuple[Listing, Rows]],
    unread: int,
    save: Callable[[], None],
) -> list[BadImage]:
    """Read every file that is not known yet; ``save`` is called now and then. The bad ones."""
    bad: list[BadImage] = []
    saved = time.monotonic()
    tasks = list(_tasks(parts))
    pool = ThreadPoolExecutor(THREADS)
    try:
        with track(unread, f"indexing {name}", "images") as bar:
            for samples, found in pool.map(read_rows, *zip(*tasks, strict=True)) if tasks else ():
                bad += found
                bar.advance(samples)
                if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                    save()
                    saved = time.monotonic()
    except BaseException:  # also Ctrl-C: the next start goes on from here
        pool.shutdown(wait=True, cancel_futures=True)
        save()
        raise
    pool.shutdown()
    return bad


def _tasks(
    parts: Mapping[str, tuple[Listing, Rows]],
) -> Iterator[tuple[Listing, Rows, NDArray[np.int64]]]:
    for listed, rows in parts.values():
        unread = np.flatnonzero(rows.mtimes == UNREAD)
        for start in range(0, len(unread), TASK):
            yield listed, rows, unread[start : start + TASK]


def read_rows(
    listed: Listing, rows: Rows, samples: NDArray[np.int64]
) -> tuple[int, list[BadImage]]:
    """Fill the rows of some samples from their files; how many there were, and the bad ones."""
    bad, table = [], rows.table
    for sample in samples.tolist():
        file = listed.file(sample)
        try:
            encoded = file.read_bytes()
            header = read_header(encoded)
        except Exception as error:  # PIL's readers raise nearly anything on damaged files
            bad.append(BadImage(str(file), reason_of(error)))
            continue
        table.heights[sample], table.widths[sample] = header.height, header.width
        table.lengths[sample] = len(encoded)
        table.contents[sample] = xxhash.xxh3_64_intdigest(encoded)
        table.fallback[sample] = header.fallback
        rows.mtimes[sample] = listed.mtimes[sample]  # last: it says that the row is whole
    return len(samples), bad


def save_index(file: Path, parts: Mapping[str, tuple[Listing, Rows]]) -> None:
    """Write the index; rows that are being filled meanwhile count as not read."""
    with writing(file) as h5:
        h5.attrs["format"], h5.attrs["version"] = FORMAT, VERSION
        write_classes(h5, next(iter(parts.values()))[0].classes)
        for split, (_, rows) in parts.items():
            mtimes = rows.mtimes.copy()  # before the columns: what it knows, they have
            group = h5.create_group(split)
            write_table(group, rows.table)
            group["mtime"] = mtimes


def map_index(file: Path, name: str, splits: Mapping[str, Path]) -> dict[str, ImageSet]:
    """The splits of a whole index, mapped."""
    with mapping(file) as source:
        classes = read_classes(source)
        return {
            split: image_set(
                read_table(source, split),
                name=f"{name}/{split}",
                classes=classes,
                file=file,
                root=folder.absolute(),
            )
            for split, folder in splits.items()
        }
