"""The small networks of the CIFAR distillation literature, by their names there."""

from collections.abc import Callable
from functools import partial

from torch import nn

from skd_cache.models.resnet import CifarResNet
from skd_cache.models.wide_resnet import WideResNet

_THIN = (16, 16, 32, 64)
_TIMES_FOUR = (32, 64, 128, 256)

_FACTORIES: dict[str, Callable[..., nn.Module]] = {
    "resnet20": partial(CifarResNet, 20, _THIN),
    "resnet32": partial(CifarResNet, 32, _THIN),
    "resnet56": partial(CifarResNet, 56, _THIN),
    "resnet8x4": partial(CifarResNet, 8, _TIMES_FOUR),
    "resnet32x4": partial(CifarResNet, 32, _TIMES_FOUR),
    "wrn_16_2": partial(WideResNet, 16, 2),
    "wrn_40_1": partial(WideResNet, 40, 1),
    "wrn_40_2": partial(WideResNet, 40, 2),
}


def names() -> list[str]:
    """The names :func:`create` knows."""
    return list(_FACTORIES)


def create(name: str, num_classes: int, in_channels: int = 3) -> nn.Module:
    """Build the small network called ``name``, freshly initialised from torch's generator.

    Maps images ``[B, in_channels, H, W]`` float to logits ``[B, num_classes]``.

    Raises:
        KeyError: if ``name`` is not one of :func:`names`.
    """
    return _FACTORIES[name](num_classes=num_classes, in_channels=in_channels)
