"""Cross-entropy against the teacher's probabilities, without labels."""

from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.logits import teacher_logits
from skd_cache.losses.loss import Loss, Teacher
from skd_cache.losses.truncate import truncate


class SoftCrossEntropy(Loss):
    """``-Σ_c p_c·log softmax(z)_c``, ``p = softmax(t)``; the labels are not looked at.

    With ``k`` only the k largest probabilities are kept, and the tail is ``spread`` evenly over the
    other classes or the kept ones are ``renormalised``. TinyViT (Wu et al., arXiv 2207.10666)
    spreads, as FKD (Shen and Xing, arXiv 2112.01528) does by default, which has the other as an
    option. All classes by default: ``k`` is what others had to save on. Of classes that are equal
    to the k-th all are kept.
    """

    name = "soft-ce"
    has_label_term = False
    ranges: ClassVar = {"weight": (0.0, 1e6)}
    words: ClassVar = {"tail": ("spread", "renormalised")}
    counts: ClassVar = ("k",)

    def __init__(
        self,
        k: int | None = None,
        tail: Literal["spread", "renormalised"] = "spread",
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.k = None if k is None else self.count("k", k)
        self.tail = self.choice("tail", tail)
        self.weight = self.number("weight", weight)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return z.new_zeros(())

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        t = teacher_logits(teacher)
        if self.k is None:
            p = F.softmax(t, dim=1)
        else:
            p, _ = truncate(t, self.k, spread=self.tail == "spread")
        return -(p * F.log_softmax(z, dim=1)).sum(1).mean()
