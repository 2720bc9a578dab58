"""The eval transform is torchvision's: Resize of the shorter side, then CenterCrop."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from skd_cache.pixels import open_backend
from skd_cache.pixels.evaluation import centred_anchors, resized_shapes
from skd_cache.replay import Policy
from tests.pixels.conftest import Folder, encode


def torchvisions(image: Image.Image, resize: int, size: int) -> np.ndarray:
    return np.asarray(v2.Compose([v2.Resize(resize), v2.CenterCrop(size)])(image))


@pytest.mark.parametrize("resize", [32, 110, 235, 256])
def test_shapes_and_anchors_are_torchvisions(resize: int) -> None:
    sizes = np.random.default_rng(resize).integers(20, 700, (200, 2)).astype(np.int32)
    shapes = resized_shapes(sizes[:, 0], sizes[:, 1], resize)
    resized = v2.Resize(resize, InterpolationMode.NEAREST)  # the shape is the same, sooner
    for (height, width), shape in zip(sizes, shapes, strict=True):
        assert tuple(resized(torch.zeros(1, height, width)).shape[1:]) == tuple(shape)
    for size in (resize - 9, resize - 32, resize):
        anchors = centred_anchors(shapes, size) if size > 0 else []
        for shape, anchor in zip(shapes[:40], anchors, strict=False):
            rows, columns = np.mgrid[: shape[0], : shape[1]]
            cut = v2.CenterCrop(size)(torch.from_numpy(np.stack([rows, columns])))
            assert cut[:, 0, 0].tolist() == anchor.tolist()


@pytest.mark.parametrize(("resize", "size"), [(256, 224), (235, 224), (128, 127), (64, 80)])
def test_eval_pixels_are_torchvisions(
    resize: int, size: int, folder: Folder, photographs: list[Image.Image]
) -> None:
    cuts = [image.crop((0, 0, image.width - i, image.height - 2 * i))
            for i, image in enumerate(photographs)]  # fmt: skip
    images = folder({f"{i}.png": encode(cut, "PNG") for i, cut in enumerate(cuts)})
    theirs = np.stack([torchvisions(cut, resize, size) for cut in cuts])
    batches = [np.array([0, 1, 2]), np.array([3, 4])]
    for name, mean, most in (("reference", 0, 0), ("dali", 0.05, 1)):
        backend = open_backend(name, images, size, Policy())
        ours = np.concatenate([b.numpy() for b in backend.stream_eval(batches, resize)])
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.mean() <= mean
        assert np.percentile(difference, 99.9) <= most
