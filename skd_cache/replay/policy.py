"""What may happen to an image: the policy of crops and flips, by name or from a TOML file."""

import tomllib
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from skd_cache.errors import InputError

Crop = Literal["none", "rrc", "pad"]
Interpolation = Literal["bilinear", "bicubic", "nearest"]


@dataclass(frozen=True)
class Policy:
    """How the crop box is drawn, whether images flip, and how the box is resized.

    Attributes:
        crop: ``none`` (the centred square), ``rrc`` (a box of random area and aspect ratio), or
            ``pad`` (a centred square moved by up to ``padding`` pixels, zeros around the image).
        flip: whether every other image is mirrored left to right.
        scale: smallest and largest area of an ``rrc`` box, as a fraction of the image's.
        ratio: smallest and largest aspect ratio (width over height) of an ``rrc`` box.
        padding: pixels of a ``pad`` box's largest shift.
        interpolation: how the box is resized to the network's input size, always antialiased.
    """

    crop: Crop = "none"
    flip: bool = False
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: int = 0
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if self.crop not in get_args(Crop):
            raise InputError(f"policy: crop is one of {', '.join(get_args(Crop))}: {self.crop!r}")
        if self.interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise InputError(f"policy: interpolation is one of {known}: {self.interpolation!r}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"policy: scale is 0 < smallest <= largest <= 1: {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise InputError(f"policy: ratio is 0 < smallest <= largest: {self.ratio}")
        if not 0 <= self.padding <= 1024:
            raise InputError(f"policy: padding is 0 to 1024 pixels: {self.padding}")

    def to_dict(self) -> dict[str, Any]:
        """The policy as plain JSON values, as the recipe keeps it."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Policy":
        """The policy of :meth:`to_dict`, or of a TOML file's keys.

        Raises:
            InputError: for an unknown key, a wrong type, or a value out of range.
        """
        kinds = {field.name: type(field.default) for field in fields(cls)}
        parsed: dict[str, Any] = {}
        for key, value in values.items():
            if key not in kinds:
                near = get_close_matches(key, kinds, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise InputError(f"policy: unknown key {key!r}{hint} (known: {', '.join(kinds)})")
            parsed[key] = _typed(key, value, kinds[key])
        return cls(**parsed)


def _typed(key: str, value: Any, kind: type) -> Any:
    if kind is tuple:
        numbers = isinstance(value, list | tuple) and len(value) == 2
        if not numbers or not all(type(v) in (int, float) for v in value):
            raise InputError(f"policy: {key} is two numbers: {value!r}")
        return (float(value[0]), float(value[1]))
    if type(value) is not kind:
        raise InputError(f"policy: {key} is a {kind.__name__}: {value!r}")
    return value


_NAMED = {
    "none": Policy(),
    "rrc-flip": Policy(crop="rrc", flip=True),
    "pad-crop-flip": Policy(crop="pad", flip=True, padding=4),
}


def policy_names() -> list[str]:
    """The policies known by name."""
    return list(_NAMED)


def load_policy(name_or_file: str) -> Policy:
    """The policy of that name, or of a TOML file whose keys are :class:`Policy`'s attributes.

    Raises:
        InputError: if there is neither such a name nor such a file, or the file is not a policy.
    """
    if name_or_file in _NAMED:
        return _NAMED[name_or_file]
    path = Path(name_or_file)
    if path.suffix != ".toml":
        near = get_close_matches(name_or_file, _NAMED, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        known = ", ".join(_NAMED)
        raise InputError(
            f"unknown policy {name_or_file!r}{hint} (known: {known}, or the path of a .toml file)"
        )
    try:
        return Policy.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"the policy file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the policy file {path} is not TOML: {error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
