"""A teacher from its name and its weights."""

import difflib
from pathlib import Path
from typing import cast, get_args

import torch
from torch import nn

from skd_cache.device import open_device
from skd_cache.errors import InputError
from skd_cache.models.architecture import create_model
from skd_cache.teacher.forward import Colour, Precision, Teacher
from skd_cache.teacher.identity import weights_digest
from skd_cache.teacher.published import (
    Published,
    load_file,
    load_from_factory,
    load_published,
    published_weights,
)
from skd_cache.teacher.trial import class_weight, require_answer


def load_teacher(
    name: str,
    weights: str | None = None,
    *,
    classes: int,
    size: int | None = None,
    mean: Colour,
    std: Colour,
    default_size: int,
    precision: str = "float32",
    device: str = "cpu",
) -> Teacher:
    """Load a trained network, see that it answers, and freeze it.

    Args:
        name: what :func:`skd_cache.models.architecture.create_model` knows.
        weights: a safetensors or state_dict file, or a published name; None for the default of the
            published ones, or for what a factory gives its network.
        classes: how many the dataset has.
        size: pixels of the images it sees; None for what was published with the weights.
        mean: of the dataset, per channel, where nothing was published with the weights.
        std: likewise.
        default_size: of the dataset, likewise.
        precision: ``float32``, or the dtype of autocast, ``bfloat16`` or ``float16``.
        device: ``cpu``, ``cuda``, ``cuda:1``, …

    Raises:
        InputError: no such network, weights, precision or device, or they do not fit together.
    """
    if precision not in get_args(Precision):
        raise InputError(f"No precision is called '{precision}': {', '.join(get_args(Precision))}.")
    where = open_device(device)
    with torch.random.fork_rng(devices=[]):  # building draws initial weights, soon overwritten
        torch.manual_seed(0)
        model, known = _load_model(name, weights, classes)
    size = size or known.size or default_size
    digest = weights_digest(model)
    exact = cast("Precision", precision)
    model = model.to(where).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    require_answer(model, name, size, classes, exact, where)
    return Teacher(
        architecture=name,
        weights=digest,
        model=model,
        classes=classes,
        size=size,
        mean=known.mean or mean,
        std=known.std or std,
        precision=exact,
        device=where,
        class_weight=class_weight(model, size, exact, where),
        resize=known.resize,
        published_top1=known.top1,
        published_dataset=known.dataset,
    )


def _load_model(name: str, weights: str | None, classes: int) -> tuple[nn.Module, Published]:
    published = published_weights(name)
    if weights is None and published:
        return load_published(name, published[0], classes)
    if weights is None and ":" in name:
        return load_from_factory(name, classes)
    if weights is None:
        create_model(name, classes)  # an unknown name is the better complaint
        raise InputError(f"No weights are published for '{name}': give --teacher-weights a file.")
    if weights in published:
        return load_published(name, weights, classes)
    if Path(weights).exists():
        return load_file(name, Path(weights), classes)
    create_model(name, classes)
    near = difflib.get_close_matches(weights, published, 3, 0.5) or published[:6]
    hint = f"published for {name}: {', '.join(near)}" if near else f"none are published for {name}"
    raise InputError(
        f"--teacher-weights '{weights}' is neither a file nor a published name ({hint})."
    )
