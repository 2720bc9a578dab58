"""What can be chosen about the klt codec: how coarse, and which ranks are refined."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from skd_cache.errors import InputError

MAX_RANKS = 256
MAX_DIVISOR = 256


@dataclass(frozen=True)
class KltSettings:
    """All that determines a klt code, apart from the fitted basis.

    Args:
        step: of the coefficients, in logits.
        lagrange: how much squared error, in squared steps, a bit is worth.
        refine: pairs (ranks, divisor): the so many next largest reconstructed classes are
            refined in steps of ``step / divisor``; divisors are powers of two.

    Raises:
        InputError: if a value is out of range.
    """

    step: float
    lagrange: float
    refine: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step) and 0.01 <= self.step <= 1000):
            raise InputError(f"klt's step must lie between 0.01 and 1000, not {self.step}")
        if not (math.isfinite(self.lagrange) and 0 <= self.lagrange <= 1):
            raise InputError(f"klt's lagrange must lie between 0 and 1, not {self.lagrange}")
        for ranks, divisor in self.refine:
            if ranks < 1 or divisor not in _DIVISORS:
                raise InputError(
                    f"klt's refine {ranks}/{divisor} must be a number of ranks and a divisor of "
                    f"the step that is a power of two up to {MAX_DIVISOR}"
                )
        if sum(ranks for ranks, _ in self.refine) > MAX_RANKS:
            raise InputError(f"klt refines at most {MAX_RANKS} ranks")

    @property
    def name(self) -> str:
        """What it is asked for by: a level, or settings."""
        for level, values in _LEVELS.items():
            if values == (self.step, self.lagrange, self.refine):
                return f"klt:{level}" if level else "klt"
        pairs = "+".join(f"{ranks}/{divisor}" for ranks, divisor in self.refine) or "none"
        return f"klt:step={self.step:g},lagrange={self.lagrange:g},refine={pairs}"

    @property
    def divisors(self) -> list[int]:
        """The divisor of each refined rank, largest class first."""
        return [divisor for ranks, divisor in self.refine for _ in range(ranks)]

    @property
    def settings(self) -> dict[str, Any]:
        """As it stands in a recipe."""
        refine = [list(pair) for pair in self.refine]
        return {"name": "klt", "step": self.step, "lagrange": self.lagrange, "refine": refine}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """From a recipe.

        Raises:
            InputError: if it is none that this version knows.
        """
        try:
            step, lagrange = float(settings["step"]), float(settings["lagrange"])
            refine = tuple((int(ranks), int(divisor)) for ranks, divisor in settings["refine"])
        except (KeyError, TypeError, ValueError) as error:
            told = dict(settings)
            raise InputError(f"this version does not know the codec settings {told}") from error
        return cls(step, lagrange, refine)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From what follows ``klt:``, such as ``small`` or ``step=0.5,refine=8/4+16/2``.

        Raises:
            InputError: if it is neither a level nor settings, with what there is.
        """
        if text in _LEVELS:
            return cls(*_LEVELS[text])
        step, lagrange, refine = _LEVELS[""]
        for part in text.split(","):
            key, _, value = part.partition("=")
            try:
                if key == "step":
                    step = float(value)
                elif key == "lagrange":
                    lagrange = float(value)
                else:
                    refine = _parse_refine(key, value)
            except ValueError as error:
                raise InputError(
                    f"klt:{text} is neither klt, klt:small, klt:fine nor settings such as "
                    "klt:step=0.5,lagrange=0.1,refine=8/4+16/2"
                ) from error
        return cls(step, lagrange, refine)


def _parse_refine(key: str, text: str) -> tuple[tuple[int, int], ...]:
    if key != "refine":
        raise ValueError(key)
    if text == "none":
        return ()
    pairs = (pair.split("/") for pair in text.split("+"))
    return tuple((int(ranks), int(divisor)) for ranks, divisor in pairs)


_DIVISORS = [2**power for power in range(MAX_DIVISOR.bit_length())]
_LEVELS: dict[str, tuple[float, float, tuple[tuple[int, int], ...]]] = {
    "small": (1.8, 0.1, ((8, 8), (16, 2))),
    "": (0.905, 0.1, ((8, 8), (8, 2))),
    "fine": (0.455, 0.1, ((16, 4),)),
}
