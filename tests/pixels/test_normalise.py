import pytest
import torch
from PIL import Image
from torchvision import transforms

from skd_cache.pixels import normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("size", [28, 224])
def test_normalised_pixels_are_torchvisions_bit_for_bit(count: int, size: int) -> None:
    images = torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8)
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    ours = normalise(images, MEAN, STD)
    assert ours.shape == (count, 3, size, size)
    assert ours.dtype == torch.float32
    assert ours.is_contiguous(memory_format=torch.channels_last)
    for image, row in zip(images, ours, strict=True):
        assert torch.equal(row, theirs(Image.fromarray(image.numpy())))


def test_the_images_are_left_as_they_were() -> None:
    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    before = images.clone()
    normalise(images, MEAN, STD)
    assert torch.equal(images, before)


def test_rows_and_columns_may_differ_in_number() -> None:
    images = torch.arange(2 * 3 * 5 * 3, dtype=torch.uint8).view(2, 3, 5, 3)
    ours = normalise(images, (0, 0, 0), (1, 1, 1))
    assert torch.equal(ours, images.permute(0, 3, 1, 2).float() / 255)
