"""How logits are written in a cache: one codec per way of trading bytes for exactness."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from skd_cache.codec.codec import ArraySpec, Codec, Encoded, NotFiniteError
from skd_cache.codec.plain import Direction, Float32
from skd_cache.errors import InputError

__all__ = [
    "ArraySpec",
    "Codec",
    "Encoded",
    "NotFiniteError",
    "from_settings",
    "names",
    "parse_codec",
]

_CODECS: dict[str, Callable[[int], Codec]] = {
    "float32": Float32,
    "float16": lambda classes: Direction(classes, "float16"),
    "int8": lambda classes: Direction(classes, "int8"),
}


def names() -> list[str]:
    """The codecs there are."""
    return list(_CODECS)


def parse_codec(text: str, classes: int) -> Codec:
    """The codec called ``text`` (``float32``, ``float16``, ``int8``) for rows of C classes.

    Raises:
        InputError: if there is no such codec, with the nearest names.
    """
    make = _CODECS.get(text)
    if make is None:
        near = get_close_matches(text, _CODECS, n=3, cutoff=0.4) or names()
        raise InputError(f"there is no codec {text!r}; did you mean {' or '.join(near)}?")
    return make(classes)


def from_settings(settings: Mapping[str, Any], classes: int) -> Codec:
    """The codec that a recipe's ``codec`` describes.

    Raises:
        InputError: if this version does not know that codec or one of its settings.
    """
    codec = parse_codec(str(settings.get("name")), classes)
    if codec.settings != dict(settings):
        raise InputError(f"this version does not know the codec settings {dict(settings)}")
    return codec
