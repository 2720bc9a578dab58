"""Decoupled knowledge distillation: the target class and the others apart."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.logits import divergence, teacher_logits
from skd_cache.losses.loss import Loss, Teacher


class DecoupledDistillation(Loss):
    """``CE + T²·(α·TCKD + β·NCKD)``.

    TCKD is the KL divergence of (target, rest) as two classes, NCKD that among the classes which
    are not the target, all of ``softmax(·/T)``. Zhao et al., "Decoupled Knowledge Distillation"
    (arXiv 2203.08679) and mdistiller: T=4, α=1. β by pair on CIFAR-100, from mdistiller's configs:
    8, but 2 for ResNet-56 to 20 and 110 to 32, 6 for WRN-40-2 to 16-2 or 40-1 and for VGG-13. On
    ImageNet T=1, β=0.5 for ResNet-34 to 18, 2 for ResNet-50 to MobileNetV1.

    The teacher term is warmed up on CIFAR over 20 epochs, which mdistiller counts from 1:
    ``--schedule-loss weight=0.05@0..1@19``; not on ImageNet. mdistiller's code takes 1000 off the
    target's logit where this leaves the class out, and log 0 for a target the student is sure of.
    """

    name = "dkd"
    soft_labels = False
    ranges: ClassVar = {
        "temperature": (1e-2, 1e3),
        "alpha": (0.0, 1e3),
        "beta": (0.0, 1e3),
        "weight": (0.0, 1e6),
    }

    def __init__(
        self, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0, weight: float = 1.0
    ) -> None:
        super().__init__()
        self.temperature = self.number("temperature", temperature)
        self.alpha = self.number("alpha", alpha)
        self.beta = self.number("beta", beta)
        self.weight = self.number("weight", weight)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        t = teacher_logits(teacher) / self.temperature
        decoupled = decoupled_kl(t, z / self.temperature, labels, self.alpha, self.beta)
        return self.temperature**2 * decoupled


def decoupled_kl(t: Tensor, z: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    """``α·TCKD + β·NCKD`` of logits ``[B, C]`` at temperature 1, averaged over the batch."""
    value: Tensor = _Decoupled.apply(t, z, labels[:, None], alpha, beta)
    return value


class _Decoupled(torch.autograd.Function):
    """The divergences with their gradient by the student, which takes half the time written out.

    Among the others it is that of any KL of softmax, ``q - p``. The target against the rest gives
    ``q_y - p_y`` to the target's logit, and the same, taken off, to the others' as ``q``.
    """

    @staticmethod
    def forward(ctx: Any, t: Tensor, z: Tensor, own: Tensor, alpha: float, beta: float) -> Tensor:
        log_p, two_p = _apart(t, own)  # [B, C] without the target, [B, 2] target and rest
        log_q, two_q = _apart(z, own)
        p, q = log_p.exp(), log_q.exp()
        # The target is no part of this: its probabilities are 0, as it has to be for 0 * (-∞ + ∞).
        others = log_p.sub_(log_q).scatter_(1, own, 0.0).mul_(p).sum(1)
        target = divergence(two_p, two_q)
        pull = (two_q.exp() - two_p.exp()) * (alpha / len(z))
        slope = (q - p).mul_(beta / len(z)).addcmul_(q, pull[:, 1:]).scatter_(1, own, pull[:, :1])
        ctx.save_for_backward(slope)
        return (alpha * target + beta * others).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return None, slope * grad, None, None, None


def _apart(x: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities ``[B, C]`` among all but the target (there -∞), and ``[B, 2]`` of the two.

    Args:
        x: logits ``[B, C]``.
        own: the target's place ``[B, 1]``.
    """
    others = x.scatter(1, own, -math.inf)
    log_p = F.log_softmax(others, dim=1)
    # What log_softmax took off every entry, where it is most exact.
    rest = others.amax(1, keepdim=True) - log_p.amax(1, keepdim=True)  # log Σ exp
    return log_p, F.log_softmax(torch.cat([x.gather(1, own), rest], 1), dim=1)
