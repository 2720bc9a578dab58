"""Partial teacher: only how sure it is of the true class, sample by sample."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.logits import spread_over_rest, teacher_logits
from skd_cache.losses.loss import Loss, Teacher


class PartialTeacher(Loss):
    """``(1-α)·CE(z, y) + α·T²·KL(p ‖ softmax(z/T))``, ``p_y = softmax(t/T)_y``, the rest even.

    The "instance" level of knowledge of Tang et al., "Understanding and Improving Knowledge
    Distillation" (arXiv 2002.03532), whose full text we could not read: T=1, and α=0.9 as in
    ``kd``.
    """

    name = "kd-pt"
    soft_labels = False
    ranges: ClassVar = {"temperature": (1e-2, 1e3), "alpha": (0.0, 1.0), "weight": (0.0, 1e6)}

    def __init__(self, temperature: float = 1.0, alpha: float = 0.9, weight: float = 1.0) -> None:
        super().__init__()
        self.temperature = self.number("temperature", temperature)
        self.alpha = self.number("alpha", alpha)
        self.weight = self.number("weight", weight)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return (1 - self.alpha) * F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        p, log_p = spread_over_rest(teacher_logits(teacher) / self.temperature, labels)
        log_q = F.log_softmax(z / self.temperature, dim=1)
        kl = (p * (log_p - log_q)).sum(1).mean()
        return self.alpha * self.temperature**2 * kl
