"""Odd images go through both backends, PIL in DALI's place only where it must be."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from skd_cache.dataset.images import ImageSet
from skd_cache.errors import InputError
from skd_cache.pixels import open_backend
from skd_cache.replay import Policy, load_policy
from tests.pixels.conftest import Folder, encode, pixels_of, request

SIDE = 96
REFUSED = {"gif.gif", "a-gif.jpg", "bit.tiff", "text.ppm", "odd-turned.webp"}  # by DALI
DIFFERENT = {
    "grey16.png", "colour16.png", "grey16.pgm", "grey16.tiff", "dark.ppm", "palette.tiff",
}  # fmt: skip
TOLERATED = {"cmyk-turned.jpg": 1}  # grey levels DALI is off by


def png16(pixels: np.ndarray) -> bytes:
    """A 16-bit RGB PNG, which PIL reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )  # fmt: skip

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def webp_with_odd_chunk(photo: Image.Image, exif: Image.Exif) -> bytes:
    """A WebP whose pixels are an odd number of bytes, padded, with EXIF behind them."""
    for width in range(photo.width // 2):
        painted = photo.copy()
        painted.paste("black", (0, 0, width, 1))
        encoded = encode(painted, "WEBP", lossless=True, exif=exif)
        pixels = encoded.index(b"VP8L")
        if int.from_bytes(encoded[pixels + 4 : pixels + 8], "little") % 2:
            return encoded
    raise AssertionError("every file has an even number of bytes")


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.fixture
def files(photographs: list[Image.Image]) -> dict[str, bytes]:
    photo = photographs[1].crop((100, 40, 100 + SIDE, 40 + SIDE))
    grey = photo.convert("L")
    alpha = Image.linear_gradient("L").resize(photo.size)
    deep = np.asarray(grey).astype(np.uint16) * 257 + 100
    return {
        "plain.jpg": encode(photo, "JPEG", quality=90),
        "progressive.jpg": encode(photo, "JPEG", quality=90, progressive=True),
        "grey.jpg": encode(grey, "JPEG", quality=90),
        "cmyk.jpg": encode(photo.convert("CMYK"), "JPEG", quality=90),
        "cmyk-turned.jpg": encode(photo.convert("CMYK"), "JPEG", exif=turned(6)),
        "turned.jpg": encode(photo, "JPEG", quality=90, exif=turned(6)),
        "turned.webp": encode(photo, "WEBP", lossless=True, exif=turned(5)),
        "turned.tiff": encode(photo, "TIFF", exif=turned(8)),
        "grey.png": encode(grey, "PNG"),
        "bit.png": encode(photo.convert("1"), "PNG"),
        "palette.png": encode(photo.quantize(64), "PNG"),
        "palette-holes.png": encode(photo.quantize(16), "PNG", transparency=3),
        "rgba.png": encode(Image.merge("RGBA", (*photo.split(), alpha)), "PNG"),
        "grey-alpha.png": encode(Image.merge("LA", (grey, alpha)), "PNG"),
        "a-png.JPEG": encode(photo, "PNG"),
        "grey16.png": encode(Image.fromarray(deep), "PNG"),
        "colour16.png": png16(np.asarray(photo).astype(np.uint16) * 257 + 100),
        "lossy.webp": encode(photo, "WEBP", quality=90),
        "lossless.webp": encode(photo, "WEBP", lossless=True),
        "odd-turned.webp": webp_with_odd_chunk(photo, turned(6)),
        "gif.gif": encode(photo.quantize(256), "GIF"),
        "a-gif.jpg": encode(photo.quantize(256), "GIF"),
        "plain.bmp": encode(photo, "BMP"),
        "palette.bmp": encode(photo.quantize(64), "BMP"),
        "plain.tiff": encode(photo, "TIFF", compression="tiff_lzw"),
        "palette.tiff": encode(photo.quantize(64), "TIFF"),
        "grey16.tiff": encode(Image.fromarray(deep), "TIFF"),
        "bit.tiff": encode(photo.convert("1"), "TIFF"),
        "plain.ppm": encode(photo, "PPM"),
        "grey.pgm": encode(grey, "PPM"),
        "grey16.pgm": encode(Image.fromarray(deep), "PPM"),
        "text.ppm": b"P3 96 96 255\n" + b" ".join(b"%d" % v for v in np.asarray(photo).ravel()),
        "dark.ppm": b"P6 96 96 100\n" + (np.asarray(photo) // 3).tobytes(),
    }


def decoded(name: str, images: ImageSet) -> tuple[np.ndarray, int]:
    """The untouched pixels of every image, and how many PIL decoded for DALI."""
    backend = open_backend(name, images, SIDE, Policy())
    pixels = pixels_of(backend, [request(images, Policy(), range(len(images)))])
    return pixels.astype(int), backend.fallbacks


@pytest.mark.parametrize("kind", ["folder", "packed"])
def test_every_format_goes_through_both_backends(
    kind: str, files: dict[str, bytes], request: pytest.FixtureRequest
) -> None:
    images = request.getfixturevalue(kind)(files)
    dali, fallbacks = decoded("dali", images)
    reference, none = decoded("reference", images)
    worst = dict(zip(files, np.abs(dali - reference).max(axis=(1, 2, 3)), strict=True))
    assert {name: level for name, level in worst.items() if level} == TOLERATED
    assert (fallbacks, none) == (len(REFUSED | DIFFERENT), 0)


def test_every_format_shows_the_picture(
    files: dict[str, bytes], folder: Folder, photographs: list[Image.Image]
) -> None:
    photo = np.asarray(photographs[1].crop((100, 40, 100 + SIDE, 40 + SIDE)).convert("L"))
    pixels, _ = decoded("dali", folder(files))
    turn = {"turned.jpg": -1, "cmyk-turned.jpg": -1, "odd-turned.webp": -1, "turned.tiff": 1}
    for name, image in zip(files, pixels.mean(3), strict=True):
        upright = photo.T if name == "turned.webp" else np.rot90(photo, turn.get(name, 0))
        blocks = [a.reshape(12, 8, 12, 8).mean((1, 3)).ravel() for a in (upright, image)]
        assert np.corrcoef(*blocks)[0, 1] > 0.95, name


def test_pil_decodes_only_what_dali_refuses_or_sees_otherwise(
    files: dict[str, bytes], packed: Folder
) -> None:
    images, direct = packed(files), packed(files, fallback=())
    flagged = {name for name, flag in zip(files, images.fallback, strict=True) if flag}
    assert flagged == REFUSED | DIFFERENT
    backend = open_backend("dali", direct, SIDE, Policy())
    right, _ = decoded("reference", images)
    refused, different = set(), set()
    for index, name in enumerate(files):
        try:
            pixels = pixels_of(backend, [request(direct, Policy(), [index])])
        except InputError:
            refused.add(name)
            continue
        if np.abs(pixels[0].astype(int) - right[index]).max() > TOLERATED.get(name, 0):
            different.add(name)
    assert refused == REFUSED
    assert different == DIFFERENT
    assert backend.fallbacks == 0


def test_fallbacks_count_images_as_often_as_they_are_made(
    files: dict[str, bytes], folder: Folder
) -> None:
    images, policy = folder(files), load_policy("rrc-flip")
    backend = open_backend("dali", images, 32, policy, threads=2)
    for view in range(3):
        pixels_of(backend, [request(images, policy, range(len(files)), view)])
    assert backend.fallbacks == 3 * len(REFUSED | DIFFERENT)
    sound = np.flatnonzero(~images.fallback)
    pixels_of(backend, [request(images, policy, sound)])
    assert backend.fallbacks == 3 * len(REFUSED | DIFFERENT)
