from pathlib import Path

import pytest

from tests.dataset.dataset_images import write_image


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache home of the test's own, and no dataset of the user's."""
    monkeypatch.setenv("SKD_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SKD_CACHE_DATA", raising=False)
    return tmp_path / "home"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes, five training and two validation images."""
    root = tmp_path / "pets"
    names = ("cat/b.jpg", "cat/a.png", "cat/deep/c.JPG", "dog/2.webp", "dog/1.bmp")
    for seed, name in enumerate(names):
        write_image(root / "train" / name, seed)
    for seed, name in enumerate(("cat/x.png", "dog/y.jpg")):
        write_image(root / "val" / name, 10 + seed, (30, 20))
    return root
