"""The pieces losses are made of: rows as losses want them, unit vectors, divergences.

Shape legend: B batch, C classes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from skd_cache.batch import LogitBatch
from skd_cache.errors import InputError


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is where that is float64."""
    return x if x.dtype == torch.float64 else x.float()


def teacher_logits(teacher: LogitBatch | Tensor | None) -> Tensor:
    """The teacher's logits ``[B, C]``, float32 or float64, detached."""
    if teacher is None:
        raise InputError("This loss compares with a teacher, and was given none.")
    logits = teacher if isinstance(teacher, Tensor) else teacher.logits()
    return at_least_float32(logits.detach())


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """Centre along ``dim`` and scale to length one; what is constant becomes zeros.

    Constant is what centring leaves no more of than rounding would (a few units in the last place
    of the largest entry), so that neither value nor gradient is made of rounding errors.
    """
    centred = x - x.mean(dim, keepdim=True)
    norm = torch.linalg.vector_norm(centred, dim=dim, keepdim=True)
    rounding = 4 * torch.finfo(x.dtype).eps * math.sqrt(x.shape[dim])
    constant = norm <= rounding * x.detach().abs().amax(dim, keepdim=True)
    return torch.where(constant, 0.0, centred / torch.where(constant, 1.0, norm))


def softened_kl(t: Tensor, z: Tensor, temperature: float) -> Tensor:
    """``T² KL(softmax(t/T) ‖ softmax(z/T))``, summed over classes, averaged over the batch."""
    log_p = F.log_softmax(t / temperature, dim=1)
    log_q = F.log_softmax(z / temperature, dim=1)
    divergence = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return temperature**2 * divergence
