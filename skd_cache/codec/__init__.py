"""How logits are written in a cache: one codec per way of trading bytes for exactness."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from skd_cache.codec.codec import ArraySpec, Codec, Encoded, NotFiniteError
from skd_cache.codec.plain import Direction, Float32
from skd_cache.codec.topk import TopK
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


def _plain(make: Callable[[int], Codec]) -> Callable[[str, int], Codec]:
    """A codec that takes nothing after a colon."""

    def parse(argument: str, classes: int) -> Codec:
        codec = make(classes)
        if argument:
            raise InputError(f"the codec {codec.name} takes no setting, not {argument!r}")
        return codec

    return parse


# By name: the codec of the text after the colon ("" if there is none) and the number of classes.
_CODECS: dict[str, Callable[[str, int], Codec]] = {
    "float32": _plain(Float32),
    "float16": _plain(lambda classes: Direction(classes, "float16")),
    "int8": _plain(lambda classes: Direction(classes, "int8")),
    "topk": TopK.parse,
}


def names() -> list[str]:
    """The codecs there are, without what follows a colon."""
    return list(_CODECS)


def parse_codec(text: str, classes: int) -> Codec:
    """The codec called ``text`` (``float32``, ``float16``, ``int8``, ``topk:K``) for C classes.

    Raises:
        InputError: if there is no such codec, with the nearest names, or what follows its colon
            is wrong.
    """
    name, _, argument = text.partition(":")
    make = _CODECS.get(name)
    if make is None:
        near = get_close_matches(name, _CODECS, n=3, cutoff=0.4) or names()
        raise InputError(f"there is no codec {text!r}; did you mean {' or '.join(near)}?")
    return make(argument, classes)


def from_settings(settings: Mapping[str, Any], classes: int) -> Codec:
    """The codec that a recipe's ``codec`` describes.

    Raises:
        InputError: if this version does not know that codec or one of its settings.
    """
    text = str(settings.get("name"))
    if "k" in settings:
        text = f"{text}:{settings['k']}"
    codec = parse_codec(text, classes)
    if codec.settings != dict(settings):
        raise InputError(f"this version does not know the codec settings {dict(settings)}")
    return codec
