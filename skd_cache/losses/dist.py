"""DIST: agree with the teacher's relations between classes and between samples."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.logits import teacher_logits
from skd_cache.losses.loss import Loss, Teacher


class Dist(Loss):
    """``CE + β·τ²·(1 - mean_i ρ(p_z[i,:], p_t[i,:])) + γ·τ²·(1 - mean_j ρ(p_z[:,j], p_t[:,j]))``.

    ``p = softmax(·/τ)``, ρ Pearson's correlation; rows are samples (inter-class relations), columns
    are classes over the batch (intra-class relations). Huang et al., "Knowledge Distillation from A
    Stronger Teacher" (arXiv 2205.10536): β=γ=2, τ=1 on ImageNet, τ=4 on CIFAR. Columns span the
    batch of one process, as in the authors' runs, so the loss depends on the batch size per
    process. Two constants correlate fully: a batch of one has no intra-class term. The authors'
    code adds 1e-8 to the product of two lengths, which shows where columns are short (by 6e-4 of
    the gradient with τ=4 and 32 samples of 1000 classes); here nothing is added.
    """

    name = "dist"
    ranges: ClassVar = {
        "beta": (0.0, 1e3),
        "gamma": (0.0, 1e3),
        "tau": (1e-2, 1e3),
        "weight": (0.0, 1e6),
    }

    def __init__(
        self, beta: float = 2.0, gamma: float = 2.0, tau: float = 1.0, weight: float = 1.0
    ) -> None:
        super().__init__()
        self.beta = self.number("beta", beta)
        self.gamma = self.number("gamma", gamma)
        self.tau = self.number("tau", tau)
        self.weight = self.number("weight", weight)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        t = teacher_logits(teacher)
        if self.tau != 1:
            z, t = z / self.tau, t / self.tau
        p_z, p_t = F.softmax(z, dim=1), F.softmax(t, dim=1)
        relations: Tensor = _Relations.apply(p_z, p_t, self.beta, self.gamma)
        return self.tau**2 * relations


class _Relations(torch.autograd.Function):
    """``β·(1 - mean_i ρ(p[i,:], q[i,:])) + γ·(1 - mean_j ρ(p[:,j], q[:,j]))`` of probabilities.

    The gradient is written out, and taken along with the value: ``∂ρ/∂a = (b̂ - ρ·â) / |a|`` with
    â, b̂ the centred vectors at length one. Left to autograd this takes three times as long.
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, q: Tensor, beta: float, gamma: float) -> Tensor:
        B, C = p.shape
        # Rows of probabilities have the mean 1/C. Columns are divided by theirs: classes of which
        # nothing is above 1e-25 correlate as well as others.
        a, b = p - 1 / C, q - 1 / C
        inter, along_a, along_b = pearson(a, b, dim=1, size=1 / C)
        slope = a.mul_(along_a * (-beta / B)).addcmul_(b, along_b * (-beta / B))
        over_p, over_q = inverse(p.mean(0)), inverse(q.mean(0))
        a, b = (torch.addcmul(-(o > 0).to(x.dtype), x, o) for x, o in ((p, over_p), (q, over_q)))
        intra, along_a, along_b = pearson(a, b, dim=0, size=B)
        slope.addcmul_(a, along_a * over_p * (-gamma / C))
        slope.addcmul_(b, along_b * over_p * (-gamma / C))
        ctx.save_for_backward(slope)
        return beta * (1 - inter.mean()) + gamma * (1 - intra.mean())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad, None, None, None


def pearson(a: Tensor, b: Tensor, dim: int, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pearson's correlation along ``dim``, and the factors of a and b in its gradient by ``a``.

    1 where both are constant, 0 where only one is. Constant is what centring leaves no more of
    than rounding would.

    Args:
        a: centred.
        b: centred.
        dim: along which.
        size: sum of the squares of the means that were subtracted.
    """
    over_a, over_b = (_inverse_length(x, dim, size) for x in (a, b))
    rho = (a * b).sum(dim, keepdim=True) * over_a * over_b
    both_constant = (over_a == 0) & (over_b == 0)
    return rho + both_constant, -rho * over_a**2, over_a * over_b


def _inverse_length(x: Tensor, dim: int, size: float) -> Tensor:
    if dim == 1:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    else:  # of columns it takes three times as long as this
        length = (x * x).sum(0, keepdim=True).sqrt()
    rounding = 4 * torch.finfo(x.dtype).eps * (length**2 + size).sqrt()
    return inverse(length * (length > rounding))


def inverse(x: Tensor) -> Tensor:
    """``1/x``, and 0 where ``x`` is 0 or so small that products with ``1/x`` could overflow."""
    enough = x > 1e8 * torch.finfo(x.dtype).tiny
    return enough / torch.where(enough, x, 1.0)
