"""The largest of a teacher's probabilities, and what becomes of the others.

Shape legend: B batch, C classes.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def truncate(t: Tensor, k: int, *, spread: bool = True) -> tuple[Tensor, Tensor]:
    """Probabilities ``[B, C]`` of which the ``k`` largest are those of ``softmax(t)``; their logs.

    The others share what is left evenly (``spread``), or get nothing and the kept ones are divided
    by their sum: where there is nothing the logarithm is that of the smallest number, so that none
    is infinite. Of classes equal to the k-th all are kept. With ``k`` of C or more nothing changes.
    """
    p, log_p = F.softmax(t, dim=1), F.log_softmax(t, dim=1)
    if k >= t.shape[1]:
        return p, log_p
    # Factors of 0 and 1: on a CPU arithmetic is several times as fast as choosing.
    kept = largest(t, k)
    cut = p * kept
    if spread:
        rest = (p - cut).sum(1, keepdim=True)
        others = (t.shape[1] - kept.sum(1, keepdim=True)).clamp_min(1)
        share = rest / others
    else:
        share = p.new_zeros(())
        total = cut.sum(1, keepdim=True)
        p, log_p = cut / total, log_p - total.log()
    floor = 1e8 * torch.finfo(t.dtype).tiny  # products with it are no denormal numbers
    return torch.lerp(share, p, kept), torch.lerp(share.clamp_min(floor).log(), log_p, kept)


@torch.library.custom_op("skd_cache::largest", mutates_args=())
def largest(t: Tensor, k: int) -> Tensor:
    """1 where an entry is among the ``k`` largest of its row or equal to the k-th, else 0.

    On a CPU by numpy's partition, which takes a fifth of the time of torch's topk.
    """
    if t.device.type != "cpu":
        return (t >= t.topk(k, dim=1).values[:, -1:]).to(t.dtype)
    rows, place = t.detach().numpy(), t.shape[1] - k
    kth = np.partition(rows, place, axis=1)[:, place : place + 1]
    return torch.from_numpy((rows >= kth).astype(rows.dtype))


@largest.register_fake
def _(t: Tensor, k: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(t)
