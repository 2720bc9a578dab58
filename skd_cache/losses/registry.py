"""A loss from its name and options."""

import difflib
import inspect
import math
from collections.abc import Iterable

from skd_cache.errors import InputError
from skd_cache.losses.ce import CrossEntropy
from skd_cache.losses.dist import Dist
from skd_cache.losses.kd import KnowledgeDistillation
from skd_cache.losses.loss import Loss
from skd_cache.losses.spherical import Spherical

_LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (CrossEntropy, KnowledgeDistillation, Spherical, Dist)
}


def names() -> list[str]:
    """The names :func:`make` knows."""
    return list(_LOSSES)


def make(name: str, **options: float | str) -> Loss:
    """Build the loss called ``name``; options not given take the published defaults.

    Raises:
        InputError: unknown loss or option (with the nearest names), or a value out of range.
    """
    if name not in _LOSSES:
        raise InputError(f"No loss is called '{name}' ({_nearest(name, _LOSSES)}).")
    known = inspect.signature(_LOSSES[name]).parameters
    for option in options:
        if option not in known:
            raise InputError(f"Loss '{name}' has no option '{option}' ({_nearest(option, known)}).")
    return _LOSSES[name](**options)


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


def _number_or_word(value: str) -> float | str:
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 3, 0.5)
    return f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(known)}"
