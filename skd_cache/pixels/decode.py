"""An encoded image of any kind to upright RGB, through PIL."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Transpose

from skd_cache.dataset.header import open_image, orientation
from skd_cache.dataset.images import ImageSet
from skd_cache.errors import InputError

# What brings an image stored with that orientation upright (Exif 2.3, section 4.6.4).
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def decode(images: ImageSet, sample: int) -> Image.Image:
    """A sample's whole image: RGB, upright.

    Raises:
        InputError: it cannot be read or decoded; the message names its file.
    """
    encoded = images.read(sample)
    try:
        return decode_rgb(encoded)
    except Exception as error:  # PIL's plugins raise whatever their parsers stumble on
        raise undecodable(images, sample, str(error) or type(error).__name__) from error


def decode_rgb(encoded: NDArray[np.uint8]) -> Image.Image:
    """An encoded image as PIL sees it: RGB, upright, alpha dropped.

    16-bit grey keeps its upper byte, as PIL itself does for 16-bit colour (its own conversion
    of 16-bit grey clips everything over 255 to white). Raises whatever PIL does.
    """
    with open_image(encoded) as image:
        image.load()  # TIFF turns itself upright here, and forgets its orientation
        turn = UPRIGHT.get(orientation(image))
        if image.mode.startswith("I"):
            grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
            rgb = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
        else:
            rgb = image.convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)


def as_ppm(image: Image.Image) -> NDArray[np.uint8]:
    """An RGB image encoded without loss as binary PPM, which every decoder reads alike."""
    header = f"P6\n{image.width} {image.height}\n255\n".encode()
    return np.frombuffer(header + image.tobytes(), np.uint8)


def undecodable(images: ImageSet, sample: int, reason: str) -> InputError:
    """The error for an image that cannot be decoded."""
    dataset = images.name.partition("/")[0]
    return InputError(
        f"an image of {images.name} cannot be decoded: {images.describe(sample)} ({reason}). "
        f"`skd-cache index {dataset} --check` lists every bad file"
    )
