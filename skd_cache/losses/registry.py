"""A loss from its name and options."""

import inspect
import math
from typing import Any

from torch import nn

from skd_cache.errors import InputError
from skd_cache.losses.ce import CrossEntropy
from skd_cache.losses.dist import Dist
from skd_cache.losses.dkd import DecoupledDistillation
from skd_cache.losses.kd import KnowledgeDistillation
from skd_cache.losses.kd_pt import PartialTeacher
from skd_cache.losses.kd_sim import SimilarClasses
from skd_cache.losses.kd_topk import TopTeacher
from skd_cache.losses.logit_std import LogitStandardisation
from skd_cache.losses.loss import Loss
from skd_cache.losses.ls import LabelSmoothing
from skd_cache.losses.naming import nearest
from skd_cache.losses.nkd import NormalisedDistillation
from skd_cache.losses.soft_ce import SoftCrossEntropy
from skd_cache.losses.spherical import Spherical
from skd_cache.losses.ttm import TransformedTeacherMatching
from skd_cache.losses.wttm import WeightedTeacherMatching

LOSSES: dict[str, type[Loss]] = {
    loss.name: loss
    for loss in (
        CrossEntropy,
        KnowledgeDistillation,
        Spherical,
        Dist,
        DecoupledDistillation,
        LogitStandardisation,
        NormalisedDistillation,
        TransformedTeacherMatching,
        WeightedTeacherMatching,
        SoftCrossEntropy,
        LabelSmoothing,
        PartialTeacher,
        SimilarClasses,
        TopTeacher,
    )
}


def names() -> list[str]:
    """The names :func:`make` knows."""
    return list(LOSSES)


def make(name: str, **options: Any) -> Loss:
    """Build the loss called ``name``; options not given take the published defaults.

    Raises:
        InputError: unknown loss or option (with the nearest names), or a value out of range.
    """
    if name not in LOSSES:
        raise InputError(f"No loss is called '{name}' ({nearest(name, LOSSES)}).")
    known = inspect.signature(LOSSES[name]).parameters
    for option in options:
        if option not in known:
            raise InputError(f"Loss '{name}' has no option '{option}' ({nearest(option, known)}).")
    return LOSSES[name](**options)


def parse(text: str) -> Loss:
    """Read ``NAME[:key=value,…]``, for example ``kd:temperature=4,alpha=0.9``.

    Raises:
        InputError: not of that form, or what :func:`make` refuses.
    """
    name, colon, rest = text.partition(":")
    options: dict[str, float | str] = {}
    for pair in rest.split(",") if colon else ():
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not (key and equals and value) or key in options:
            raise InputError(
                f"--loss '{text}' is not of the form NAME[:key=value,…] with each key once "
                "(for example kd:temperature=4,alpha=0.9)."
            )
        options[key] = _number_or_word(value)
    return make(name.strip(), **options)


def needs_class_weight(loss: nn.Module) -> bool:
    """Whether some loss in ``loss`` looks at the teacher's last-layer weights."""
    return any(isinstance(module, SimilarClasses) for module in loss.modules())


def give_class_weight(loss: nn.Module, class_weight: Any) -> None:
    """Give the teacher's last-layer weights ``[C, D]`` to every loss in ``loss`` that needs them.

    Raises:
        InputError: some loss does and there are none.
    """
    if not needs_class_weight(loss):
        return
    if class_weight is None:
        raise InputError(
            "Loss 'kd-sim' needs the teacher's last-layer weights, and this cache has none: its "
            "teacher does not end in a linear layer. Take another loss."
        )
    for module in loss.modules():
        if isinstance(module, SimilarClasses):
            module.take_class_weight(class_weight)


def _number_or_word(value: str) -> float | str:
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value
