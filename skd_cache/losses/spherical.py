"""Spherical knowledge distillation: directions only, at one common norm."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from skd_cache.batch import LogitBatch
from skd_cache.errors import InputError
from skd_cache.losses.logits import at_least_float32, divergence, standardised, teacher_logits
from skd_cache.losses.loss import Loss, Teacher


class Spherical(Loss):
    """``(1-α)·CE(m·u_z, y) + α·T²·KL(softmax(m·u_t/T) ‖ softmax(m·u_z/T))``.

    ``u`` is a row of logits centred and scaled to length one. Guo et al., "Reducing the
    Teacher-Student Gap via Spherical Knowledge Distillation" (arXiv 2010.07485) and its code.
    The multiplier ``m`` has three published forms: ``scale="mean"``, the teacher's mean norm over
    the cache (the paper's); ``scale="sample"``, each sample's own teacher norm (the authors' later
    code); or a number in units of standard deviation, ``unit="std"`` (the authors' README: between
    2 and 3; the norm is √C times that), or of the norm itself, ``unit="norm"``.
    """

    name = "spherical"
    ranges: ClassVar = {
        "temperature": (1e-2, 1e3),
        "alpha": (0.0, 1.0),
        "scale": (1e-3, 1e6),
        "weight": (0.0, 1e6),
    }
    words: ClassVar = {"scale": ("mean", "sample"), "unit": ("std", "norm")}

    def __init__(
        self,
        temperature: float = 4.0,
        alpha: float = 0.9,
        scale: float | Literal["mean", "sample"] = "mean",
        unit: Literal["std", "norm"] = "std",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = self.number("temperature", temperature)
        self.alpha = self.number("alpha", alpha)
        self.scale = self.check("scale", scale)
        self.unit = self.choice("unit", unit)
        self.weight = self.number("weight", weight)

    def terms(self, z: Tensor, teacher: Teacher, labels: Tensor) -> tuple[Tensor, Tensor]:
        t, deviation = standardised(teacher_logits(teacher))
        m = self.multiplier(teacher, z)
        t = to_sphere(t, deviation, m / self.temperature)
        z, deviation = standardised(z)
        label_term = F.cross_entropy(to_sphere(z, deviation, m), labels)
        z = to_sphere(z, deviation, m / self.temperature)
        kl = divergence(F.log_softmax(t, dim=1), F.log_softmax(z, dim=1)).mean()
        return (1 - self.alpha) * label_term, self.alpha * self.temperature**2 * kl

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        return self.terms(z, teacher, labels)[0]

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        return self.terms(z, teacher, labels)[1]

    def multiplier(self, teacher: Teacher, z: Tensor) -> Tensor | float:
        """The common norm ``m``: a number, or ``[B, 1]`` where each sample has its own."""
        if self.scale == "sample":
            return _norms(teacher)[:, None]
        if self.scale == "mean":
            if not isinstance(teacher, LogitBatch) or not teacher.statistics.count:
                raise InputError(
                    "Loss 'spherical' with scale=mean needs the statistics of a cache, which this "
                    "teacher has not: give a number as scale, or scale=sample."
                )
            return teacher.statistics.mean_norm
        return float(self.scale) * (math.sqrt(z.shape[1]) if self.unit == "std" else 1.0)


def to_sphere(rows: Tensor, deviation: Tensor, norm: Tensor | float) -> Tensor:
    """Standardised rows ``[B, C]`` at a norm; zeros where the deviation is 0."""
    return rows * ((deviation > 0).to(rows.dtype) * (norm / math.sqrt(rows.shape[1])))


def _norms(teacher: Teacher) -> Tensor:
    """The norm of each centred row, ``[B]``."""
    if isinstance(teacher, LogitBatch):
        return at_least_float32(teacher.norm.detach())
    t = teacher_logits(teacher)
    norms: Tensor = torch.linalg.vector_norm(t - t.mean(1, keepdim=True), dim=1)
    return norms
