import importlib.util
import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from skd_cache.dataset.header import Header, read_header
from skd_cache.dataset.images import ImageSet, image_set
from skd_cache.dataset.table import Table, join_names
from skd_cache.pixels import Backend
from skd_cache.replay import Policy, Request, draw_params

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")

Folder = Callable[..., ImageSet]


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photographs() -> list[Image.Image]:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None, "the photographs come with scikit-image: pip install -e '.[dev]'"
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    # The files' colour profiles must not travel into what the tests write.
    return [
        Image.fromarray(np.asarray(Image.open(folder / name).convert("RGB")))
        for name in PHOTOGRAPHS
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Writes encoded images into a folder and opens it as an image set."""

    def build(files: dict[str, bytes], fallback: Iterable[str] | None = None) -> ImageSet:
        root = tmp_path / "images"
        root.mkdir()
        for name, encoded in files.items():
            (root / name).write_bytes(encoded)
        return image_set(table(files, fallback), name="photos/train", classes=("a",),
                         file=tmp_path / "index.h5", root=root)  # fmt: skip

    return build


@pytest.fixture
def packed(tmp_path: Path) -> Folder:
    """Writes encoded images end to end into one file and opens that as an image set."""

    def build(files: dict[str, bytes], fallback: Iterable[str] | None = None) -> ImageSet:
        file = tmp_path / "packed.bin"
        file.write_bytes(b"".join(files.values()))
        offsets = np.cumsum([0, *(len(encoded) for encoded in files.values())])
        return image_set(table(files, fallback), name="photos/train", classes=("a",), file=file,
                         data=np.memmap(file, np.uint8, "r"), offsets=offsets)  # fmt: skip

    return build


def table(files: dict[str, bytes], fallback: Iterable[str] | None) -> Table:
    headers = [header(encoded) for encoded in files.values()]
    if fallback is not None:
        headers = [
            replace(header, fallback=name in set(fallback))
            for name, header in zip(files, headers, strict=True)
        ]
    paths, path_offsets = join_names([name.encode() for name in files])
    return Table(
        labels=np.zeros(len(files), np.int32),
        heights=np.array([header.height for header in headers], np.int32),
        widths=np.array([header.width for header in headers], np.int32),
        lengths=np.array([len(encoded) for encoded in files.values()], np.int64),
        contents=np.zeros(len(files), np.uint64),
        fallback=np.array([header.fallback for header in headers], np.bool_),
        paths=paths,
        path_offsets=path_offsets,
    )


def header(encoded: bytes) -> Header:
    """What an index says of an image, and of what was one when it was indexed."""
    try:
        return read_header(encoded)
    except (OSError, ValueError):
        return Header(64, 64, fallback=False)


def request(
    images: ImageSet, policy: Policy, samples: Iterable[int], view: int = 0, seed: int = 0
) -> Request:
    wanted = np.array(list(samples), np.int64)
    heights, widths = images.heights[wanted], images.widths[wanted]
    return Request(wanted, draw_params(policy, seed, view, wanted, heights, widths))


def pixels_of(backend: Backend, requests: Iterable[Request]) -> NDArray[np.uint8]:
    return np.concatenate([batch.numpy() for batch in backend.stream(requests)])
