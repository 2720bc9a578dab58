"""Which images lie in a folder of class folders right now."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skd_cache.dataset.table import join_names
from skd_cache.errors import InputError

SUFFIXES = (
    b".jpg",
    b".jpeg",
    b".png",
    b".ppm",
    b".bmp",
    b".pgm",
    b".tif",
    b".tiff",
    b".webp",
    b".gif",
)
THREADS = 16
GONE = -1


@dataclass(frozen=True, eq=False)
class Listing:
    """The images under ``folder`` in the dataset's order: by class, then path, byte-wise.

    ``labels`` int32, ``sizes`` (bytes) and ``mtimes`` (ns) int64, all ``[N]``; ``paths`` and
    ``path_offsets`` are relative to ``folder``, as in `table`.
    """

    folder: Path
    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    sizes: NDArray[np.int64]
    mtimes: NDArray[np.int64]
    paths: NDArray[np.uint8]
    path_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def file(self, sample: int) -> Path:
        """The file of a sample."""
        begin, end = self.path_offsets[sample], self.path_offsets[sample + 1]
        return self.folder / os.fsdecode(self.paths[begin : end - 1].tobytes())


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in ``folder`` that are not hidden, sorted byte-wise."""
    with os.scandir(folder) as entries:
        found = [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    return sorted(found, key=os.fsencode)


def images_directly_in(folder: Path) -> int:
    """How many images lie in ``folder`` itself."""
    with os.scandir(folder) as entries:
        return sum(_is_image(os.fsencode(entry.name)) for entry in entries if entry.is_file())


def list_images(folder: Path, classes: tuple[str, ...] | None = None) -> Listing:
    """List the images of every class folder and look at their sizes and times.

    ``classes`` are those of the training split; without it every subfolder is one. Hidden files
    and files without an image's suffix are passed over.

    Raises:
        InputError: a class without an image, or a folder that is no class.
    """
    present = subfolders(folder)
    if classes is None:
        classes = tuple(present)
    strange = sorted(set(present) - set(classes))
    if strange:
        raise InputError(
            f"{folder} has the class folder {strange[0]!r}, which the training images have not"
        )
    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(lambda name: _list_class(folder, name), present))
    empty = [name for name, part in zip(present, parts, strict=True) if not len(part.sizes)]
    if empty:
        raise InputError(
            f"{folder / empty[0]} holds no image ({_readable(SUFFIXES)}): fill or remove the folder"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    labels = [
        np.full(len(part.sizes), label_of[name], np.int32)
        for name, part in zip(present, parts, strict=True)
    ]
    lengths = np.concatenate([np.zeros(1, np.int64), *(part.path_lengths for part in parts)])
    return Listing(
        folder=folder,
        classes=classes,
        labels=np.concatenate(labels),
        sizes=np.concatenate([part.sizes for part in parts]),
        mtimes=np.concatenate([part.mtimes for part in parts]),
        paths=np.concatenate([part.paths for part in parts]),
        path_offsets=np.cumsum(lengths),
    )


@dataclass(frozen=True, eq=False)
class _Part:
    paths: NDArray[np.uint8]
    path_lengths: NDArray[np.int64]
    sizes: NDArray[np.int64]
    mtimes: NDArray[np.int64]


def _list_class(folder: Path, name: str) -> _Part:
    found = sorted(_walk(os.fsencode(folder / name), os.fsencode(name)))
    paths, offsets = join_names([path for path, _, _ in found])
    return _Part(
        paths=paths,
        path_lengths=np.diff(offsets),
        sizes=np.array([size for _, size, _ in found], np.int64),
        mtimes=np.array([mtime for _, _, mtime in found], np.int64),
    )


def _walk(folder: bytes, relative: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The relative path, size and time of every image under a class folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = relative + b"/" + entry.name
            if entry.name.startswith(b"."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, path)
            elif _is_image(entry.name):
                try:
                    seen = entry.stat()
                except OSError:  # a dangling link: reading it will say so by name
                    yield path, GONE, GONE
                    continue
                if stat.S_ISREG(seen.st_mode):
                    yield path, seen.st_size, seen.st_mtime_ns


def _is_image(name: bytes) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(b".")


def _readable(suffixes: tuple[bytes, ...]) -> str:
    return ", ".join(suffix.decode() for suffix in suffixes)
