"""Resizing on the CPU: the same bytes on every CPU, and what Pillow's are, to a level."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from skd_cache.pixels.resize import Resizer

HASH = """
import hashlib
import numpy as np
import torch
from skd_cache.pixels.resize import Resizer

draws = np.random.default_rng(0)
sizes = draws.integers(8, 400, (40, 2))
images = [draws.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
shapes, anchors = np.full((40, 2), 97, np.int32), np.zeros((40, 2), np.int32)
for mode in ("bilinear", "bicubic", "nearest"):
    made = Resizer(97, mode, 2).start(images, shapes, anchors)()
    print(hashlib.sha256(made.numpy().tobytes()).hexdigest())
print(torch.backends.cpu.get_cpu_capability())
"""


def test_the_bytes_are_the_same_whatever_the_cpu_can_do() -> None:
    hashes, capabilities = set(), set()
    for capability in ("default", "avx2", "avx512"):
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
        ran = subprocess.run(
            [sys.executable, "-c", HASH],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        *lines, able = ran.stdout.split()
        hashes.add(tuple(lines))
        capabilities.add(able)
    assert len(hashes) == 1
    assert "DEFAULT" in capabilities


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resized_photographs_are_pillows(mode: str, photographs: list[Image.Image]) -> None:
    images = [np.array(image) for image in photographs]
    shapes = np.full((len(images), 2), 112, np.int32)
    ours = Resizer(112, mode, 2).start(images, shapes, np.zeros_like(shapes))().numpy()
    how = Image.Resampling[mode.upper()]
    theirs = np.stack([np.asarray(image.resize((112, 112), how)) for image in photographs])
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.mean() <= 0.05
    assert np.percentile(difference, 99.9) <= 1


def test_what_reaches_outside_is_zero_and_an_image_of_the_shape_is_copied() -> None:
    image = np.random.default_rng(0).integers(1, 256, (6, 10, 3), dtype=np.uint8)
    shapes, anchors = np.array([[6, 10]] * 2), np.array([[-1, 1], [2, -3]])
    down, across = Resizer(8, "bilinear", 3).start([image, image], shapes, anchors)().numpy()
    assert (down[1:7] == image[:, 1:9]).all()
    assert not down[0].any()
    assert not down[7].any()
    assert (across[:4, 3:] == image[2:, :5]).all()
    assert not across[4:].any()
    assert not across[:, :3].any()
