"""Label smoothing as strong as the teacher is uncertain."""

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from skd_cache.batch import LogitBatch
from skd_cache.errors import InputError
from skd_cache.losses.loss import Loss, Teacher


class LabelSmoothing(Loss):
    """``(1-ε)·CE(z, y) + ε·CE(z, uniform)``: what remains of a teacher without its structure.

    ``ε = 1 - mean teacher probability of the true class`` over the cache (``smoothing="mean"``), or
    a number. After the "universe" level of knowledge of Tang et al., "Understanding and Improving
    Knowledge Distillation" (arXiv 2002.03532); the choice of ε is ours. The uniform distribution
    includes the true class, as in torch's ``label_smoothing``; its term is the teacher term.
    """

    name = "ls"
    ranges: ClassVar = {"smoothing": (0.0, 1.0), "weight": (0.0, 1e6)}
    words: ClassVar = {"smoothing": ("mean",)}

    def __init__(self, smoothing: float | Literal["mean"] = "mean", weight: float = 1.0) -> None:
        super().__init__()
        self.smoothing = self.check("smoothing", smoothing)
        self.weight = self.number("weight", weight)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        return (1 - self.epsilon(teacher)) * F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return -self.epsilon(teacher) * F.log_softmax(z, dim=1).mean()

    def epsilon(self, teacher: Teacher) -> float:
        """The share of the uniform distribution."""
        if self.smoothing != "mean":
            return float(self.smoothing)
        if not isinstance(teacher, LogitBatch) or not teacher.statistics.count:
            raise InputError(
                "Loss 'ls' with smoothing=mean needs the statistics of a cache, which this teacher "
                "has not: give a number as smoothing."
            )
        return 1 - teacher.statistics.mean_true_confidence
