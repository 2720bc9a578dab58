"""Logit standardisation: z-scores on both sides before the divergence."""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.dkd import decoupled_kl
from skd_cache.losses.logits import divergence, standardised, teacher_logits
from skd_cache.losses.loss import Loss, Teacher

STABLE = 1e-7  # the authors' addition to the deviation


class LogitStandardisation(Loss):
    """``(1-α)·CE(z, y) + weight·T²·KL(softmax(t'/T) ‖ softmax(z'/T))``, or ``dkd`` of z', t'.

    ``x' = (x - mean)/(std + 1e-7)`` of each row, with the unbiased standard deviation; the
    cross-entropy is of the logits as they are. With ``base="dkd"``:
    ``CE(z, y) + weight·T²·(α·TCKD + β·NCKD)``. Sun et al., "Logit Standardization in Knowledge
    Distillation" (arXiv 2403.01427) and its code, on CIFAR-100: T=2 and weight 9, so
    0.1·CE + 9·T²·KL with ``kd`` (α=0.9, here of the cross-entropy alone) and α=1, β=8 times 9 with
    ``dkd``; by pair weights from 1 to 18, T from 2 to 4. Rows of equal logits, whose z-score would
    be rounding errors, become zeros without a gradient.
    """

    name = "logit-std"
    ranges: ClassVar = {
        "temperature": (1e-2, 1e3),
        "alpha": (0.0, 1e3),
        "beta": (0.0, 1e3),
        "weight": (0.0, 1e6),
    }
    words: ClassVar = {"base": ("kd", "dkd")}

    def __init__(
        self,
        base: Literal["kd", "dkd"] = "kd",
        temperature: float = 2.0,
        alpha: float | None = None,
        beta: float = 8.0,
        weight: float = 9.0,
    ) -> None:
        super().__init__()
        self.base = self.choice("base", base)
        self.soft_labels = base == "kd"
        self.temperature = self.number("temperature", temperature)
        usual = 0.9 if base == "kd" else 1.0
        self.alpha = self.number("alpha", usual if alpha is None else alpha)
        self.beta = self.number("beta", beta)
        self.weight = self.number("weight", weight)

    def range_of(self, option: str) -> tuple[float, float]:
        if option == "alpha" and self.base == "kd":
            return (0.0, 1.0)
        return super().range_of(option)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return (1 - self.alpha if self.base == "kd" else 1.0) * F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        t = z_score(teacher_logits(teacher), self.temperature)
        z = z_score(z, self.temperature)
        if self.base == "kd":
            kl = divergence(F.log_softmax(t, dim=1), F.log_softmax(z, dim=1)).mean()
        else:
            kl = decoupled_kl(t, z, labels, self.alpha, self.beta)
        return self.temperature**2 * kl


def z_score(x: Tensor, temperature: float) -> Tensor:
    """``(x - mean)/(std + 1e-7)/T`` of each row ``[B, C]``; zeros where all are equal."""
    score: Tensor = _ZScore.apply(x, temperature)
    return score


class _ZScore(torch.autograd.Function):
    """``f(s)·u`` of standardised rows ``u`` of deviation s, ``f(s) = s/(s·√(C/(C-1)) + 1e-7)/T``.

    Its gradient written out: ``f/s·g + (f' - f/s)·mean(g·u)·u``, of gradients g that sum to 0 in
    every row as those of all divergences of softmax do.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, temperature: float) -> Tensor:
        rows, deviation = standardised(x)
        bessel = math.sqrt(x.shape[1] / max(x.shape[1] - 1, 1))
        unbiased = deviation * bessel + STABLE
        ratio = (deviation > 0).to(x.dtype) / unbiased / temperature  # f/s
        ctx.save_for_backward(rows, ratio, ratio * (STABLE / unbiased - 1))
        return rows * (deviation * ratio)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rows, ratio, change = ctx.saved_tensors
        along = (grad * rows).mean(1, keepdim=True)
        return (grad * ratio).addcmul_(rows, change * along), None
