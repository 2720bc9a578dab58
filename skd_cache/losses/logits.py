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


def standardised(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of mean 0 and population variance 1, ``[B, C]``, and their deviations, ``[B, 1]``.

    A row is constant when centring leaves no more of it than rounding would, and then its deviation
    is told as 0: multiplied with that, or with anything that is 0 there, neither the row nor its
    gradient is made of rounding errors. The deviations carry no gradient.
    """
    limits = torch.finfo(x.dtype)
    # One kernel both ways: a third of the time of mean, norm and quotient.
    rows, mean, inverse = torch.native_layer_norm(x, x.shape[1:], None, None, limits.tiny)
    deviation = inverse.detach().reciprocal()
    rounding = 4 * limits.eps * mean.detach().abs() + 2 * math.sqrt(limits.tiny)
    return rows, deviation * (deviation > rounding)


def softened_kl(t: Tensor, z: Tensor, temperature: float) -> Tensor:
    """``T² KL(softmax(t/T) ‖ softmax(z/T))``, summed over classes, averaged over the batch."""
    log_p = F.log_softmax(t / temperature, dim=1)
    log_q = F.log_softmax(z / temperature, dim=1)
    divergence = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p ‖ q)`` of each row, ``[B]``, from finite logarithms ``[B, C]``.

    Three fifths of the time of `torch.nn.functional.kl_div`, whose gradient takes ``exp`` again.
    """
    return (log_p.exp() * (log_p - log_q)).sum(1)


def entropy(log_q: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of labels ``[B]`` or soft labels ``[B, C]``, averaged over the batch."""
    if labels.dim() == 1:
        return F.nll_loss(log_q, labels)
    return -(labels * log_q).sum(1).mean()


def log_rest(x: Tensor, labels: Tensor) -> Tensor:
    """``log Σ_{i≠y} exp(x_i)``, ``[B, 1]``: all classes but the label's."""
    return torch.logsumexp(x.scatter(1, labels[:, None], -math.inf), 1, keepdim=True)


def target_and_rest(x: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities ``[B, 2]`` of the label's class and of all others together."""
    pair = torch.cat([x.gather(1, labels[:, None]), log_rest(x, labels)], 1)
    return F.log_softmax(pair, dim=1)


def spread_over_rest(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """``softmax(x)`` of the label's class, the rest shared evenly, ``[B, C]``; and its logs."""
    log_two, others = target_and_rest(x, labels), x.shape[1] - 1
    two, own = log_two.exp(), labels[:, None]
    p = (two[:, 1:] / others).expand_as(x).scatter(1, own, two[:, :1])
    log_p = (log_two[:, 1:] - math.log(others)).expand_as(x).scatter(1, own, log_two[:, :1])
    return p, log_p
