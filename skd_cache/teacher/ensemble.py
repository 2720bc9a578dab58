"""One teacher, or several that answer as one: the mean of their centred logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.teacher.forward import Teacher


@dataclass(frozen=True)
class Ensemble:
    """Teachers of the same classes on one device; often only one.

    Each sees images at its own size and with its own normalisation. Their order changes no answer
    but for the last bit; it is the recipe's, and what is shown of images is what the first saw.
    """

    members: tuple[Teacher, ...]

    @property
    def classes(self) -> int:
        """C, the number of logits."""
        return self.members[0].classes

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes in pixels at which they look, each once, the first teacher's first."""
        return tuple(dict.fromkeys(member.size for member in self.members))

    @property
    def class_weight(self) -> NDArray[np.float32] | None:
        """``[C, D]`` whose columns the logits are combinations of, when all end in a Linear.

        The last layers side by side, each divided by the number of teachers.
        """
        weights = [member.class_weight for member in self.members]
        known = [weight for weight in weights if weight is not None]
        if len(known) < len(weights):
            return None
        if len(known) == 1:
            return known[0]
        return np.concatenate(known, axis=1) / np.float32(len(known))

    def logits(self, *images: Tensor) -> Tensor:
        """What they say together of these images: ``[B, C]`` float32, on their device.

        Args:
            images: uint8 ``[B, S, S, 3]`` RGB, at each of :attr:`sizes` in turn.
        """
        at = dict(zip(self.sizes, images, strict=True))
        return joint([member.logits(at[member.size]) for member in self.members])


def joint(answers: Sequence[Tensor]) -> Tensor:
    """The mean of centred logits ``[B, C]``, float32; those of a lone teacher untouched.

    Centred is each row minus its mean over the classes. In float64 until the end, so that sums
    round once whatever the order and device.
    """
    if len(answers) == 1:
        return answers[0]
    total = torch.zeros_like(answers[0], dtype=torch.float64)
    for answer in answers:
        exact = answer.double()
        total += exact - exact.mean(dim=1, keepdim=True)
    return (total / len(answers)).float()
