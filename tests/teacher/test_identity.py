"""The same weights have the same identity wherever they come from."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from skd_cache import models
from skd_cache.teacher import weights_digest


def test_the_digest_is_the_documented_one():
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0]]))
        layer.bias.fill_(0.5)
    expected = hashlib.sha256(
        b'["bias","float32",[1]]\n' + bytes.fromhex("0000003f")
        + b'["weight","float32",[1,2]]\n' + bytes.fromhex("0000803f000000c0")
    )  # fmt: skip
    assert weights_digest(layer) == expected.hexdigest()


def test_a_pickled_and_a_safetensors_file_of_the_same_weights_are_the_same(
    network, weights, tmp_path, load
):
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    first, second = load("resnet20", weights), load("resnet20", tmp_path / "weights.safetensors")
    assert first.weights == second.weights == weights_digest(network)


@pytest.mark.parametrize("wrap", ["state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_what_training_scripts_wrap_around_weights_does_not_count(
    network, tmp_path, load, wrap, prefix
):
    state = {prefix + name: value for name, value in network.state_dict().items()}
    torch.save({wrap: state, "epoch": 3, "lr": 0.1}, tmp_path / "checkpoint.pth")
    assert load("resnet20", tmp_path / "checkpoint.pth").weights == weights_digest(network)


def test_memory_format_and_the_count_of_batches_do_not_count(network):
    before = weights_digest(network)
    network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked += 5
    assert weights_digest(network) == before


@pytest.mark.parametrize("part", ["conv", "running_mean", "bias"])
def test_any_number_that_changes_answers_counts(network, part):
    before = weights_digest(network)
    name = next(name for name in network.state_dict() if part in name)
    network.state_dict()[name].view(-1)[0] += 1e-3
    assert weights_digest(network) != before


def test_names_and_dtypes_count():
    digests = {weights_digest(nn.Sequential(nn.Linear(3, 2)))}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
    digests = {
        weights_digest(network)
        for network in (layer, nn.Sequential(layer), nn.ModuleDict({"a": layer}))
    }
    assert len(digests | {weights_digest(layer.double())}) == 4


def test_scalars_and_halves_can_be_digested():
    model = nn.ParameterDict({"a": torch.tensor(1.5), "b": torch.ones(3, dtype=torch.bfloat16)})
    assert len(weights_digest(model)) == 64


def test_loading_leaves_the_global_generator_alone(weights, load):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    load("resnet20", weights)
    assert torch.equal(torch.rand(3), expected)


def test_every_small_network_can_be_digested():
    digests = {weights_digest(models.create(name, num_classes=10)) for name in models.names()}
    assert len(digests) == len(models.names())
