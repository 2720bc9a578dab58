"""A moving average of the student's weights."""

import copy

import torch
from torch import nn


class MovingAverage:
    """Exponential moving average of weights and batch statistics.

    The decay of update ``n`` is ``min(decay, (1 + n) / (10 + n))``, as TensorFlow's
    ExponentialMovingAverage has it, so that short runs do not average over their start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights of ``model`` after ``step`` steps before this one."""
        keep = min(self.decay, (1 + step) / (10 + step))
        theirs = model.state_dict()
        for name, ours in self.model.state_dict().items():
            if ours.is_floating_point():
                ours.lerp_(theirs[name], 1 - keep)
            else:
                ours.copy_(theirs[name])
