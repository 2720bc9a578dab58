"""The usual wrong folders are recognised, and the sentence says what to do."""

from pathlib import Path

import pytest

from skd_cache.dataset.catalog import open_dataset
from skd_cache.errors import InputError
from tests.dataset.dataset_images import write_image


def sorted_split(folder: Path) -> None:
    for name in ("n01440764", "n01443537"):
        write_image(folder / name / f"{name}_1.JPEG", 0)


def flat_split(folder: Path, count: int = 3) -> None:
    for number in range(count):
        write_image(folder / f"ILSVRC2012_val_{number:08d}.JPEG", number)


def test_sorted_imagenet_opens(tmp_path: Path) -> None:
    sorted_split(tmp_path / "train")
    sorted_split(tmp_path / "val")
    dataset = open_dataset("imagenet", tmp_path)
    assert dataset.train.classes == ("n01440764", "n01443537")
    assert dataset.val is not None
    assert dataset.defaults.size == 224


def test_flat_val_says_how_to_sort_it(tmp_path: Path) -> None:
    sorted_split(tmp_path / "train")
    flat_split(tmp_path / "val")
    with pytest.raises(InputError, match=r"val holds 3 images directly.*valprep\.sh"):
        open_dataset("imagenet", tmp_path)


def test_kaggles_archive_is_used_when_val_is_sorted(tmp_path: Path) -> None:
    inside = tmp_path / "ILSVRC/Data/CLS-LOC"
    sorted_split(inside / "train")
    sorted_split(inside / "val")
    (tmp_path / "ILSVRC/Annotations").mkdir()
    train = open_dataset("imagenet", tmp_path).train
    assert train.root == inside / "train"
    assert train.fingerprint == open_dataset("imagenet", inside).train.fingerprint


def test_kaggles_flat_val_points_to_its_answers(tmp_path: Path) -> None:
    inside = tmp_path / "ILSVRC/Data/CLS-LOC"
    sorted_split(inside / "train")
    flat_split(inside / "val")
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n")
    with pytest.raises(InputError, match=r"LOC_val_solution\.csv.*mv"):
        open_dataset("imagenet", tmp_path)


def test_one_split_given_names_the_folder_above(tmp_path: Path) -> None:
    sorted_split(tmp_path / "train")
    with pytest.raises(InputError, match=f"give the folder above it, {tmp_path}"):
        open_dataset("imagenet", tmp_path / "train")


@pytest.mark.parametrize("name", ["imagenet", "imagefolder"])
def test_missing_and_empty_folders_say_what_is_wanted(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere.*train/ and val/"):
        open_dataset(name, tmp_path / "nowhere")
    with pytest.raises(InputError, match="train/ and val/"):
        open_dataset(name, tmp_path)
    with pytest.raises(InputError, match="--data or SKD_CACHE_DATA"):
        open_dataset(name)
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="is empty"):
        open_dataset(name, tmp_path)


def test_wrong_folder_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(InputError, match=r"looked for .*CLS-LOC/train"):
        open_dataset("imagenet", tmp_path)


def test_class_folders_alone_are_training_without_validation(tmp_path: Path) -> None:
    sorted_split(tmp_path / "photos")
    dataset = open_dataset("imagefolder", tmp_path / "photos")
    assert (len(dataset.train), dataset.val) == (2, None)


def test_loose_images_are_no_imagefolder(tmp_path: Path) -> None:
    flat_split(tmp_path / "photos")
    with pytest.raises(InputError, match="3 images directly"):
        open_dataset("imagefolder", tmp_path / "photos")


def test_class_without_images_is_named(tmp_path: Path) -> None:
    sorted_split(tmp_path)
    (tmp_path / "n09999999").mkdir()
    with pytest.raises(InputError, match=r"n09999999 holds no image"):
        open_dataset("imagefolder", tmp_path)


def test_data_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sorted_split(tmp_path / "train")
    monkeypatch.setenv("SKD_CACHE_DATA", str(tmp_path))
    assert len(open_dataset("imagenet").train) == 2
    assert len(open_dataset("demo").train) == 6000
