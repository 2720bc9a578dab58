"""Top-k teacher: its largest probabilities, the rest spread evenly."""

import math
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.logits import entropy, teacher_logits
from skd_cache.losses.loss import Loss, Teacher
from skd_cache.losses.truncate import truncate


class TopTeacher(Loss):
    """``(1-α)·CE(z, y) + α·T²·KL(p ‖ softmax(z/T))``, p the k largest of ``softmax(t/T)``.

    The rest of the mass is spread evenly over the other classes; truncated after the temperature.
    Tang et al., "Understanding and Improving Knowledge Distillation" (arXiv 2002.03532), whose full
    text we could not read: T=1 and α=0.9 as in ``kd-pt``, k a quarter of the classes, rounded up.
    Of classes that are equal to the k-th all are kept.
    """

    name = "kd-topk"
    ranges: ClassVar = {"temperature": (1e-2, 1e3), "alpha": (0.0, 1.0), "weight": (0.0, 1e6)}
    counts: ClassVar = ("k",)

    def __init__(
        self,
        k: int | None = None,
        temperature: float = 1.0,
        alpha: float = 0.9,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.k = None if k is None else self.count("k", k)
        self.temperature = self.number("temperature", temperature)
        self.alpha = self.number("alpha", alpha)
        self.weight = self.number("weight", weight)

    def terms(self, z: Tensor, teacher: Teacher, labels: Tensor) -> tuple[Tensor, Tensor]:
        log_q = F.log_softmax(z / self.temperature, dim=1)
        # At temperature 1 the cross-entropy is of the same logarithms.
        shared = log_q if self.temperature == 1 else F.log_softmax(z, dim=1)
        label_term = (1 - self.alpha) * entropy(shared, labels)
        return label_term, self.matching(log_q, teacher)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return (1 - self.alpha) * F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return self.matching(F.log_softmax(z / self.temperature, dim=1), teacher)

    def matching(self, log_q: Tensor, teacher: Teacher) -> Tensor:
        """The teacher term, from the student's log-probabilities ``[B, C]`` at T."""
        k = math.ceil(log_q.shape[1] / 4) if self.k is None else self.k
        p, log_p = truncate(teacher_logits(teacher) / self.temperature, k)
        kl = (p * (log_p - log_q)).sum(1).mean()
        return self.alpha * self.temperature**2 * kl
