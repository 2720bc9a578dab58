"""What a teacher answers."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from skd_cache import models
from skd_cache.models.architecture import create_model
from skd_cache.teacher.trial import class_weight

CPU = torch.device("cpu")


def test_logits_are_those_of_the_network_on_normalised_images(network, weights, images, load):
    teacher = load("resnet20", weights, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    prepare = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.1, 0.2, 0.3), (0.5, 0.6, 0.7)),
        ]
    )
    with torch.inference_mode():
        expected = network(prepare(images.permute(0, 3, 1, 2)))
    logits = teacher.logits(images)
    assert (logits.dtype, logits.shape) == (torch.float32, (5, 10))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_is_frozen(weights, images, load):
    teacher = load("resnet20", weights)
    before = teacher.logits(images)
    assert not before.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert torch.equal(teacher.logits(images), before)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_float32_logits_close_to_the_exact_ones(
    weights, images, load, precision
):
    exact = load("resnet20", weights).logits(images)
    half = load("resnet20", weights, precision=precision).logits(images)
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert torch.linalg.norm(half - exact) < 0.05 * torch.linalg.norm(exact)


def test_the_forward_pass_leaves_the_tf32_setting_alone(weights, images, load):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    load("resnet20", weights).logits(images)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_2", "resnet18", "timm/resnet18"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_class_weight_is_that_of_the_last_linear(name, precision):
    model = create_model(name, 10).eval()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    found = class_weight(model, 32, precision, CPU)
    assert found.dtype == np.float32
    assert np.array_equal(found, last.weight.detach().numpy())


def test_a_network_that_ends_otherwise_has_no_class_weight():
    squeezenet = create_model("squeezenet1_1", 10).eval()
    softmax = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10), nn.Softmax(1))
    assert class_weight(squeezenet, 32, "float32", CPU) is None
    assert class_weight(softmax, 32, "float32", CPU) is None


def test_a_loaded_teacher_carries_its_class_weight(network, weights, load):
    assert np.array_equal(load("resnet20", weights).class_weight, network.fc.weight.detach())


def test_the_size_asked_for_goes_before_the_dataset(weights, load):
    assert load("resnet20", weights).size == 16
    assert load("resnet20", weights, size=24).size == 24
    assert models.names()  # the small networks have no size of their own
