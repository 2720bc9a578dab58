import pytest
import torch

from skd_cache import models
from skd_cache.teacher import load_teacher

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def load():
    """``load_teacher`` for a dataset of ten classes at 16 pixels, unless told otherwise."""

    def call(name, weights=None, **options):
        dataset = {"classes": 10, "mean": MEAN, "std": STD, "default_size": 16}
        weights = None if weights is None else str(weights)
        return load_teacher(name, weights, **(dataset | options))

    return call


@pytest.fixture
def network():
    """A resnet20 of ten classes whose batch norms have seen something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = models.create("resnet20", num_classes=10)
        model(torch.randn(8, 3, 16, 16))
    return model.eval()


@pytest.fixture
def weights(network, tmp_path):
    """The network's state_dict in a file."""
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def images():
    """Five images of noise, ``[5, 16, 16, 3]`` uint8."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(256, (5, 16, 16, 3), generator=generator, dtype=torch.uint8)
