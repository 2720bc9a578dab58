"""Any folder of images: ``train/`` and ``val/`` of class folders, or class folders alone."""

from pathlib import Path

from skd_cache.dataset import imagenet
from skd_cache.dataset.listing import images_directly_in, subfolders
from skd_cache.errors import InputError

DEFAULTS = imagenet.DEFAULTS


def find_splits(data: Path | None) -> dict[str, Path]:
    """The folders of the splits under ``data``.

    Raises:
        InputError: there are none; says where it looked and what layout it wants.
    """
    wanted = "train/ and val/ of one folder per class, or one folder per class alone"
    if data is None:
        raise InputError(f"imagefolder needs --data or SKD_CACHE_DATA: a folder with {wanted}")
    if not data.is_dir():
        raise InputError(f"there is no folder {data}: imagefolder wants {wanted}")
    if (data / "train").is_dir():
        return imagenet.splits_of(data, wanted)
    if not subfolders(data):
        loose = images_directly_in(data)
        holds = f"{loose:,} images directly" if loose else "no folders"
        raise InputError(f"{data} holds {holds}: imagefolder wants {wanted}")
    return {"train": data}
