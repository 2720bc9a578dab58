"""Fashion-MNIST from its four idx files, wherever they are (Xiao et al., arXiv:1708.07747)."""

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from skd_cache.dataset.dataset import Defaults
from skd_cache.dataset.images import ImageSet
from skd_cache.dataset.raw import RawSplit, open_raw
from skd_cache.errors import InputError
from skd_cache.home import cache_home

DEFAULTS = Defaults(
    size=28,
    policy="pad-crop-flip",
    eval_resize=28,
    mean=(0.2860, 0.2860, 0.2860),
    std=(0.3530, 0.3530, 0.3530),
    student="resnet20",
    epochs=30,
    batch_size=128,
    lr=0.1,
    weight_decay=5e-4,
    schedule="cosine",
)
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FILES = tuple(
    f"{split}-{what}-ubyte"
    for split in ("train", "t10k")
    for what in ("images-idx3", "labels-idx1")
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
MAX_BYTES = 1 << 30  # no idx file is larger, whatever a damaged header declares
INSIDE = (".", "raw", "FashionMNIST/raw", "fashion-mnist")


def open_fashion_mnist(data: Path | None, *, only_there: bool) -> Mapping[str, ImageSet]:
    """The 60,000 training and 10,000 test images.

    They are looked for under ``data``, then (unless ``only_there``) where Debian's package and
    torchvision put them, then downloaded.

    Raises:
        InputError: they are nowhere, cannot be downloaded, or are damaged.
    """
    places = [] if data is None else [data / inside for inside in INSIDE]
    downloads = cache_home() / "datasets"
    if not only_there:
        places += [DEBIAN, downloads / "FashionMNIST" / "raw"]
    found = find_idx(places)
    if found is None and only_there:
        raise InputError(
            f"no Fashion-MNIST in {data}: it must hold {', '.join(FILES)} (.gz or not), "
            "there or in FashionMNIST/raw as torchvision stores them"
        )
    if found is None:
        download(downloads, places)
        found = find_idx(places)
    if found is None:
        raise InputError(f"torchvision left no Fashion-MNIST in {downloads}: give it with --data")
    return open_raw("fashion-mnist", found.values(), lambda: (CLASSES, read_idx_splits(found)))


def find_idx(places: list[Path]) -> dict[str, Path] | None:
    """The four idx files of the first place that has them all, by their plain names."""
    for place in places:
        found = {
            name: file
            for name in FILES
            for file in (place / f"{name}.gz", place / name)
            if file.is_file()
        }
        if len(found) == len(FILES):
            return found
    return None


def download(folder: Path, looked: list[Path]) -> None:
    """Have torchvision fetch the four files into ``folder``."""
    from torchvision.datasets import FashionMNIST  # imports torch: only when there is need

    try:
        folder.mkdir(parents=True, exist_ok=True)
        FashionMNIST(str(folder), train=True, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"Fashion-MNIST is not in {', '.join(map(str, looked))} and its download failed "
            f"({reason}): give the folder of its four idx files with --data, or install Debian's "
            "dataset-fashion-mnist"
        ) from error


def read_idx_splits(found: Mapping[str, Path]) -> dict[str, RawSplit]:
    """Both splits from their idx files."""
    return {
        split: read_idx_split(
            found[f"{prefix}-images-idx3-ubyte"], found[f"{prefix}-labels-idx1-ubyte"]
        )
        for split, prefix in (("train", "train"), ("val", "t10k"))
    }


def read_idx_split(images_file: Path, labels_file: Path) -> RawSplit:
    """Images ``[N, H, W]`` and labels ``[N]`` that belong together."""
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if len(images) != len(labels) or not len(labels):
        raise InputError(
            f"{images_file} has {len(images):,} images but {labels_file} {len(labels):,} labels"
        )
    if int(labels.max()) >= len(CLASSES):
        raise InputError(f"{labels_file} has the label {int(labels.max())}: only 0 to 9 exist")
    return RawSplit(images, labels.astype(np.int32))


def read_idx(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """The bytes of an idx file, gzipped or not, in the shape its header declares.

    Source of the format: yann.lecun.com/exdb/mnist: two zero bytes, 8 for unsigned bytes, the
    number of dimensions, each dimension as big-endian uint32, the values.
    """
    damaged = f"{file} is not a whole idx file: fetch it again"
    try:
        with _open(file) as stream:
            head = stream.read(4 + 4 * dimensions)
            if head[:4] != bytes([0, 0, 8, dimensions]) or len(head) != 4 + 4 * dimensions:
                raise InputError(damaged)
            shape = [int(size) for size in np.frombuffer(head, ">u4", offset=4)]
            size = math.prod(shape)
            body = stream.read(size + 1) if size <= MAX_BYTES else b""
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{damaged} ({error})") from error
    if len(body) != size:
        raise InputError(damaged)
    return np.frombuffer(body, np.uint8).reshape(shape)


def _open(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file)) if file.suffix == ".gz" else file.open("rb")
