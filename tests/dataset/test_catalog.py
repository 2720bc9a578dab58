"""Datasets are found by name, and the demo is what it says."""

import io
import subprocess
import sys
from importlib.resources import files

import h5py
import numpy as np
import pytest
from PIL import Image

from skd_cache.dataset.catalog import check_dataset, defaults, names, open_dataset
from skd_cache.dataset.demo import demo_file
from skd_cache.errors import InputError

DEMO_TRAIN = "e7ff68bb718d7a4a8d19aee425b6e8534b81bc5b4507f06e5e66e1031fe92e10"


def test_unknown_dataset_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean imagenet"):
        open_dataset("imagnet")
    with pytest.raises(InputError, match="there are cifar10, cifar100, demo"):
        open_dataset("zzz")


def test_every_name_has_sane_defaults() -> None:
    for name in names():
        chosen = defaults(name)
        assert chosen.policy in {"rrc-flip", "pad-crop-flip"}
        assert chosen.schedule in {"cosine", "step"}
        assert bool(chosen.milestones) == (chosen.schedule == "step")
        assert all(milestone < chosen.epochs for milestone in chosen.milestones)
        assert chosen.eval_resize >= chosen.size


def test_demo_takes_no_data() -> None:
    with pytest.raises(InputError, match="leave --data out"):
        open_dataset("demo", demo_file().parent)


def test_demo_is_small_and_carries_its_licence() -> None:
    assert demo_file().stat().st_size < 4_000_000
    notice = (files("skd_cache.dataset") / "demo" / "LICENSE").read_text(encoding="utf-8")
    assert "Zalando SE" in notice
    assert "Permission is hereby granted" in notice
    with h5py.File(demo_file()) as h5:
        assert h5.attrs["notice"] == notice


def test_demo_holds_as_many_of_each_class() -> None:
    dataset = open_dataset("demo")
    assert dataset.val is not None
    assert np.bincount(dataset.train.labels).tolist() == [600] * 10
    assert np.bincount(dataset.val.labels).tolist() == [100] * 10
    assert dataset.train.fingerprint == DEMO_TRAIN


def test_demo_images_are_whole_and_grey() -> None:
    assert check_dataset("demo") == []
    train = open_dataset("demo").train
    image = Image.open(io.BytesIO(train.read(0).tobytes()))
    assert (image.mode, image.size, image.format) == ("L", (28, 28), "PNG")
    assert (train.heights[0], train.widths[0]) == (28, 28)
    assert not train.fallback.any()
    assert train.describe(0).startswith("fashion-mnist-7000.h5: train/")


def test_opening_a_dataset_does_not_import_torch() -> None:
    code = (
        "import sys; from skd_cache.dataset.catalog import open_dataset; open_dataset('demo'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
