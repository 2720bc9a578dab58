"""What every loss is: a label term, a teacher term, and options with ranges.

Shape legend: B batch, C classes.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from skd_cache.batch import LogitBatch
from skd_cache.errors import InputError
from skd_cache.losses.logits import at_least_float32

Teacher = LogitBatch | Tensor | None


class Loss(nn.Module, ABC):
    """A number from student logits, teacher and labels: ``label_term + weight * teacher_term``.

    Called as ``loss(student_logits, teacher, labels)``: student logits ``[B, C]`` of any float
    dtype; a `LogitBatch` or plain ``[B, C]`` tensor as teacher (None where ``needs_teacher`` is
    false); labels ``[B]`` int64, or soft labels ``[B, C]`` float. Computes in float32 or better
    whatever the autocast dtype; no gradient reaches the teacher.
    """

    name: ClassVar[str]
    needs_teacher: ClassVar[bool] = True
    ranges: ClassVar[dict[str, tuple[float, float]]]
    """The numeric options, attributes that a schedule may set, and what values they may take."""

    weight: float = 1.0

    def forward(self, student: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        z = at_least_float32(student)  # [B, C]
        label_term = self.label_term(z, teacher, labels)
        return label_term + self.weight * self.teacher_term(z, teacher, labels)

    @abstractmethod
    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        """What the labels ask for: cross-entropy, weighted as the formula has it."""

    @abstractmethod
    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        """What the teacher asks for, before ``weight``."""

    def check(self, option: str, value: float | str) -> float:
        """The value, when the option may take it.

        Raises:
            InputError: not a number, or outside the option's range.
        """
        low, high = self.ranges[option]
        if isinstance(value, str) or not low <= value <= high:
            shown = f"'{value}'" if isinstance(value, str) else f"{value:g}"
            raise InputError(
                f"Loss '{self.name}': {option} must be a number from {low:g} to {high:g}, "
                f"not {shown}."
            )
        return float(value)

    def extra_repr(self) -> str:
        return ", ".join(f"{option}={getattr(self, option):g}" for option in self.ranges)
