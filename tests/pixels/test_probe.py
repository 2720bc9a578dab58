"""Thumbnails are exact block means, alike at any size, and tell other pixels apart."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from skd_cache.errors import DataError
from skd_cache.pixels import check, compare, open_backend, thumbnails, tolerance
from skd_cache.pixels.probe import in_numpy, in_torch
from skd_cache.replay import load_policy
from tests.pixels.conftest import Folder, encode, pixels_of, request


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (32, 32), (37, 53), (224, 224)])
def test_thumbnails_are_rounded_block_means(shape: tuple[int, int]) -> None:
    height, width = shape
    images = torch.randint(0, 256, (3, height, width, 3), dtype=torch.uint8)
    made = thumbnails(images).numpy()
    assert made.shape == (3, 8, 8, 3)
    assert made.dtype == np.uint8
    for image, row, column, channel in [(0, 0, 0, 0), (1, 3, 7, 2), (2, 7, 5, 1), (2, 7, 7, 0)]:
        rows = slice(row * height // 8, (row + 1) * height // 8)
        columns = slice(column * width // 8, (column + 1) * width // 8)
        block = images[image, rows, columns, channel].numpy().astype(int)
        mean = Fraction(int(block.sum()), block.size) + Fraction(1, 2)
        assert made[image, row, column, channel] == mean.numerator // mean.denominator


@pytest.mark.parametrize("shape", [(3, 224, 224), (1, 28, 28), (2, 37, 53), (0, 64, 64), (4, 8, 8)])
def test_thumbnails_on_a_device_are_those_in_memory(shape: tuple[int, ...]) -> None:
    draws = np.random.default_rng(7).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert (in_torch(torch.from_numpy(draws)).numpy() == in_numpy(draws)).all()


def test_thumbnails_of_one_colour_are_that_colour() -> None:
    images = torch.tensor([0, 127, 255], dtype=torch.uint8).expand(2, 1024, 1024, 3)
    assert (thumbnails(images) == images[:, :8, :8]).all()


def test_thumbnails_do_not_depend_on_threads_or_batch_size() -> None:
    images = torch.randint(0, 256, (16, 224, 224, 3), dtype=torch.uint8)
    together = thumbnails(images)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(thumbnails(images), together)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.cat([thumbnails(image[None]) for image in images]), together)


def test_thumbnails_of_no_images_are_none() -> None:
    assert thumbnails(torch.zeros(0, 28, 28, 3, dtype=torch.uint8)).shape == (0, 8, 8, 3)


def test_thumbnails_of_photographs_agree_between_sizes_and_backends(
    folder: Folder, photographs: list[Image.Image]
) -> None:
    policy = load_policy("rrc-flip")
    images = folder({f"{i}.jpg": encode(p, "JPEG") for i, p in enumerate(photographs)})
    requests = [request(images, policy, range(len(images)), view) for view in range(12)]
    made = {
        (name, size): thumbnails(
            torch.from_numpy(pixels_of(open_backend(name, images, size, policy), requests))
        ).numpy()
        for name, size in (("dali", 224), ("dali", 160), ("reference", 224), ("reference", 160))
    }
    stored = made["dali", 224]
    for other in made.values():
        assert len(compare(other, stored, 2)) == 0
    another = np.roll(stored, 1, axis=0)
    assert len(compare(another, stored, 2)) == len(stored)
    assert len(compare(stored[:, :, ::-1], stored, 2)) == len(stored)


def test_the_same_pixels_are_compared_exactly_and_others_within_two() -> None:
    built = ("dali", "cpu", 224)
    assert tolerance(built, built) == 0
    assert tolerance(("dali", "cpu", 160), built) == 2
    assert tolerance(("reference", "cpu", 224), built) == 2
    assert tolerance(("dali", "gpu", 224), built) == 2
    assert tolerance(("dali", "gpu", 224), ("dali", "gpu", 224)) == 2


def test_a_difference_over_the_tolerance_names_sample_view_and_both_thumbnails() -> None:
    stored = np.full((3, 8, 8, 3), 100, np.uint8)
    ours = stored.copy()
    ours[1, 4, 4, 0] = 103
    where = {"view": 7, "samples": np.array([10, 11, 12]), "describe": lambda s: f"/data/{s}.jpg"}
    check(ours, stored, 3, **where)
    check(ours[:0], stored[:0], 0, **where)
    assert compare(ours, stored, 2).tolist() == [1]
    with pytest.raises(DataError) as error:
        check(ours, stored, 2, **where)
    sentence, *table = str(error.value).split("\n")
    assert "sample 11 in view 7" in sentence
    assert "/data/11.jpg" in sentence
    assert "up to 3 grey levels where 2 are allowed" in sentence
    assert len(table) == 9
    assert "676464" in table[5]
    assert max(len(line) for line in table) < 120
