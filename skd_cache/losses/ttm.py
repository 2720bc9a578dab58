"""Transformed teacher matching: only the teacher is softened."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.logits import divergence, teacher_logits
from skd_cache.losses.loss import Loss, Teacher


class TransformedTeacherMatching(Loss):
    """``CE + β·KL(softmax(t/T) ‖ softmax(z))``, without a factor T².

    Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching"
    (arXiv 2402.11148) and its code, which writes 1/T as the exponent ``l`` of a power transform of
    the teacher's probabilities. 1/T and β are published by pair (appendix A.4); the defaults are
    the example of its README, 1/T=0.1 and β=45 for VGG-13 to VGG-8 on CIFAR-100.
    """

    name = "ttm"
    ranges: ClassVar = {"temperature": (1e-2, 1e3), "beta": (0.0, 1e3), "weight": (0.0, 1e6)}

    def __init__(self, temperature: float = 10.0, beta: float = 45.0, weight: float = 1.0) -> None:
        super().__init__()
        self.temperature = self.number("temperature", temperature)
        self.beta = self.number("beta", beta)
        self.weight = self.number("weight", weight)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        log_p = F.log_softmax(teacher_logits(teacher) / self.temperature, dim=1)
        return self.beta * divergence(log_p, F.log_softmax(z, dim=1)).mean()
