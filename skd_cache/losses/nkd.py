"""Normalised knowledge distillation: the target by its probability, the others among themselves."""

import math
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.logits import log_rest, teacher_logits
from skd_cache.losses.loss import Loss, Teacher


class NormalisedDistillation(Loss):
    """``CE - t̂_y·log ẑ_y - γ·T²·Σ_{i≠y} N(t)_i·log N(z)_i``.

    Hats are softmax at temperature 1 over all classes, N softmax at T over the classes that are not
    the target: cross-entropies, not divergences. Yang et al., "From Knowledge Distillation to
    Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft Labels"
    (arXiv 2303.13005) and its code: T=1, γ=1.5 on ImageNet, T=3, γ=3.5 on CIFAR-100. Of soft labels
    the authors' code takes the largest as the target; here they are refused.
    """

    name = "nkd"
    soft_labels = False
    ranges: ClassVar = {"temperature": (1e-2, 1e3), "gamma": (0.0, 1e3), "weight": (0.0, 1e6)}

    def __init__(self, temperature: float = 1.0, gamma: float = 1.5, weight: float = 1.0) -> None:
        super().__init__()
        self.temperature = self.number("temperature", temperature)
        self.gamma = self.number("gamma", gamma)
        self.weight = self.number("weight", weight)

    def terms(self, z: Tensor, teacher: Teacher, labels: Tensor) -> tuple[Tensor, Tensor]:
        own, t = labels[:, None], teacher_logits(teacher)
        entropy = F.cross_entropy(z, labels, reduction="none")  # [B]
        certainty = F.softmax(t, dim=1).gather(1, own)[:, 0]
        t = (t / self.temperature).scatter(1, own, -math.inf)
        z = z / self.temperature
        others = -(F.softmax(t, dim=1) * (z - log_rest(z, labels))).sum(1)
        scale = self.gamma * self.temperature**2
        return entropy.mean(), (certainty * entropy + scale * others).mean()

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        return self.terms(z, teacher, labels)[1]
