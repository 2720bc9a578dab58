"""One file holds a whole dataset, and a hostile one is refused before it is trusted."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from skd_cache.dataset.catalog import check_dataset, open_dataset
from skd_cache.dataset.dataset import Dataset
from skd_cache.dataset.packed import check_free_disk, pack
from skd_cache.dataset.table import Table
from skd_cache.errors import DataError, InputError


@pytest.fixture
def packed(pets: Path, tmp_path: Path) -> Path:
    out = tmp_path / "pets.h5"
    pack(open_dataset("imagefolder", pets), out)
    return out


def assert_same(left: Dataset, right: Dataset) -> None:
    for ours, theirs in zip(left.splits.values(), right.splits.values(), strict=True):
        assert ours.fingerprint == theirs.fingerprint
        assert ours.classes == theirs.classes
        for column in Table.__dataclass_fields__:
            assert np.array_equal(getattr(ours, column), getattr(theirs, column))
        for sample in range(len(ours)):
            assert ours.path(sample) == theirs.path(sample)
            assert np.array_equal(ours.read(sample), theirs.read(sample))


def test_packing_changes_nothing_but_the_place(pets: Path, packed: Path) -> None:
    opened = open_dataset(str(packed))
    assert_same(open_dataset("imagefolder", pets), opened)
    assert opened.train.describe(1) == "pets.h5: train/cat/b.jpg"
    assert (opened.name, opened.kind) == ("pets.h5", "imagefolder")


def test_packed_file_can_be_packed_again(packed: Path, tmp_path: Path) -> None:
    pack(open_dataset(str(packed)), tmp_path / "again.h5")
    assert_same(open_dataset(str(packed)), open_dataset(str(tmp_path / "again.h5")))


def test_packed_file_stands_in_for_the_folder(pets: Path, packed: Path) -> None:
    assert_same(open_dataset("imagefolder", pets), open_dataset("imagefolder", packed))


def test_dataset_without_validation_is_packed_without(pets: Path, tmp_path: Path) -> None:
    pack(open_dataset("imagefolder", pets / "train"), tmp_path / "train.h5")
    opened = open_dataset(str(tmp_path / "train.h5"))
    assert opened.val is None
    assert opened.train.fingerprint == open_dataset("imagefolder", pets).train.fingerprint


def test_existing_file_is_not_overwritten(pets: Path, packed: Path) -> None:
    before = packed.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        pack(open_dataset("imagefolder", pets), packed)
    assert packed.read_bytes() == before


def test_file_that_changed_since_indexed_stops_packing_and_leaves_nothing(
    pets: Path, tmp_path: Path
) -> None:
    dataset = open_dataset("imagefolder", pets)
    file = pets / "train/cat/a.png"
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(DataError, match=r"a\.png"):
        pack(dataset, tmp_path / "pets.h5")
    assert not list(tmp_path.glob("*pets.h5*"))


def test_disk_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs 1000000000\.0 GB but"):
        check_free_disk(tmp_path / "sub" / "big.h5", 10**18)


def test_folder_that_cannot_be_written_is_one_sentence(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot write"):
        pack(open_dataset("imagefolder", pets), tmp_path / "file" / "pets.h5")


def test_check_finds_bytes_that_changed_in_the_file(packed: Path) -> None:
    with h5py.File(packed, "r+") as h5:
        h5["train/data"][10] ^= 255
    (bad,) = check_dataset(str(packed))
    assert bad.where == "pets.h5: train/cat/a.png"


Damage = Callable[[h5py.File], None]


def put(name: str, row: int, value: int) -> Damage:
    def damage(h5: h5py.File) -> None:
        h5[name][row] = value

    return damage


def replaced(name: str, **options: object) -> Damage:
    """The same numbers, stored in another way."""

    def damage(h5: h5py.File) -> None:
        values = h5[name][:]
        del h5[name]
        h5.create_dataset(name, data=values, **options)

    return damage


def removed(name: str) -> Damage:
    return lambda h5: h5.__delitem__(name)


def linked(name: str, link: object) -> Damage:
    def damage(h5: h5py.File) -> None:
        if name in h5:
            h5.move(name, "elsewhere")
        h5[name] = link

    return damage


def external(h5: h5py.File) -> None:
    size = h5["train/data"].size
    del h5["train/data"]
    h5.create_dataset("train/data", (size,), np.uint8, external=[("/etc/passwd", 0, size)])


def virtual(h5: h5py.File) -> None:
    layout = h5py.VirtualLayout((5,), np.int32)
    layout[:] = h5py.VirtualSource("/nowhere.h5", "label", (5,))
    del h5["train/label"]
    h5.create_virtual_dataset("train/label", layout)


def group_is_array(h5: h5py.File) -> None:
    del h5["val"]
    h5["val"] = np.zeros(3)


def resized(name: str, rows: int) -> Damage:
    def damage(h5: h5py.File) -> None:
        values = np.resize(h5[name][:], rows)
        del h5[name]
        h5[name] = values

    return damage


def bomb(h5: h5py.File) -> None:
    h5["train/height"][0] = h5["train/width"][0] = 65_535


def attribute(name: str, value: object) -> Damage:
    return lambda h5: h5.attrs.__setitem__(name, value)


def text(h5: h5py.File) -> None:
    del h5["train/label"]
    h5.create_dataset("train/label", data=["cat"] * 5, dtype=h5py.string_dtype())


HOSTILE: dict[str, Damage] = {
    "label over the classes": put("train/label", 1, 2),
    "label under zero": put("val/label", 0, -1),
    "height of nothing": put("train/height", 0, 0),
    "width over the bound": put("train/width", 0, 70_000),
    "too many pixels": bomb,
    "length that is not its piece's": put("train/length", 2, 3),
    "length under zero": put("train/length", 2, -(2**62)),
    "offset going back": put("train/offset", 2, 0),
    "offset behind the end": put("train/offset", 5, 2**40),
    "offset before the start": put("train/offset", 0, -(2**63)),
    "path offset far outside": put("train/path_offset", 1, 2**62),
    "path offset below zero": put("train/path_offset", 1, -(2**62)),
    "path without an end": put("train/path", 9, ord("x")),
    "path with two ends": put("train/path", 2, 0),
    "fallback that is no yes or no": put("train/fallback", 0, 7),
    "chunked": replaced("train/data", chunks=(16,)),
    "compressed": replaced("train/label", chunks=(2,), compression="gzip"),
    "another type": replaced("train/label", dtype=np.int64),
    "another byte order": replaced("train/label", dtype=">i4"),
    "text for numbers": text,
    "outside storage": external,
    "virtual": virtual,
    "link to a file": linked("train", h5py.ExternalLink("/etc/passwd", "/")),
    "link to elsewhere": linked("train/data", h5py.SoftLink("/elsewhere")),
    "column missing": removed("train/content"),
    "column too short": resized("train/content", 4),
    "rows of nothing": resized("train/label", 0),
    "training missing": removed("train"),
    "classes missing": removed("classes"),
    "classes without an end": put("classes", 7, ord("x")),
    "split that is an array": group_is_array,
    "later version": attribute("version", 2),
    "version that is text": attribute("version", "1"),
    "another format": attribute("format", "photographs"),
    "format that is a number": attribute("format", 3.5),
    "unknown kind": attribute("kind", "paintings"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_file_is_refused(packed: Path, what: str) -> None:
    with h5py.File(packed, "r+") as h5:
        HOSTILE[what](h5)
    with pytest.raises(InputError, match=r"pets\.h5"):
        open_dataset(str(packed))


@pytest.mark.parametrize("keep", [0, 7, 100, 2000, -100])
def test_file_that_is_cut_off_is_refused(packed: Path, keep: int) -> None:
    packed.write_bytes(packed.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"pets\.h5"):
        open_dataset(str(packed))


def test_no_flipped_byte_ends_in_anything_but_a_sentence(packed: Path) -> None:
    """Every image of a damaged file is within it, or the file is refused."""
    whole = packed.read_bytes()
    draws = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draws.integers(len(whole))] ^= int(draws.integers(1, 256))
        packed.write_bytes(damaged)
        try:
            opened = open_dataset(str(packed))
        except InputError:
            continue
        for images in opened.splits.values():
            for sample in range(len(images)):
                assert len(images.read(sample)) == images.lengths[sample]
                images.describe(sample)


def test_missing_file_and_folder_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        open_dataset(str(tmp_path / "none.h5"))
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(InputError, match=r"folder\.h5"):
        open_dataset(str(tmp_path / "folder.h5"))


def test_packed_file_is_read_where_it_lies(packed: Path, tmp_path: Path) -> None:
    """Nothing but the map is held: another file of the same name does not show through."""
    train = open_dataset(str(packed)).train
    before = train.read(0).tobytes()
    shutil.move(packed, tmp_path / "moved.h5")
    assert train.read(0).tobytes() == before
