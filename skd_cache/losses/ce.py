"""Cross-entropy with the labels alone."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.loss import Loss, Teacher


class CrossEntropy(Loss):
    """The baseline without a teacher: ``CE(z, y)``, optionally with label smoothing."""

    name = "ce"
    needs_teacher = False
    ranges: ClassVar = {"smoothing": (0.0, 1.0)}

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = self.number("smoothing", smoothing)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return F.cross_entropy(z, labels, label_smoothing=self.smoothing)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return z.new_zeros(())
