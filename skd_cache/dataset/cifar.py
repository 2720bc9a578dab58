"""CIFAR-10 and CIFAR-100 as torchvision stores them (Krizhevsky, 2009)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from skd_cache.dataset.dataset import Defaults
from skd_cache.dataset.images import ImageSet
from skd_cache.dataset.raw import RawSplit, open_raw
from skd_cache.errors import InputError
from skd_cache.home import cache_home

# Schedule of CRD and mdistiller (Tian et al., arXiv:1910.10699; Zhao et al., arXiv:2203.08679).
CIFAR100 = Defaults(
    size=32,
    policy="pad-crop-flip",
    eval_resize=32,
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
    student="resnet20",
    epochs=240,
    batch_size=64,
    lr=0.05,
    weight_decay=5e-4,
    schedule="step",
    milestones=(150, 180, 210),
)
CIFAR10 = replace(CIFAR100, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
DEFAULTS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
FILES = {
    "cifar10": (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    "cifar100": ("train", "test", "meta"),
}


def open_cifar(name: str, data: Path | None, *, only_there: bool) -> Mapping[str, ImageSet]:
    """The 50,000 training and 10,000 test images of ``cifar10`` or ``cifar100``.

    torchvision's folder is looked for in ``data``, then (unless ``only_there``) in the cache
    home, into which it is downloaded otherwise.

    Raises:
        InputError: it is nowhere, cannot be downloaded, or is damaged.
    """
    downloads = cache_home() / "datasets"
    given = [] if data is None else [data, data.parent] if data.name == FOLDERS[name] else [data]
    places = given if only_there else [*given, downloads]
    root = next((place for place in places if _is_whole(name, place)), None)
    if root is None and only_there:
        raise InputError(
            f"no {name} in {data}: it must hold torchvision's folder {FOLDERS[name]} "
            f"with {', '.join(FILES[name])}"
        )
    if root is None:
        root = downloads
        load(name, root, train=True, download=True)
    sources = [root / FOLDERS[name] / file for file in FILES[name]]
    return open_raw(name, sources, lambda: read_cifar(name, root))


def _is_whole(name: str, root: Path) -> bool:
    return all((root / FOLDERS[name] / file).is_file() for file in FILES[name])


def load(name: str, root: Path, *, train: bool, download: bool = False) -> Any:
    """What torchvision has, which checks the files' md5 before it unpickles them."""
    from torchvision import datasets  # imports torch: only when there is need

    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        root.mkdir(parents=True, exist_ok=True)
        return kind(str(root), train=train, download=download)
    except (OSError, RuntimeError) as error:
        doing = "its download failed" if download else "its files are not as published"
        raise InputError(
            f"{name} cannot be read from {root}: {doing} ({error}); give the folder that holds "
            f"{FOLDERS[name]} with --data"
        ) from error


def read_cifar(name: str, root: Path) -> tuple[tuple[str, ...], dict[str, RawSplit]]:
    """The class names and both splits, from torchvision's files."""
    loaded = {split: load(name, root, train=split == "train") for split in ("train", "val")}
    splits = {
        split: RawSplit(np.asarray(part.data, np.uint8), np.asarray(part.targets, np.int32))
        for split, part in loaded.items()
    }
    return tuple(loaded["train"].classes), splits
