"""Arrays of pixels as a packed dataset of PGM or PPM images, kept in the cache home.

PGM and PPM leave an encoder no freedom, so that the fingerprint is the same on every machine.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from skd_cache.dataset.images import ImageSet
from skd_cache.dataset.packed import open_packed, write_packed
from skd_cache.dataset.table import Table, join_names
from skd_cache.home import cache_home

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class RawSplit:
    """Images ``[N, H, W]`` or ``[N, H, W, 3]`` uint8 and their labels ``[N]``."""

    images: Pixels
    labels: NDArray[np.int32]


def open_raw(
    name: str,
    sources: Iterable[Path],
    read: Callable[[], tuple[tuple[str, ...], Mapping[str, RawSplit]]],
) -> Mapping[str, ImageSet]:
    """The splits of a raw dataset, packed once into the cache home.

    The packed file is named after the bytes of ``sources``, so it is never that of other data;
    ``read`` gives class names and splits; it is called only when the file has to be made.
    """
    digest = xxhash.xxh3_64()
    for source in sources:
        digest.update(source.read_bytes())
    file = cache_home() / "datasets" / f"{name}-{digest.hexdigest()}.h5"
    if not file.exists():
        classes, splits = read()
        encoded = {split: encode(raw) for split, raw in splits.items()}
        if not file.exists():  # another process may have made it meanwhile
            write_packed(file, kind=name, classes=classes, splits=encoded)
    return open_packed(file, name).splits


def encode(raw: RawSplit) -> tuple[Table, Pixels]:
    """The columns of a split and its images as PGM or PPM files ``[N, bytes]``."""
    count, height, width = raw.images.shape[:3]
    magic = "P6" if raw.images.ndim == 4 else "P5"
    header = np.frombuffer(f"{magic}\n{width} {height}\n255\n".encode(), np.uint8)
    encoded = np.empty((count, len(header) + raw.images[0].size), np.uint8)
    encoded[:, : len(header)] = header
    encoded[:, len(header) :] = raw.images.reshape(count, -1)
    suffix = "ppm" if raw.images.ndim == 4 else "pgm"
    paths, path_offsets = join_names([f"{i:05d}.{suffix}".encode() for i in range(count)])
    table = Table(
        labels=raw.labels.astype(np.int32),
        heights=np.full(count, height, np.int32),
        widths=np.full(count, width, np.int32),
        lengths=np.full(count, encoded.shape[1], np.int64),
        contents=np.array([xxhash.xxh3_64_intdigest(image) for image in encoded], np.uint64),
        fallback=np.zeros(count, np.bool_),
        paths=paths,
        path_offsets=path_offsets,
    )
    return table, encoded
