"""Which backend is opened, and what is said when it cannot be."""

import subprocess
import sys

import pytest
from PIL import Image

from skd_cache.dataset.images import ImageSet
from skd_cache.errors import InputError
from skd_cache.pixels import BACKENDS, cores, open_backend
from skd_cache.replay import Policy
from tests.pixels.conftest import Folder, encode


@pytest.fixture
def images(folder: Folder) -> ImageSet:
    return folder({"0.png": encode(Image.new("RGB", (8, 8)), "PNG")})


def test_dali_is_opened_where_it_is_installed(images: ImageSet) -> None:
    assert open_backend(None, images, 8, Policy()).name == "dali"
    assert [open_backend(name, images, 8, Policy()).name for name in BACKENDS] == [*BACKENDS]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "pillow"}, "dali, reference"),
        ({"name": "dali", "decoder": "tpu"}, "cpu, gpu"),
        ({"name": "dali", "decoder": "gpu"}, "needs a CUDA device, and the device is cpu"),
        ({"name": "reference", "decoder": "gpu", "device": "cuda"}, "decodes on the CPU"),
    ],
)
def test_what_cannot_be_opened_is_said(options: dict, said: str, images: ImageSet) -> None:
    with pytest.raises(InputError, match=said):
        open_backend(images=images, size=8, policy=Policy(), **options)


def test_without_dali_the_reference_is_opened_and_asking_for_dali_names_the_extras() -> None:
    code = """
import sys
import numpy as np
sys.modules["nvidia.dali"] = None  # as where it is not installed
from skd_cache.errors import InputError
from skd_cache.pixels import open_backend
from skd_cache.replay import Policy
print(open_backend(None, None, 8, Policy()).name)
try:
    open_backend("dali", None, 8, Policy())
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, said = done.stdout.splitlines()
    assert name == "reference"
    assert "cuda13" in said
    assert "cuda12" in said


def test_cores_are_those_this_process_may_use() -> None:
    assert cores() >= 1
