r"""Make the demo dataset: the first images of each class of Fashion-MNIST, as optimised PNGs.

600 training and 100 test images of each of the ten classes, in their original order; the number
in a path is the image's place in Fashion-MNIST.

    python tools/make_demo_dataset.py /usr/share/datasets/fashion-mnist \
        skd_cache/dataset/demo/fashion-mnist-7000.h5
"""

import io
import sys
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

from skd_cache.dataset.fashion_mnist import CLASSES, find_idx, read_idx_splits
from skd_cache.dataset.packed import write_packed
from skd_cache.dataset.raw import RawSplit
from skd_cache.dataset.table import Table, join_names

PER_CLASS = {"train": 600, "val": 100}
MAX_BYTES = 4_000_000


def first_of_each_class(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    chosen = [np.flatnonzero(labels == label)[:count] for label in range(len(CLASSES))]
    return np.sort(np.concatenate(chosen))


def encode(raw: RawSplit, count: int) -> tuple[Table, list[NDArray[np.uint8]]]:
    chosen = first_of_each_class(raw.labels, count)
    images = []
    for pixels in raw.images[chosen]:
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG", optimize=True)
        images.append(np.frombuffer(png.getvalue(), np.uint8))
    paths, path_offsets = join_names([f"{place:05d}.png".encode() for place in chosen])
    size = raw.images.shape[1:]
    table = Table(
        labels=raw.labels[chosen],
        heights=np.full(len(chosen), size[0], np.int32),
        widths=np.full(len(chosen), size[1], np.int32),
        lengths=np.array([len(image) for image in images], np.int64),
        contents=np.array([xxhash.xxh3_64_intdigest(image) for image in images], np.uint64),
        fallback=np.zeros(len(chosen), np.bool_),
        paths=paths,
        path_offsets=path_offsets,
    )
    return table, images


def main(folder: Path, out: Path) -> None:
    found = find_idx([folder])
    if found is None:
        sys.exit(f"{folder} does not hold the four idx files of Fashion-MNIST")
    raw = read_idx_splits(found)
    splits = {split: encode(raw[split], count) for split, count in PER_CLASS.items()}
    notice = (out.parent / "LICENSE").read_text(encoding="utf-8")
    write_packed(out, kind="demo", classes=CLASSES, splits=splits, notice=notice)
    size = out.stat().st_size
    print(f"{out}: {size:,} bytes")
    if size >= MAX_BYTES:
        sys.exit(f"that is more than the {MAX_BYTES:,} the package allows")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
