"""Raw formats become packed files whose fingerprint every machine agrees on."""

import gzip
import hashlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skd_cache.dataset.catalog import check_dataset, open_dataset
from skd_cache.dataset.cifar import FILES as CIFAR_FILES
from skd_cache.dataset.cifar import FOLDERS as CIFAR_FOLDERS
from skd_cache.dataset.fashion_mnist import FILES, read_idx
from skd_cache.dataset.packed import open_packed, write_packed
from skd_cache.dataset.raw import RawSplit, encode
from skd_cache.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
LABELS = np.array([3, 0, 9, 1, 3], np.uint8)


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return head + values.tobytes()


def write_idx(folder: Path, *, zipped: bool) -> None:
    folder.mkdir(parents=True)
    for name in FILES:
        encoded = idx(PIXELS if "images" in name else LABELS)
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(encoded))
        else:
            (folder / name).write_bytes(encoded)


@pytest.mark.parametrize("inside", [".", "raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_opens_where_it_lies(tmp_path: Path, inside: str, zipped: bool) -> None:
    write_idx(tmp_path / "data" / inside, zipped=zipped)
    dataset = open_dataset("fashion-mnist", tmp_path / "data")
    assert dataset.val is not None
    assert dataset.train.labels.tolist() == LABELS.tolist()
    assert dataset.train.classes[9] == "Ankle boot"
    for sample in range(5):
        header = b"P5\n28 28\n255\n"
        assert dataset.val.read(sample).tobytes() == header + PIXELS[sample].tobytes()
    assert dataset.train.path(4) == "00004.pgm"
    assert dataset.train.describe(4).endswith(".h5: train/00004.pgm")
    assert dataset.train.name == "fashion-mnist/train"


def test_fingerprint_is_what_the_format_says(tmp_path: Path) -> None:
    """A change here makes every cache foreign."""
    write_idx(tmp_path / "data", zipped=True)
    paths = b"".join(f"{sample:05d}.pgm".encode() + b"\0" for sample in range(5))
    lengths = struct.pack("<5q", *[len(b"P5\n28 28\n255\n") + 28 * 28] * 5)
    labels = struct.pack("<5i", *LABELS.tolist())
    expected = hashlib.sha256(paths + lengths + labels).hexdigest()
    assert open_dataset("fashion-mnist", tmp_path / "data").train.fingerprint == expected


def test_raw_dataset_is_packed_once(tmp_path: Path, home: Path) -> None:
    write_idx(tmp_path / "data", zipped=True)
    open_dataset("fashion-mnist", tmp_path / "data")
    (packed,) = (home / "datasets").iterdir()
    before = packed.stat().st_mtime_ns, packed.stat().st_ino
    open_dataset("fashion-mnist", tmp_path / "data")
    assert (packed.stat().st_mtime_ns, packed.stat().st_ino) == before


def test_other_raw_files_are_another_dataset(tmp_path: Path) -> None:
    write_idx(tmp_path / "data", zipped=False)
    before = open_dataset("fashion-mnist", tmp_path / "data").train
    labels = tmp_path / "data" / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(LABELS[::-1]))
    after = open_dataset("fashion-mnist", tmp_path / "data").train
    assert before.fingerprint != after.fingerprint


def test_incomplete_fashion_mnist_says_what_it_wants(tmp_path: Path) -> None:
    write_idx(tmp_path / "data", zipped=True)
    (tmp_path / "data" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte"):
        open_dataset("fashion-mnist", tmp_path / "data")


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        idx(PIXELS)[:-1],
        idx(PIXELS) + b"x",
        idx(LABELS),
        b"\0\0\x08\x03" + b"\xff" * 12,
        gzip.compress(idx(PIXELS)),
    ],
)
def test_damaged_idx_is_named(tmp_path: Path, damaged: bytes) -> None:
    for name, encoded in (("a-idx3", damaged), ("b-idx3.gz", gzip.compress(damaged))):
        (tmp_path / name).write_bytes(encoded)
        with pytest.raises(InputError, match="idx3"):
            read_idx(tmp_path / name, 3)


def test_damaged_gzip_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(idx(PIXELS))
    flipped = whole[:100] + bytes([whole[100] ^ 255]) + whole[101:]
    for damaged in (whole[:-9], whole[:50], b"not gzip", flipped):
        (tmp_path / "a.gz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.gz"):
            read_idx(tmp_path / "a.gz", 3)


def test_labels_without_a_class_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "data", zipped=False)
    (tmp_path / "data/train-labels-idx1-ubyte").write_bytes(idx(LABELS + 1))
    with pytest.raises(InputError, match="the label 10"):
        open_dataset("fashion-mnist", tmp_path / "data")


def test_colour_becomes_ppm(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    raw = RawSplit(colours, np.array([1, 0, 1], np.int32))
    write_packed(
        tmp_path / "c.h5", kind="cifar10", classes=("a", "b"), splits={"train": encode(raw)}
    )
    train = open_packed(tmp_path / "c.h5").splits["train"]
    for sample in range(3):
        decoded = Image.open(io.BytesIO(train.read(sample).tobytes()))
        assert np.array_equal(np.asarray(decoded), colours[sample])
    assert train.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_that_is_not_there_says_what_it_wants(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=CIFAR_FOLDERS[name]):
        open_dataset(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_that_is_not_the_published_is_not_unpickled(tmp_path: Path, name: str) -> None:
    folder = tmp_path / CIFAR_FOLDERS[name]
    folder.mkdir()
    for file in CIFAR_FILES[name]:
        (folder / file).write_bytes(b"not the published file")
    for data in (tmp_path, folder):
        with pytest.raises(InputError, match="not as published"):
            open_dataset(name, data)


def test_home_that_cannot_be_written_is_one_sentence(tmp_path: Path, home: Path) -> None:
    write_idx(tmp_path / "data", zipped=True)
    home.write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot write|needs"):
        open_dataset("fashion-mnist", tmp_path / "data")


def test_packed_raw_images_check(tmp_path: Path) -> None:
    write_idx(tmp_path / "data", zipped=True)
    assert check_dataset("fashion-mnist", tmp_path / "data") == []
