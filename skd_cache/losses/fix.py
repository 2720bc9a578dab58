"""Corrections of the teacher's logits in front of any loss; the cache stays as it is.

Shape legend: B batch, C classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skd_cache.batch import LogitBatch
from skd_cache.errors import InputError
from skd_cache.losses.combined import Combined
from skd_cache.losses.logits import teacher_logits
from skd_cache.losses.loss import Loss, Teacher
from skd_cache.losses.naming import nearest
from skd_cache.losses.truncate import truncate

Fix = Callable[[Tensor, Tensor], Tensor]
"""Teacher logits ``[B, C]`` and labels to corrected logits ``[B, C]``."""


def swap(t: Tensor, labels: Tensor) -> Tensor:
    """Let the top class and the true one change places where the teacher is wrong.

    Swapped logit distillation: Limantoro et al., "Swapped Logit Distillation via Bi-level Teacher
    Alignment" (2025) and its code; Wen et al., "Preparing Lessons" (arXiv 1911.07471), before it.
    """
    if labels.dim() != 1:
        raise InputError("--teacher-fix swap needs the true class of every sample, not soft labels")
    own = labels[:, None]
    highest, top = t.max(dim=1, keepdim=True)
    return t.scatter(1, top, t.gather(1, own)).scatter(1, own, highest)


def keep_top(t: Tensor, labels: Tensor, k: int) -> Tensor:  # noqa: ARG001
    """Log-probabilities that keep the ``k`` largest and spread the rest evenly."""
    return truncate(t, k)[1]


def smooth(t: Tensor, labels: Tensor, epsilon: float) -> Tensor:  # noqa: ARG001
    """Log-probabilities of ``(1-ε)·softmax(t) + ε/C``."""
    log_p = F.log_softmax(t, dim=1)
    if epsilon == 0:
        return log_p
    share = log_p.new_tensor(math.log(epsilon / t.shape[1]))
    return torch.logaddexp(log_p + math.log1p(-epsilon), share)


FIXES: dict[str, Callable[..., Tensor]] = {
    "swap": swap,
    "topk:K": keep_top,
    "smooth:EPS": smooth,
}
"""What each form of ``--teacher-fix`` does."""


class Fixed(nn.Module):
    """A loss that sees a corrected teacher; called as the loss is.

    The statistics of the cache, which some losses look at, stay those of the teacher as it was.
    """

    def __init__(self, loss: Loss | Combined, fixes: Sequence[Fix]) -> None:
        super().__init__()
        self.loss = loss
        self.fixes = tuple(fixes)
        self.needs_teacher = loss.needs_teacher

    def forward(self, student: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        value: Tensor = self.loss(student, self.corrected(teacher, labels), labels)
        return value

    def corrected(self, teacher: Teacher, labels: Tensor) -> Teacher:
        """The teacher after all corrections, in order."""
        t = teacher_logits(teacher)
        for fix in self.fixes:
            t = fix(t, labels)
        if not isinstance(teacher, LogitBatch):
            return t
        norm = torch.linalg.vector_norm(t - t.mean(1, keepdim=True), dim=1)
        return replace(teacher, norm=norm, code={"logits": t}, decoder=_AsTheyAre())


@dataclass(frozen=True)
class _AsTheyAre:
    """The decoder of logits that are no code."""

    def decode(self, code: Mapping[str, Tensor], norm: Tensor) -> Tensor:  # noqa: ARG002
        return code["logits"]


@dataclass(frozen=True)
class _KeepTop:
    k: int

    def __call__(self, t: Tensor, labels: Tensor) -> Tensor:
        return keep_top(t, labels, self.k)


@dataclass(frozen=True)
class _Smooth:
    epsilon: float

    def __call__(self, t: Tensor, labels: Tensor) -> Tensor:
        return smooth(t, labels, self.epsilon)


def parse_fix(text: str) -> Fix:
    """Read ``swap``, ``topk:K`` or ``smooth:EPS``, for example ``topk:100``.

    Raises:
        InputError: not of that form (with the nearest), or out of range.
    """
    name, _, argument = (part.strip() for part in text.partition(":"))
    if name == "swap" and not argument:
        return swap
    if name == "topk":
        if argument.isascii() and argument.isdigit() and int(argument) > 0:
            return _KeepTop(int(argument))
        raise InputError(f"--teacher-fix '{text}': topk needs a whole number, as in topk:100.")
    if name == "smooth":
        try:
            epsilon = float(argument)
        except ValueError:
            epsilon = math.nan
        if 0 <= epsilon < 1:
            return _Smooth(epsilon)
        raise InputError(f"--teacher-fix '{text}': smooth needs 0 up to less than 1 (smooth:0.1).")
    known = [form.partition(":")[0] for form in FIXES]
    raise InputError(
        f"--teacher-fix '{text}' is not of the form {', '.join(FIXES)} ({nearest(name, known)})."
    )


def fix_teacher(loss: Loss | Combined, fixes: Sequence[Fix]) -> Loss | Combined | Fixed:
    """The loss behind corrections of its teacher; itself where there are none.

    Raises:
        InputError: the loss has no teacher that could be corrected.
    """
    if not fixes:
        return loss
    if not loss.needs_teacher:
        raise InputError("--teacher-fix corrects a teacher, and --loss ce has none.")
    return Fixed(loss, fixes)
