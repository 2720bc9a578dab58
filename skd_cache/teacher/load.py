"""A teacher from its name and its weights, or several."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import torch
from torch import nn

from skd_cache.device import open_device
from skd_cache.errors import InputError
from skd_cache.models.architecture import create_model
from skd_cache.teacher.ensemble import Ensemble
from skd_cache.teacher.forward import Colour, Precision, Teacher
from skd_cache.teacher.identity import weights_digest
from skd_cache.teacher.program import PROGRAM, load_program
from skd_cache.teacher.published import (
    Published,
    load_file,
    load_from_factory,
    load_published,
    published_weights,
)
from skd_cache.teacher.trial import class_weight, require_answer

DEFAULT = "default"
"""Stands for no choice of weights where a choice is made for other teachers."""

MAX_MEMBERS = 16


@dataclass(frozen=True)
class _Loaded:
    """A network on its device, and what is known of it before it has answered."""

    architecture: str
    weights: str
    model: nn.Module
    known: Published


def load_ensemble(
    names: Sequence[str],
    weights: Sequence[str] = (),
    *,
    classes: int,
    size: int | Sequence[int] | None = None,
    mean: Colour,
    std: Colour,
    default_size: int,
    precision: str = "float32",
    device: str = "cpu",
) -> Ensemble:
    """Load one teacher or several, each as :func:`load_teacher` does.

    Args:
        names: of each.
        weights: of each in the same order, ``default`` where nothing is chosen; or none at all.
        classes: as :func:`load_teacher` takes them, and what follows too.
        size: of all, or of each in the same order.
        mean: of the dataset.
        std: likewise.
        default_size: likewise.
        precision: of all.
        device: of all.

    Raises:
        InputError: as in :func:`load_teacher`; not one choice of weights for each; too many
            teachers, or the same one twice.
    """
    if len(names) > MAX_MEMBERS:
        raise InputError(f"{len(names)} teachers are more than the {MAX_MEMBERS} there may be.")
    if weights and len(weights) != len(names):
        raise InputError(
            f"There are {len(names)} --teacher and {len(weights)} --teacher-weights: give weights "
            f"for each in the same order ('{DEFAULT}' for the published ones), or for none."
        )
    sizes = [size] * len(names) if size is None or isinstance(size, int) else size
    members = [
        load_teacher(
            name,
            None if one == DEFAULT else one,
            classes=classes,
            size=side,
            mean=mean,
            std=std,
            default_size=default_size,
            precision=precision,
            device=device,
        )
        for name, one, side in zip(names, weights or [DEFAULT] * len(names), sizes, strict=True)
    ]
    seen = Counter((one.architecture, one.weights, one.size) for one in members)
    (architecture, digest, _), times = seen.most_common(1)[0]
    if times > 1:
        raise InputError(
            f"{architecture} with the weights {digest[:12]} is {times} of the teachers: name it "
            "once, or give other --teacher-weights."
        )
    return Ensemble(tuple(members))


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
        name: what :func:`skd_cache.models.architecture.create_model` knows, or the ``.pt2`` file of
            an exported program; or, with that file as weights, the ``export:`` architecture that
            such a program has in recipes.
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
    if name.endswith(".pt2") or name.startswith(PROGRAM):
        loaded = _exported(name, weights, where, size)
    else:
        loaded = _eager(name, weights, where, classes)
    known = loaded.known
    size = size or known.size or default_size
    exact = cast("Precision", precision)
    require_answer(loaded.model, name, size, classes, exact, where)
    return Teacher(
        architecture=loaded.architecture,
        weights=loaded.weights,
        model=loaded.model,
        classes=classes,
        size=size,
        mean=known.mean or mean,
        std=known.std or std,
        precision=exact,
        device=where,
        class_weight=class_weight(loaded.model, size, exact, where),
        resize=known.resize,
        published_top1=known.top1,
        published_dataset=known.dataset,
    )


def _exported(name: str, weights: str | None, where: torch.device, size: int | None) -> _Loaded:
    """A program from its file: the name, or the weights of a name that only says which it is."""
    if name.startswith(PROGRAM) and weights is None:
        raise InputError(f"{name} is an exported program: give its .pt2 file as --teacher-weights.")
    if not name.startswith(PROGRAM) and weights is not None:
        raise InputError(f"'{name}' holds its own weights: leave its --teacher-weights out.")
    path = Path(weights or name)
    program = load_program(path, where)
    if name.startswith(PROGRAM) and program.architecture != name:
        raise InputError(f"'{path}' holds {program.architecture}, not {name}.")
    if size and program.size and size != program.size:
        raise InputError(
            f"'{path}' was exported for images of {program.size}x{program.size} pixels, not "
            f"{size}x{size}: leave --size out, or export it anew."
        )
    known = Published(size=program.size)
    return _Loaded(program.architecture, program.weights, program.model, known)


def _eager(name: str, weights: str | None, where: torch.device, classes: int) -> _Loaded:
    with torch.random.fork_rng(devices=[]):  # building draws initial weights, soon overwritten
        torch.manual_seed(0)
        model, known = _load_model(name, weights, classes)
    digest = weights_digest(model)
    model = model.to(where).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return _Loaded(name, digest, model, known)


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
