"""Images of noise for the tests of datasets."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

LONG_AGO = 1_500_000_000


def write_image(file: Path, seed: int, size: tuple[int, int] = (24, 16), **options: object) -> None:
    """An image of noise, dated long ago, in the format of its suffix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, **options)  # type: ignore[arg-type]
    os.utime(file, (LONG_AGO, LONG_AGO))
