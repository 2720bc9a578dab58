"""A folder of JPEGs the size of ImageNet's, cut from the photographs that scikit-image ships."""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
WIDTH, HEIGHT = 500, 375  # ImageNet's median
QUALITY = 90


def photographs() -> list[Image.Image]:
    """The photographs, RGB, 300 to 512 pixels high."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("the photographs come with scikit-image: pip install -e '.[dev]'")
    folder = Path(spec.origin).parent / "data"
    return [Image.open(folder / name).convert("RGB") for name in NAMES]


def write_folder(root: Path, count: int, seed: int = 0) -> None:
    """Write ``count`` JPEGs in one folder per photograph: random cuts, scaled to 500 x 375."""
    rng = np.random.default_rng(seed)
    sources = photographs()
    for index in range(count):
        which = index % len(sources)
        source = sources[which]
        height = int(rng.uniform(0.6, 1.0) * min(source.height, source.width * HEIGHT / WIDTH))
        width = height * WIDTH // HEIGHT
        left = int(rng.integers(0, source.width - width + 1))
        top = int(rng.integers(0, source.height - height + 1))
        cut = source.crop((left, top, left + width, top + height))
        folder = root / Path(NAMES[which]).stem
        folder.mkdir(parents=True, exist_ok=True)
        cut.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(
            folder / f"{index:05d}.jpg", quality=QUALITY
        )
