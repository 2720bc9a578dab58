"""How logits are written in a cache: one codec per way of trading bytes for exactness."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skd_cache.codec.codec import ArraySpec, Codec, Encoded, NotFiniteError
from skd_cache.codec.klt import BLOCK, Klt, klt_arrays
from skd_cache.codec.klt_fit import MIN_CLASSES, MIN_SAMPLES, fit_klt
from skd_cache.codec.klt_settings import KltSettings
from skd_cache.codec.plain import Direction, Float32
from skd_cache.codec.topk import TopK
from skd_cache.errors import DataError, InputError

__all__ = [
    "ArraySpec",
    "Codec",
    "Encoded",
    "KltSettings",
    "NotFiniteError",
    "Planned",
    "arrays_of",
    "complete",
    "fit",
    "from_settings",
    "names",
    "parse_codec",
    "resolve",
    "row_bytes",
]

Planned = Codec | KltSettings
"""A codec, or what is chosen about one that must be fitted to a teacher first."""


def _plain(make: Callable[[int], Planned]) -> Callable[[str, int], Planned]:
    """A codec that has no settings."""

    def parse(argument: str, classes: int) -> Planned:
        codec = make(classes)
        if argument:
            raise InputError(f"the codec {codec.name} takes no setting, not {argument!r}")
        return codec

    return parse


_CODECS: dict[str, Callable[[str, int], Planned]] = {
    "klt": lambda argument, _: KltSettings.parse(argument),
    "float32": _plain(Float32),
    "float16": _plain(lambda classes: Direction(classes, "float16")),
    "int8": _plain(lambda classes: Direction(classes, "int8")),
    "topk": TopK.parse,
}
_FROM_SETTINGS: dict[str, Callable[[Mapping[str, Any], int], Planned]] = {
    "klt": lambda settings, _: KltSettings.from_dict(settings),
    "topk": lambda settings, classes: TopK.parse(str(settings.get("k")), classes),
}


def names() -> list[str]:
    """The codecs there are, without what follows a colon."""
    return list(_CODECS)


def parse_codec(text: str, classes: int) -> Planned:
    """The codec called ``text``, such as ``int8``, ``topk:100``, ``klt:small``, for C classes.

    Raises:
        InputError: if there is no such codec, with the nearest names, or no such setting of it.
    """
    name, _, argument = text.partition(":")
    parse = _CODECS.get(name)
    if parse is None:
        near = get_close_matches(name, _CODECS, n=3, cutoff=0.4) or names()
        raise InputError(f"there is no codec {name!r}; did you mean {' or '.join(near)}?")
    return parse(argument, classes)


def from_settings(settings: Mapping[str, Any], classes: int) -> Planned:
    """The codec that a recipe's ``codec`` describes.

    Raises:
        InputError: if this version does not know that codec or one of its settings.
    """
    name = str(settings.get("name"))
    make = _FROM_SETTINGS.get(name)
    codec = make(settings, classes) if make else parse_codec(name, classes)
    if codec.settings != dict(settings):
        raise InputError(f"this version does not know the codec settings {dict(settings)}")
    return codec


def resolve(planned: Planned, classes: int, samples: int) -> tuple[Planned, str]:
    """The codec to use where it can be fitted to so many samples, and why it is another one.

    The reason is empty where the codec is the one planned.
    """
    if not isinstance(planned, KltSettings):
        return planned, ""
    if classes < MIN_CLASSES:
        return Direction(classes, "int8"), f"klt is for {MIN_CLASSES} classes and more"
    if samples < MIN_SAMPLES:
        few = f"klt is fitted to the first shard and needs {MIN_SAMPLES:,} samples there"
        return Direction(classes, "int8"), few
    return planned, ""


def fit(
    planned: Planned,
    batches: Iterable[NDArray[np.float32]],
    class_weight: NDArray[np.float32] | None,
) -> Codec:
    """A codec fitted to logits, batches ``[b, C]`` float32 read once if it needs them.

    Raises:
        InputError: if these logits are nothing for it.
        NotFiniteError: if they hold a NaN or an infinity.
    """
    return fit_klt(planned, batches, class_weight) if isinstance(planned, KltSettings) else planned


def row_bytes(planned: Planned, classes: int) -> float:
    """At most so many bytes a row of codes takes; of klt, which is compressed, usually half."""
    if isinstance(planned, KltSettings):
        return classes * (math.log2(1 + 4 / planned.step) + 0.5) / 8
    specs = planned.arrays.values()
    return float(sum(np.dtype(spec.dtype).itemsize * math.prod(spec.row) for spec in specs))


def complete(planned: Planned, side: Mapping[str, NDArray[np.float32]]) -> Codec:
    """A codec with its arrays as a cache holds them.

    Raises:
        DataError: if they cannot be such a codec's.
    """
    if not isinstance(planned, KltSettings):
        return planned
    return Klt(planned, side["basis"], side["offset"], side["threshold"])


def arrays_of(
    planned: Planned, classes: int, shapes: Mapping[str, Sequence[int]]
) -> Mapping[str, ArraySpec]:
    """The arrays of a view, given the shapes of the arrays a cache keeps once for the codec.

    Raises:
        DataError: if such a codec has no arrays of these shapes.
    """
    if not isinstance(planned, KltSettings):
        if shapes:
            raise DataError(f"the codec {planned.name} has no arrays {sorted(shapes)}")
        return planned.arrays
    basis = shapes.get("basis", ())
    components = basis[1] if len(basis) == 2 else 0
    wanted = {"basis": [classes, components], "offset": [classes], "threshold": [components, 2]}
    if {name: list(shape) for name, shape in shapes.items()} != wanted:
        raise DataError(f"the klt codec of {classes} classes has no arrays {dict(shapes)}")
    if not BLOCK <= components < classes + BLOCK or components % BLOCK:
        raise DataError(f"a klt basis of {classes} classes cannot have {components} components")
    return klt_arrays(planned, classes, components)
