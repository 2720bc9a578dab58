"""What changes in a loss over the epochs."""

import difflib
import re
from dataclasses import dataclass

from torch import nn

from skd_cache.errors import InputError
from skd_cache.losses.loss import Loss

_STEP = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf)\s*@\s*(\d+)\s*", re.I)


@dataclass(frozen=True)
class Schedule:
    """Values of one option of a loss, each holding from its epoch on, or climbing to the next."""

    option: str
    steps: tuple[tuple[int, float], ...]  # (first epoch, value), ascending, from epoch 0
    climbing: frozenset[int] = frozenset()  # first epochs of values that change evenly to the next

    def at(self, epoch: int) -> float:
        """The value in ``epoch`` (0 is the first)."""
        place = max(n for n, (first, _) in enumerate(self.steps) if first <= epoch)
        first, value = self.steps[place]
        if first not in self.climbing:
            return value
        last, goal = self.steps[place + 1]
        return value + (goal - value) * (epoch - first) / (last - first)

    def check(self, loss: nn.Module) -> None:
        """See that some loss has the option and may take all the values.

        Raises:
            InputError: none has it (with the nearest options), or a value is out of range.
        """
        losses = [module for module in loss.modules() if isinstance(module, Loss)]
        concerned = [module for module in losses if self.option in module.ranges]
        if not concerned:
            options = sorted({option for module in losses for option in module.ranges})
            near = difflib.get_close_matches(self.option, options, 1) or options
            asked = ", ".join(f"'{module.name}'" for module in losses)
            raise InputError(
                f"--schedule-loss: {asked} has no option '{self.option}' "
                f"(it has: {', '.join(near)})."
            )
        for module in concerned:
            for _, value in self.steps:
                module.check(self.option, value)

    def apply(self, loss: nn.Module, epoch: int) -> None:
        """Set the option to its value in ``epoch``, in every loss in ``loss`` that has it."""
        for module in loss.modules():
            if isinstance(module, Loss) and self.option in module.ranges:
                setattr(module, self.option, self.at(epoch))


def parse_schedule(text: str) -> Schedule:
    """Read ``OPTION=VALUE@EPOCH,…``, for example ``alpha=0.9@0,0.5@60,0.1@80``.

    Two dots in place of a comma let the value change evenly, epoch by epoch, until the next:
    ``weight=0.05@0..1@19`` is DKD's warm-up over 20 epochs.

    Raises:
        InputError: not of that form, epochs not ascending, or nothing for epoch 0.
    """
    option, equals, values = text.partition("=")
    found = [_STEP.fullmatch(one) for one in re.split(r",|\.\.", values)]
    if not (option and equals) or None in found:
        raise InputError(
            f"--schedule-loss '{text}' is not of the form OPTION=VALUE@EPOCH,… "
            "(for example alpha=0.9@0,0.5@60,0.1@80, or weight=0@0..1@20 to climb)."
        )
    steps = tuple((int(one[2]), float(one[1])) for one in found if one is not None)
    epochs = [epoch for epoch, _ in steps]
    if epochs[0] != 0 or epochs != sorted(set(epochs)):
        raise InputError(f"--schedule-loss '{text}': epochs must start at 0 and ascend.")
    between = re.findall(r",|\.\.", values)
    climbing = (epoch for epoch, mark in zip(epochs, between, strict=False) if mark == "..")
    return Schedule(option.strip(), steps, frozenset(climbing))
