"""What an encoded image says of itself, read with PIL: size, orientation, who can decode it."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

# Only these of PIL's readers: some others run programs or are rarely used and rarely tested.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
ORIENTATION = 0x0112
TURNED = {5, 6, 7, 8}
PNG_BIT_DEPTH = 24  # where a PNG keeps it: IHDR comes first
BITS_PER_SAMPLE = 0x0102


@dataclass(frozen=True)
class Header:
    """Pixels ``height`` by ``width`` after EXIF orientation; ``fallback`` as `needs_pil` says."""

    height: int
    width: int
    fallback: bool


def open_image(encoded: bytes | NDArray[np.uint8]) -> Image.Image:
    """The image in encoded bytes, not yet decoded. Raises what PIL raises."""
    if not len(encoded):
        raise ValueError("the file is empty")
    readable = encoded if isinstance(encoded, bytes) else encoded.data
    return Image.open(io.BytesIO(readable), formats=FORMATS)


def read_header(encoded: bytes | NDArray[np.uint8]) -> Header:
    """Size and decoder of an image, without decoding it. Raises what PIL raises."""
    with open_image(encoded) as image:
        width, height = image.size
        # PIL gives a TIFF's size as it is after orientation, everything else's before.
        if image.format != "TIFF" and orientation(image) in TURNED:
            width, height = height, width
        return Header(height, width, needs_pil(image, encoded))


def needs_pil(image: Image.Image, encoded: bytes | NDArray[np.uint8]) -> bool:
    """Whether DALI (2.4) refuses this image or decodes it otherwise than PIL does.

    It refuses GIF, plain-text PNM and WebP whose EXIF follows a chunk of odd length; it keeps
    other bits of more than eight a channel, other values of a PNM whose maximum is not 255,
    other colours of most TIFFs that are not grey, RGB or RGBA; and it does not see an
    orientation that only the XMP tells.
    """
    if image.mode.startswith(("I", "F")):
        return True
    match image.format:
        case "GIF":
            return True
        case "PNG" if int(encoded[PNG_BIT_DEPTH]) == 16:
            return True
        case "WEBP" if "exif" in image.info and _odd_chunk_before_exif(bytes(encoded)):
            return True
        case "PPM" if isinstance(image, ImageFile):
            return image.tile[0].codec_name != "raw"
        case "TIFF":
            depths = image.getexif().get(BITS_PER_SAMPLE, 8)
            return image.mode not in {"L", "RGB", "RGBA"} or bool(np.any(np.not_equal(depths, 8)))
    return orientation(image) != _exif_orientation(image)


def orientation(image: Image.Image) -> int:
    """How the image is stored (1 to 8), as PIL has it: from EXIF, else from XMP, else 1."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block says nothing, and the pixels are fine without it
        return 1


def _exif_orientation(image: Image.Image) -> int:
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        return int(exif.get(ORIENTATION, 1))
    except Exception:  # as above
        return 1


def _odd_chunk_before_exif(webp: bytes) -> bool:
    """Whether a RIFF chunk in front of the EXIF one has a padding byte."""
    at = 12
    while at + 8 <= len(webp) and webp[at : at + 4] != b"EXIF":
        size = int.from_bytes(webp[at + 4 : at + 8], "little")
        if size % 2:
            return True
        at += 8 + size
    return False
