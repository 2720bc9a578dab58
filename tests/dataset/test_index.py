"""A folder dataset is indexed once and never goes stale silently."""

import os
from pathlib import Path

import numpy as np
import pytest
import xxhash

from skd_cache.dataset.catalog import check_dataset, open_dataset
from skd_cache.dataset.images import ImageSet
from skd_cache.errors import InputError
from tests.dataset.dataset_images import LONG_AGO, write_image


def paths(images: ImageSet) -> list[str]:
    return [images.path(sample) for sample in range(len(images))]


def test_samples_are_ordered_by_class_then_path(pets: Path) -> None:
    train = open_dataset("imagefolder", pets).train
    assert train.classes == ("cat", "dog")
    assert paths(train) == ["cat/a.png", "cat/b.jpg", "cat/deep/c.JPG", "dog/1.bmp", "dog/2.webp"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1]


def test_order_is_bytewise_whatever_the_names(tmp_path: Path) -> None:
    names = ["B", "a", "a-b", "é", "z", "Ä"]
    for name in names:
        write_image(tmp_path / "odd" / name / "1.png", 0)
    train = open_dataset("imagefolder", tmp_path / "odd").train
    assert train.classes == tuple(sorted(names, key=lambda name: name.encode()))
    assert paths(train) == [f"{name}/1.png" for name in train.classes]


def test_columns_tell_the_truth_about_every_file(pets: Path) -> None:
    dataset = open_dataset("imagefolder", pets)
    assert dataset.val is not None
    for images, size in ((dataset.train, (16, 24)), (dataset.val, (20, 30))):
        for sample in range(len(images)):
            encoded = Path(images.describe(sample)).read_bytes()
            assert (images.heights[sample], images.widths[sample]) == size
            assert images.lengths[sample] == len(encoded)
            assert images.contents[sample] == xxhash.xxh3_64_intdigest(encoded)
            assert images.read(sample).tobytes() == encoded
    assert (dataset.train.name, dataset.val.name) == ("imagefolder/train", "imagefolder/val")


def test_labels_of_validation_are_those_of_training(pets: Path) -> None:
    (pets / "val/cat/x.png").unlink()
    (pets / "val/cat").rmdir()
    val = open_dataset("imagefolder", pets).val
    assert val is not None
    assert val.labels.tolist() == [1]


def test_unknown_class_in_validation_is_refused(pets: Path) -> None:
    write_image(pets / "val/cow/1.png", 0)
    with pytest.raises(InputError, match="cow"):
        open_dataset("imagefolder", pets)


def test_fingerprint_follows_path_length_and_label(pets: Path, tmp_path: Path) -> None:
    before = open_dataset("imagefolder", pets).train.fingerprint
    pets.rename(tmp_path / "moved")
    pets = tmp_path / "moved"
    assert open_dataset("imagefolder", pets).train.fingerprint == before
    (pets / "train/dog/1.bmp").rename(pets / "train/dog/0.bmp")
    assert open_dataset("imagefolder", pets).train.fingerprint != before


def test_unchanged_files_are_not_read_again(pets: Path) -> None:
    """A change that size and time hide shows that the file was not opened."""
    file = pets / "train/cat/a.png"
    first = open_dataset("imagefolder", pets).train
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, (LONG_AGO, LONG_AGO))
    again = open_dataset("imagefolder", pets).train
    assert np.array_equal(first.contents, again.contents)


def test_changed_new_and_removed_files_are_seen(pets: Path) -> None:
    open_dataset("imagefolder", pets)
    write_image(pets / "train/cat/a.png", 77, (50, 40))
    write_image(pets / "train/cow/new.png", 78)
    (pets / "train/dog/1.bmp").unlink()
    train = open_dataset("imagefolder", pets).train
    assert train.classes == ("cat", "cow", "dog")
    assert paths(train)[-2:] == ["cow/new.png", "dog/2.webp"]
    assert train.labels.tolist() == [0, 0, 0, 1, 2]
    assert (train.heights[0], train.widths[0]) == (40, 50)


def test_change_within_the_clocks_resolution_is_seen(pets: Path) -> None:
    """Same size, same time to the nanosecond, rewritten just after the index was made."""
    file = pets / "train/dog/1.bmp"
    os.utime(file)
    time = file.stat().st_mtime_ns
    before = open_dataset("imagefolder", pets).train
    write_image(file, 99)
    os.utime(file, ns=(time, time))
    after = open_dataset("imagefolder", pets).train
    assert before.contents[3] != after.contents[3]


def test_index_goes_on_where_a_failed_one_stopped(pets: Path) -> None:
    bad, good = pets / "train/dog/bad.jpg", pets / "train/cat/a.png"
    bad.write_text("not an image")
    content = xxhash.xxh3_64_intdigest(good.read_bytes())
    with pytest.raises(InputError, match=r"bad\.jpg"):
        open_dataset("imagefolder", pets)
    good.write_bytes(good.read_bytes()[::-1])  # unreadable now: reading it again would fail
    os.utime(good, (LONG_AGO, LONG_AGO))
    bad.unlink()
    train = open_dataset("imagefolder", pets).train
    assert train.contents[0] == content


def test_damaged_index_is_made_again(pets: Path, home: Path) -> None:
    before = open_dataset("imagefolder", pets).train
    (index,) = (home / "index").iterdir()
    index.write_bytes(index.read_bytes()[:1000])
    assert open_dataset("imagefolder", pets).train.fingerprint == before.fingerprint


def test_nothing_but_the_index_is_left_behind(pets: Path, home: Path) -> None:
    open_dataset("imagefolder", pets)
    open_dataset("imagefolder", pets)
    assert len(list(home.rglob("*.*"))) == 1


def test_bad_files_stop_the_index_and_are_all_listed(pets: Path) -> None:
    good = (pets / "train/cat/b.jpg").read_bytes()
    (pets / "train/cat/empty.jpg").touch()
    (pets / "train/cat/text.jpg").write_text("hello")
    (pets / "train/cat/truncated.jpg").write_bytes(good[:-60])
    (pets / "val/dog/gone.png").symlink_to(pets / "nowhere")
    with pytest.raises(InputError, match=r"empty\.jpg and 2 more .* --check"):
        open_dataset("imagefolder", pets)
    bad = check_dataset("imagefolder", pets)
    assert [Path(one.where).name for one in bad] == [
        "empty.jpg",
        "text.jpg",
        "truncated.jpg",
        "gone.png",
    ]
    assert all(one.reason for one in bad)
    assert "empty" in bad[0].reason
    assert "truncated" in bad[2].reason


def test_check_of_good_images_finds_nothing(pets: Path) -> None:
    assert check_dataset("imagefolder", pets) == []


def test_file_that_changed_after_opening_is_named(pets: Path) -> None:
    train = open_dataset("imagefolder", pets).train
    with (pets / "train/cat/a.png").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"a\.png.*run the command again"):
        train.read(0)
    (pets / "train/cat/a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png"):
        train.read(0)


def test_hidden_and_other_files_are_passed_over(pets: Path) -> None:
    (pets / "train/cat/._a.png").write_text("finder")
    (pets / "train/cat/notes.txt").write_text("about cats")
    (pets / "train/.cache").mkdir()
    os.mkfifo(pets / "train/cat/pipe.jpg")
    assert len(open_dataset("imagefolder", pets).train) == 5


def test_names_that_are_not_text_are_read_and_shown(pets: Path) -> None:
    odd = os.fsencode(pets / "train/cat") + b"/\xff\n.png"
    (pets / "train/cat/a.png").rename(os.fsdecode(odd))
    train = open_dataset("imagefolder", pets).train
    described = train.describe(2)
    assert len(train.read(2)) == train.lengths[2]
    assert described.isprintable()
    assert described.encode().endswith(rb"\xff\n.png")


def test_cache_home_that_cannot_be_written_is_one_sentence(pets: Path, home: Path) -> None:
    home.write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot write"):
        open_dataset("imagefolder", pets)
