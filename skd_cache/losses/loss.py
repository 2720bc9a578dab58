"""What every loss is: a label term, a teacher term, and options with ranges.

Shape legend: B batch, C classes.
"""

import inspect
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
    false); labels ``[B]`` int64, or soft labels ``[B, C]`` float where ``soft_labels`` is true.
    Computes in float32 or better whatever the autocast dtype; no gradient reaches the teacher.
    """

    name: ClassVar[str]
    needs_teacher: ClassVar[bool] = True
    soft_labels: bool = True
    has_label_term: ClassVar[bool] = True
    ranges: ClassVar[dict[str, tuple[float, float]]]
    """The numeric options, attributes that a schedule may set, and what values they may take."""

    words: ClassVar[dict[str, tuple[str, ...]]] = {}
    """The words that options may be, instead of a number or altogether."""
    counts: ClassVar[tuple[str, ...]] = ()
    """The options that are whole numbers."""

    weight: float = 1.0

    def forward(self, student: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        z = at_least_float32(student)  # [B, C]
        self.check_batch(z, teacher, labels)
        label_term, teacher_term = self.terms(z, teacher, labels)
        return label_term + self.weight * teacher_term

    def terms(self, z: Tensor, teacher: Teacher, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Label term and teacher term, for losses whose terms share work to override."""
        return self.label_term(z, teacher, labels), self.teacher_term(z, teacher, labels)

    @abstractmethod
    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        """What the labels ask for: cross-entropy, weighted as the formula has it."""

    @abstractmethod
    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        """What the teacher asks for, before ``weight``."""

    def check_batch(self, z: Tensor, teacher: Teacher, labels: Tensor) -> None:
        """See that student, teacher and labels are of the same samples and classes.

        Raises:
            InputError: they are not, or the labels are soft where one class must be the true one.
        """
        shape = tuple(z.shape)
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"Student logits must be [B, C], not {list(shape)}.")
        if tuple(labels.shape) not in (shape[:1], shape):
            raise InputError(
                f"Labels must be [B] or [B, C], here {[shape[0]]} or {list(shape)}, "
                f"not {list(labels.shape)}."
            )
        if teacher is None and self.needs_teacher:
            raise InputError(f"Loss '{self.name}' compares with a teacher, and was given none.")
        if isinstance(teacher, Tensor) and tuple(teacher.shape) != shape:
            raise InputError(
                f"Teacher logits must be as the student's, {list(shape)}, "
                f"not {list(teacher.shape)}."
            )
        if isinstance(teacher, LogitBatch) and len(teacher) != shape[0]:
            raise InputError(f"The teacher speaks of {len(teacher)} samples, not {shape[0]}.")
        if labels.dim() == 2 and not self.soft_labels:
            raise InputError(
                f"Loss '{self.name}' needs the true class of every sample, and soft labels [B, C] "
                "(mixup, CutMix) have none: kd, spherical, dist, ttm and soft-ce take them."
            )

    def check(self, option: str, value: float | str) -> float | str:
        """The value, when the option may take it: a number in its range, or one of its words.

        Raises:
            InputError: neither of them.
        """
        words = self.words.get(option, ())
        if value in words:
            return value
        low, high = self.range_of(option)
        if isinstance(value, str) or not low <= value <= high:
            shown = f"'{value}'" if isinstance(value, str) else f"{value:g}"
            told = ", ".join(words) + " or a number" if words else "a number"
            raise InputError(
                f"Loss '{self.name}': {option} must be {told} from {low:g} to {high:g}, "
                f"not {shown}."
            )
        return float(value)

    def range_of(self, option: str) -> tuple[float, float]:
        """Smallest and largest value of an option."""
        return self.ranges[option]

    def number(self, option: str, value: float | str) -> float:
        """The value, when it is a number in the option's range.

        Raises:
            InputError: it is not.
        """
        return float(self.check(option, value))

    def count(self, option: str, value: float | str) -> int:
        """The value, when it is a whole number from 1 on.

        Raises:
            InputError: it is not.
        """
        if isinstance(value, str) or value < 1 or value != int(value):
            raise InputError(
                f"Loss '{self.name}': {option} must be a whole number from 1 on, not '{value}'."
            )
        return int(value)

    def choice(self, option: str, value: float | str) -> str:
        """The value, when it is one of the option's words.

        Raises:
            InputError: it is not.
        """
        words = self.words[option]
        if value not in words:
            raise InputError(
                f"Loss '{self.name}': {option} must be {' or '.join(words)}, not '{value}'."
            )
        return str(value)

    def extra_repr(self) -> str:
        options = [name for name in inspect.signature(type(self)).parameters if hasattr(self, name)]
        shown = ((name, getattr(self, name)) for name in options)
        return ", ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in shown
        )
