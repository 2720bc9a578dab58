"""DIST: agree with the teacher's relations between classes and between samples."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.logits import teacher_logits, unit
from skd_cache.losses.loss import Loss, Teacher


class Dist(Loss):
    """``CE + β·τ²·(1 - mean_i ρ(p_z[i,:], p_t[i,:])) + γ·τ²·(1 - mean_j ρ(p_z[:,j], p_t[:,j]))``.

    ``p = softmax(·/τ)``, ρ Pearson's correlation; rows are samples (inter-class relations), columns
    are classes over the batch (intra-class relations). Huang et al., "Knowledge Distillation from A
    Stronger Teacher" (arXiv 2205.10536): β=γ=2, τ=1 on ImageNet, τ=4 on CIFAR. Columns span the
    batch of one process, as in the authors' runs, so the loss depends on the batch size per
    process. Two constants correlate fully: a batch of one has no intra-class term.
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
        self.beta = self.check("beta", beta)
        self.gamma = self.check("gamma", gamma)
        self.tau = self.check("tau", tau)
        self.weight = self.check("weight", weight)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        p_z = F.softmax(z / self.tau, dim=1)
        p_t = F.softmax(teacher_logits(teacher) / self.tau, dim=1)
        inter = 1 - pearson(p_z, p_t, dim=1).mean()
        intra = 1 - pearson(p_z, p_t, dim=0).mean()
        return self.tau**2 * (self.beta * inter + self.gamma * intra)


def pearson(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Pearson's correlation along ``dim``; 1 where both are constant, 0 where only one is."""
    u, v = unit(x, dim), unit(y, dim)
    both_constant = (u.detach() == 0).all(dim) & (v == 0).all(dim)
    return (u * v).sum(dim) + both_constant
