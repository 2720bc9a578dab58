"""Datasets by name: which there are, how they are opened and checked."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from skd_cache.dataset import cifar, demo, fashion_mnist, imagefolder, imagenet
from skd_cache.dataset.check import BadImage, check_images, check_listed
from skd_cache.dataset.dataset import Dataset, Defaults
from skd_cache.dataset.images import ImageSet
from skd_cache.dataset.index import list_splits, open_index
from skd_cache.dataset.packed import open_packed
from skd_cache.errors import InputError

__all__ = ["Dataset", "Defaults", "check_dataset", "defaults", "names", "open_dataset"]

DEFAULTS: Mapping[str, Defaults] = {
    **cifar.DEFAULTS,
    "demo": demo.DEFAULTS,
    "fashion-mnist": fashion_mnist.DEFAULTS,
    "imagefolder": imagefolder.DEFAULTS,
    "imagenet": imagenet.DEFAULTS,
}
FOLDERS = {"imagefolder": imagefolder.find_splits, "imagenet": imagenet.find_splits}
PACKED_SUFFIXES = {".h5", ".hdf5"}


def names() -> list[str]:
    """The datasets that can be asked for by name, sorted; a packed ``.h5`` is asked for by path."""
    return sorted(DEFAULTS)


def defaults(kind: str) -> Defaults:
    """The defaults of a named dataset."""
    return DEFAULTS[kind]


def open_dataset(name: str, data: Path | None = None) -> Dataset:
    """Open a dataset by name, or a packed ``.h5`` by its path.

    ``data`` is where its files are; without it ``$SKD_CACHE_DATA``, then the places where the
    format usually lies. A folder of images is indexed the first time, with progress, and what
    changed in it since is read again.

    Raises:
        InputError: unknown name, nothing there, a layout or file that cannot be used.
    """
    file = _packed_file(name, data)
    if file is not None:
        packed = open_packed(file)
        kind = packed.kind if name not in DEFAULTS else name
        if kind not in DEFAULTS:
            raise InputError(f"{file} is a packed {kind!r}, which is none of {', '.join(names())}")
        return _dataset(file.name, kind, packed.splits)
    _require_known(name)
    return _dataset(name, name, _open_splits(name, data))


def check_dataset(name: str, data: Path | None = None) -> list[BadImage]:
    """Decode every image of a dataset whole and list all that fail, also if it cannot be opened.

    Raises:
        InputError: as `open_dataset`, but not for bad images.
    """
    if name in FOLDERS and _packed_file(name, data) is None:
        return check_listed(list_splits(FOLDERS[name](_place(data))))
    return check_images(open_dataset(name, data).splits)


def _open_splits(name: str, data: Path | None) -> Mapping[str, ImageSet]:
    place, only_there = _place(data), data is not None
    if name in FOLDERS:
        return open_index(name, FOLDERS[name](place))
    if name == "demo":
        if only_there:
            raise InputError("demo comes with skd-cache: leave --data out")
        return demo.open_demo().splits
    if name == "fashion-mnist":
        return fashion_mnist.open_fashion_mnist(place, only_there=only_there)
    return cifar.open_cifar(name, place, only_there=only_there)


def _dataset(name: str, kind: str, splits: Mapping[str, ImageSet]) -> Dataset:
    return Dataset(name, kind, splits["train"], splits.get("val"), DEFAULTS[kind])


def _place(data: Path | None) -> Path | None:
    """Where the user's data are, if that was said."""
    if data is not None:
        return data.expanduser()
    said = os.environ.get("SKD_CACHE_DATA")
    return Path(said).expanduser() if said else None


def _packed_file(name: str, data: Path | None) -> Path | None:
    """The packed file that is meant, by ``name`` itself or by ``data``, if one is."""
    if Path(name).suffix.lower() in PACKED_SUFFIXES:
        if data is not None:
            raise InputError(f"{name} is a packed dataset: leave --data out")
        return Path(name).expanduser()
    place = _place(data)
    is_packed = place is not None and place.suffix.lower() in PACKED_SUFFIXES
    return place if is_packed and name in FOLDERS else None


def _require_known(name: str) -> None:
    if name not in DEFAULTS:
        near = get_close_matches(name, names(), n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names())}"
        raise InputError(f"there is no dataset {name!r}: {hint} (or a packed FILE.h5)")
