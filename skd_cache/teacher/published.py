"""Weights that come under a name, and what was published with them."""

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import nn

from skd_cache.errors import InputError
from skd_cache.models.architecture import create_model
from skd_cache.teacher.checkpoint import load_weights, read_weights
from skd_cache.teacher.identity import weights_digest

Colour = tuple[float, float, float]

_SHIPPED = {"wrn_16_2": {"demo": "wrn_16_2-fashion-mnist.safetensors"}}


@dataclass(frozen=True)
class Published:
    """What is known of weights besides themselves; None where nothing is."""

    size: int | None = None  # pixels
    resize: int | None = None  # pixels of the shorter side before the centre crop, to evaluate
    mean: Colour | None = None  # per channel, of pixels in 0 to 1
    std: Colour | None = None
    top1: float | None = None  # 0 to 1
    dataset: str | None = None  # where top1 was measured


def published_weights(architecture: str) -> list[str]:
    """The names of the weights published for a network, the default one first."""
    if architecture in _SHIPPED:
        return list(_SHIPPED[architecture])
    if architecture.startswith("timm/"):
        return _timm_tags(architecture.removeprefix("timm/"))
    if architecture in torchvision.models.list_models(module=torchvision.models):
        weights = torchvision.models.get_model_weights(architecture)
        default = getattr(weights, "DEFAULT", None)
        return sorted((one.name for one in weights), key=lambda name: weights[name] is not default)
    return []


def load_published(architecture: str, name: str, classes: int) -> tuple[nn.Module, Published]:
    """The network with the published weights ``name``, downloaded where they are not here yet.

    Raises:
        InputError: they are for another number of classes, or cannot be downloaded.
    """
    if architecture in _SHIPPED:
        path = Path(__file__).parent / "weights" / _SHIPPED[architecture][name]
        return load_file(architecture, path, classes)
    if architecture.startswith("timm/"):
        return _load_timm(architecture.removeprefix("timm/"), name, classes)
    return _load_torchvision(architecture, name, classes)


def load_file(architecture: str, path: Path, classes: int) -> tuple[nn.Module, Published]:
    """The network with the weights in a file.

    A safetensors file may say in its metadata what was measured: ``top1`` in per cent, and
    ``dataset``. A network's ``pretrained_cfg`` counts as in :func:`load_from_factory`.

    Raises:
        InputError: no such file, or weights that do not fit.
    """
    state, metadata = read_weights(path)
    model = create_model(architecture, classes)
    load_weights(model, state, classes, f"The weights in '{path}'")
    known = _from_config(model, classes)
    try:
        top1 = float(metadata["top1"]) / 100
    except (KeyError, ValueError):
        top1 = None
    return model, replace(known, top1=top1, dataset=metadata.get("dataset"))


def load_from_factory(architecture: str, classes: int) -> tuple[nn.Module, Published]:
    """The network with the weights its factory gives it.

    Where the network has a ``pretrained_cfg`` as timm's have, its ``mean``, ``std`` and
    ``input_size`` say how it wants images.

    Raises:
        InputError: the factory leaves weights to chance.
    """
    model = create_model(architecture, classes)
    torch.manual_seed(1)
    other = create_model(architecture, classes)
    if weights_digest(model) != weights_digest(other):
        raise InputError(
            f"'{architecture}' initialises its network at random: give --teacher-weights, or let "
            "the factory load them."
        )
    return model, _from_config(model, classes)


def _load_torchvision(architecture: str, name: str, classes: int) -> tuple[nn.Module, Published]:
    weights = torchvision.models.get_model_weights(architecture)[name]
    _require_classes(f"{architecture} with {name}", len(weights.meta["categories"]), classes)
    try:
        model = torchvision.models.get_model(architecture, weights=weights)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: a download cut short
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise InputError(
            f"The weights {name} of {architecture} cannot be downloaded ({error}): fetch "
            f"{weights.url} by hand and put it into '{folder}'."
        ) from error
    transforms = weights.transforms()
    dataset, metrics = next(iter(weights.meta["_metrics"].items()))
    return model, Published(
        size=transforms.crop_size[0],
        resize=transforms.resize_size[0],
        mean=_colour(transforms.mean),
        std=_colour(transforms.std),
        top1=metrics["acc@1"] / 100,
        dataset=dataset,
    )


def _timm_tags(name: str) -> list[str]:
    if importlib.util.find_spec("timm") is None:
        return []
    import timm  # optional, and slow to import

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        return []
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*")]
    config = timm.get_pretrained_cfg(architecture)
    default = tag or (config and config.tag)
    return sorted(tags, key=lambda one: one != default)


def _load_timm(name: str, tag: str, classes: int) -> tuple[nn.Module, Published]:
    import timm

    tagged = ".".join(part for part in (name.partition(".")[0], tag) if part)
    config = timm.get_pretrained_cfg(tagged, allow_unregistered=False)
    if config is None:
        raise InputError(f"timm does not know the weights of timm/{tagged}.")
    _require_classes(f"timm/{tagged}", config.num_classes, classes)
    try:
        model = timm.create_model(tagged, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"The weights of timm/{tagged} cannot be downloaded ({reason}): fetch "
            f"https://huggingface.co/{config.hf_hub_id} by hand and give its model.safetensors as "
            "--teacher-weights."
        ) from error
    return model, _from_config(model, classes)


def _require_classes(weights: str, known: int, classes: int) -> None:
    if known != classes:
        raise InputError(f"{weights} knows {known} classes; the dataset has {classes}.")


def _from_config(model: nn.Module, classes: int) -> Published:
    """What a network says of itself in ``pretrained_cfg``, as timm's do.

    Where that is of weights for another number of classes, nothing: these are not they.
    """
    config: Any = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or config.get("num_classes", classes) != classes:
        return Published()
    size = config["input_size"][-1] if config.get("input_size") else None
    share = config.get("crop_pct")
    return Published(
        size=size,
        resize=math.floor(size / share) if size and share else None,
        mean=_colour(config["mean"]) if "mean" in config else None,
        std=_colour(config["std"]) if "std" in config else None,
    )


def _colour(values: Any) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
