"""The demo that ships with the package: 6,000 + 1,000 images of Fashion-MNIST as PNG.

Made by ``tools/make_demo_dataset.py``; the images are Zalando SE's, under the MIT licence beside
them. The recipe is sized for about three minutes on two cores.
"""

from importlib.resources import as_file, files
from pathlib import Path

from skd_cache.dataset import fashion_mnist
from skd_cache.dataset.dataset import Defaults
from skd_cache.dataset.packed import Packed, open_packed

DEFAULTS = Defaults(
    size=28,
    policy="pad-crop-flip",
    eval_resize=28,
    mean=fashion_mnist.DEFAULTS.mean,
    std=fashion_mnist.DEFAULTS.std,
    student="resnet20",
    epochs=8,
    batch_size=32,
    lr=0.05,
    weight_decay=5e-4,
    schedule="cosine",
    views=4,
)


def demo_file() -> Path:
    """The packed file inside the installed package."""
    with as_file(files("skd_cache.dataset") / "demo" / "fashion-mnist-7000.h5") as file:
        return file


def open_demo() -> Packed:
    """Map the demo's images."""
    return open_packed(demo_file(), "demo")
