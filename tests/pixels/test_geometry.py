"""Boxes, flips and orientation, read back from images whose pixels are their own coordinates."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Transpose

from skd_cache.pixels import BACKENDS, open_backend
from skd_cache.replay import Params, Policy, Request, load_policy
from tests.pixels.conftest import Folder, encode, pixels_of, request

HEIGHT, WIDTH = 200, 256
# What an upright image is turned into before it is stored with that orientation.
STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}

both = pytest.mark.parametrize("name", BACKENDS)


def ramp() -> Image.Image:
    """Red is the column, green the row."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    return Image.fromarray(np.stack([columns, rows, np.full_like(rows, 128)], 2))


def stored(image: Image.Image, orientation: int, kind: str) -> bytes:
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    return encode(image if turn is None else image.transpose(turn), kind, exif=exif, **options)


def recovered(image: NDArray[np.uint8]) -> tuple[list[float], bool]:
    """The box and flip that an output of the ramp shows, by straight lines through it."""
    size = len(image)
    inner = slice(8, size - 8)  # the filter leans inwards at the edges
    centres = (np.arange(size) + 0.5)[inner] / size
    across, start_x = np.polyfit(centres, image[inner, inner, 0].mean(0), 1)
    down, start_y = np.polyfit(centres, image[inner, inner, 1].mean(1), 1)
    flip = across < 0
    left = start_x + across if flip else start_x
    return [start_y + 0.5, left + 0.5, down, abs(across)], bool(flip)


@both
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_ramp_gives_back_its_boxes_flips_and_orientation(
    name: str, kind: str, folder: Folder
) -> None:
    images = folder({f"{o}.{kind.lower()}": stored(ramp(), o, kind) for o in STORED})
    assert set(images.heights) == {HEIGHT}
    policy = Policy(crop="rrc", flip=True, scale=(0.2, 1.0))
    requests = [request(images, policy, range(8), view) for view in range(6)]
    made = pixels_of(open_backend(name, images, 224, policy), requests)
    boxes = np.concatenate([r.params.box for r in requests])
    flips = np.concatenate([r.params.flip for r in requests])
    assert 0 < flips.sum() < len(flips)
    for image, box, flip in zip(made, boxes, flips, strict=True):
        found, flipped = recovered(image)
        assert np.abs(np.array(found) - box).max() <= 0.5
        assert flipped == flip


@both
@pytest.mark.parametrize("size", [32, 28])
def test_padded_crops_are_the_image_with_zeros_around(
    name: str, size: int, folder: Folder, packed: Folder
) -> None:
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 256, (6, size, size, 3), np.uint8)
    files = {f"{i}.ppm": encode(Image.fromarray(s), "PPM") for i, s in enumerate(sources)}
    policy = load_policy("pad-crop-flip")
    for images in (folder(files), packed(files)):
        requests = [request(images, policy, range(6), view) for view in range(5)]
        made = pixels_of(open_backend(name, images, size, policy), requests)
        boxes = np.concatenate([r.params.box for r in requests])
        flips = np.concatenate([r.params.flip for r in requests])
        for row, (image, (top, left, _, _), flip) in enumerate(
            zip(made, boxes, flips, strict=True)
        ):
            around = np.pad(sources[row % 6], ((4, 4), (4, 4), (0, 0)))
            cut = around[top + 4 :, left + 4 :][:size, :size]
            assert (image == (cut[:, ::-1] if flip else cut)).all()


@both
def test_without_a_crop_an_image_of_the_right_size_is_untouched(name: str, packed: Folder) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
    images = packed({"0.pgm": encode(Image.fromarray(grey), "PPM")})
    (made,) = pixels_of(open_backend(name, images, 28, Policy()), [request(images, Policy(), [0])])
    assert (made == grey[..., None]).all()


@both
def test_a_box_of_one_pixel_fills_the_output_with_it(name: str, folder: Folder) -> None:
    images = folder({"0.png": encode(ramp(), "PNG")})
    params = Params(np.array([[17, 40, 1, 1]], np.int32), np.array([False]))
    policy = load_policy("rrc-flip")
    (made,) = pixels_of(open_backend(name, images, 16, policy), [Request(np.array([0]), params)])
    assert (made == [40, 17, 128]).all()
