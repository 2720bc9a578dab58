"""Every image decoded whole, so that all bad files are known at once."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import xxhash
from numpy.typing import NDArray

from skd_cache.dataset.header import open_image, read_header
from skd_cache.dataset.images import ImageSet
from skd_cache.dataset.listing import Listing
from skd_cache.progress import track

THREADS = 8
TASK = 64


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used: ``where`` it lies, and the ``reason``."""

    where: str
    reason: str


def reason_of(error: Exception) -> str:
    """What an exception says, in few words."""
    text = str(error).split("<_io")[0].removesuffix(" file ").strip()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return text or type(error).__name__


def check_listed(splits: Mapping[str, Listing]) -> list[BadImage]:
    """Decode every image of a folder dataset whole; all that fail, in the dataset's order."""
    return _check_all({split: (len(s), partial(check_file, s)) for split, s in splits.items()})


def check_images(splits: Mapping[str, ImageSet]) -> list[BadImage]:
    """As `check_listed` for opened splits, whose contents are compared as well."""
    return _check_all({split: (len(s), partial(check_sample, s)) for split, s in splits.items()})


def check_file(listed: Listing, sample: int) -> BadImage | None:
    """What is wrong with one file, if anything."""
    file = listed.file(sample)
    try:
        decode_whole(np.fromfile(file, np.uint8))
    except Exception as error:  # PIL's readers raise nearly anything on damaged files
        return BadImage(str(file), reason_of(error))
    return None


def check_sample(images: ImageSet, sample: int) -> BadImage | None:
    """What is wrong with one sample, if anything."""
    where = images.describe(sample)
    try:
        encoded = images.read(sample)
        if xxhash.xxh3_64_intdigest(encoded.data) != images.contents[sample]:
            return BadImage(where, "its bytes are not those that were packed")
        header = read_header(encoded)
        if (header.height, header.width) != (images.heights[sample], images.widths[sample]):
            return BadImage(where, "its size is not the one that was packed")
        decode_whole(encoded)
    except Exception as error:  # as above
        return BadImage(where, reason_of(error))
    return None


def decode_whole(encoded: NDArray[np.uint8]) -> None:
    """Decode an image to its last pixel. Raises what PIL raises."""
    with open_image(encoded) as image:
        image.load()


def _check_all(
    splits: Mapping[str, tuple[int, Callable[[int], BadImage | None]]],
) -> list[BadImage]:
    bad: list[BadImage] = []
    total = sum(count for count, _ in splits.values())
    with ThreadPoolExecutor(THREADS) as pool, track(total, "checking", "images") as bar:
        for count, check in splits.values():
            for start in range(0, count, TASK * THREADS):
                samples = range(start, min(start + TASK * THREADS, count))
                bad += [found for found in pool.map(check, samples) if found is not None]
                bar.advance(len(samples))
    return bad
