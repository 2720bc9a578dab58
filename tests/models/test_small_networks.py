"""The small networks are those of the literature."""

import pytest
import torch

from skd_cache import models

# Millions of parameters at 100 classes, as the CIFAR-100 distillation literature states them.
SIZES = {
    "resnet20": 0.28,
    "resnet32": 0.47,
    "resnet56": 0.86,
    "resnet8x4": 1.23,
    "resnet32x4": 7.43,
    "wrn_16_2": 0.70,
    "wrn_40_1": 0.57,
    "wrn_40_2": 2.26,
}


def test_the_names_are_those_of_the_literature():
    assert set(models.names()) == set(SIZES)


@pytest.mark.parametrize(("name", "millions"), SIZES.items())
def test_sizes_are_the_published_ones(name, millions):
    model = models.create(name, num_classes=100)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ["resnet20", "resnet8x4", "wrn_16_2", "wrn_40_1"])
def test_any_number_of_channels_and_any_size(name, channels):
    model = models.create(name, num_classes=7, in_channels=channels).eval()
    for size in (28, 32):
        assert model(torch.zeros(1, channels, size, size)).shape == (1, 7)


@pytest.mark.parametrize("name", models.names())
def test_logits_and_gradients_are_finite_at_the_start(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.create(name, num_classes=10)
        logits = model(torch.randn(4, 3, 8, 8))
    logits.logsumexp(1).sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_the_same_generator_gives_the_same_network():
    states = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            states.append(models.create("resnet20", num_classes=10).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
