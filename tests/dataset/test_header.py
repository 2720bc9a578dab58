"""Size, orientation and decoder are told right for whatever people call an image."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from skd_cache.dataset.header import ORIENTATION, read_header

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def photo(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


def rgb16_png() -> bytes:
    """What Pillow cannot write: a PNG with sixteen bits in each of three channels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 60, 40, 16, 2, 0, 0, 0)
    rows = zlib.compress(bytes((1 + 60 * 6) * 40))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_size_is_that_of_the_upright_image(kind: str, orientation: int) -> None:
    encoded = encode(photo(), kind, exif=exif(orientation))
    with Image.open(io.BytesIO(encoded)) as image:
        upright = ImageOps.exif_transpose(image)
    header = read_header(encoded)
    assert (header.width, header.height) == upright.size
    assert ((header.width, header.height) == (40, 60)) == (orientation >= 5)


@pytest.mark.parametrize(
    "encoded",
    [
        encode(photo("L"), "JPEG"),
        encode(photo("CMYK"), "JPEG"),
        encode(photo(), "JPEG", progressive=True),
        encode(photo(), "JPEG", exif=exif(6)),
        encode(photo("P"), "PNG"),
        encode(photo("RGBA"), "PNG"),
        encode(photo("LA"), "PNG"),
        encode(photo("1"), "PNG"),
        encode(photo("RGBA"), "WEBP"),
        encode(photo(), "WEBP", lossless=True),
        encode(photo(), "BMP"),
        encode(photo(), "PPM"),
        encode(photo("L"), "PPM"),
        encode(photo(), "TIFF"),
        encode(photo(), "TIFF", exif=exif(8)),
        encode(photo(), "MPO", save_all=True, append_images=[photo()]),
        encode(photo(), "JPEG", exif=b"Exif\0\0junkjunkjunk"),
    ],
)
def test_dali_decodes_what_it_can(encoded: bytes) -> None:
    assert not read_header(encoded).fallback


@pytest.mark.parametrize(
    "encoded",
    [
        encode(photo(), "GIF"),
        encode(photo("L").convert("I;16"), "PNG"),
        rgb16_png(),
        encode(photo("L").convert("I"), "TIFF"),
        encode(photo("L").convert("F"), "TIFF"),
        encode(photo("1"), "TIFF"),
        encode(photo("P"), "TIFF"),
        b"P6\n60 40\n1000\n" + bytes(60 * 40 * 6),
        b"P6\n60 40\n100\n" + bytes(60 * 40 * 3),
        b"P3\n60 40\n255\n" + b"0 " * (60 * 40 * 3),
        encode(photo(), "JPEG", xmp=XMP),
    ],
)
def test_pil_decodes_what_dali_does_not(encoded: bytes) -> None:
    header = read_header(encoded)
    assert header.fallback
    assert {header.height, header.width} == {40, 60}


def test_webp_needs_pil_when_its_exif_follows_a_padded_chunk() -> None:
    def padded(encoded: bytes) -> bool:
        at = encoded.index(b"VP8L") + 4
        return int.from_bytes(encoded[at : at + 4], "little") % 2 == 1

    seen = set()
    for width in range(30, 60):
        image = photo().crop((0, 0, width, 40))
        encoded = encode(image, "WEBP", lossless=True, exif=exif(6))
        assert read_header(encoded).fallback == padded(encoded)
        seen.add(padded(encoded))
    assert seen == {True, False}


@pytest.mark.parametrize("encoded", [b"", b"hello", encode(photo(), "PNG")[:20], b"%!PS-Adobe-3.0"])
def test_what_is_no_image_is_refused(encoded: bytes) -> None:
    with pytest.raises((OSError, ValueError, SyntaxError)):
        read_header(encoded)


def test_arrays_are_read_like_bytes() -> None:
    encoded = encode(photo(), "PNG")
    assert read_header(np.frombuffer(encoded, np.uint8)) == read_header(encoded)
