from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from skd_cache.dataset.dataset import Dataset
from skd_cache.store import Cache
from tests.distill.workshop import make_cache, make_dataset


@pytest.fixture(autouse=True)
def _one_thread():
    """Layers this small only wait for each other's threads, long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return make_dataset()


@pytest.fixture(scope="session")
def cache(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make_cache(tmp_path_factory.mktemp("caches"), dataset.train)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "student.safetensors")


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return ours.keys() == theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours)
