"""Similar classes: the teacher as what its last layer says about classes, whatever the image."""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from skd_cache.batch import LogitBatch
from skd_cache.errors import InputError
from skd_cache.losses.logits import divergence
from skd_cache.losses.loss import Loss, Teacher

_HALVINGS = 60


class SimilarClasses(Loss):
    """``(1-α)·CE(z, y) + α·T²·KL(p ‖ softmax(z/T))``, ``p = softmax(cos(W_y, W_·)/τ)``.

    W are the class weights of the teacher's last layer. The "domain" level of knowledge of Tang et
    al., "Understanding and Improving Knowledge Distillation" (arXiv 2002.03532), whose full text we
    could not read: T=1 and α=0.9 as in ``kd-pt``. At τ=1 and 1000 classes p is all but uniform, so
    by default (``tau="confidence"``) τ is such that the mean of p_y over the classes equals the
    teacher's mean probability of the true class, solved once from the cache's statistics. A cache
    comes with the weights when its teacher ends in a linear layer; elsewhere they are given as
    ``class_weight`` ``[C, D]``.
    """

    name = "kd-sim"
    soft_labels = False
    ranges: ClassVar = {
        "temperature": (1e-2, 1e3),
        "alpha": (0.0, 1.0),
        "tau": (1e-3, 1e3),
        "weight": (0.0, 1e6),
    }
    words: ClassVar = {"tau": ("confidence",)}
    cosines: Tensor | None  # [C, C]

    def __init__(
        self,
        tau: float | Literal["confidence"] = "confidence",
        temperature: float = 1.0,
        alpha: float = 0.9,
        weight: float = 1.0,
        class_weight: Any = None,
    ) -> None:
        super().__init__()
        self.tau = self.check("tau", tau)
        self.temperature = self.number("temperature", temperature)
        self.alpha = self.number("alpha", alpha)
        self.weight = self.number("weight", weight)
        self.register_buffer("cosines", None, persistent=False)
        self._solved: tuple[float, Tensor] | None = None
        if class_weight is not None:
            self.take_class_weight(class_weight)

    def take_class_weight(self, class_weight: Any) -> None:
        """Take the teacher's last-layer weights ``[C, D]``, an array or a tensor.

        Raises:
            InputError: they are no matrix of finite numbers.
        """
        try:
            weight = torch.as_tensor(class_weight).detach().double()
        except (TypeError, ValueError, RuntimeError):
            weight = torch.empty(0)
        if weight.dim() != 2 or not bool(torch.isfinite(weight).all()):
            raise InputError(
                "Loss 'kd-sim': class_weight must be the teacher's last-layer weights, a matrix "
                "[C, D] of finite numbers."
            )
        unit = F.normalize(weight, dim=1)
        self.cosines = (unit @ unit.T).fill_diagonal_(1.0)
        self._solved = None

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return (1 - self.alpha) * F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        cosines = self.cosines
        if cosines is None:
            raise InputError(
                "Loss 'kd-sim' needs the teacher's last-layer weights, which a cache has when its "
                "teacher ends in a linear layer: give class_weight, or take another loss."
            )
        if len(cosines) != z.shape[1]:
            raise InputError(
                f"Loss 'kd-sim': class_weight has {len(cosines)} classes, "
                f"the logits have {z.shape[1]}."
            )
        if self.tau == "confidence":
            scaled = cosines / self.solve(cosines, teacher)
        else:
            scaled = cosines / float(self.tau)
        log_p = F.log_softmax(scaled, dim=1).to(z.dtype).index_select(0, labels)
        kl = divergence(log_p, F.log_softmax(z / self.temperature, dim=1)).mean()
        return self.alpha * self.temperature**2 * kl

    def solve(self, cosines: Tensor, teacher: Teacher) -> Tensor:
        """The τ at which the mean of p_y is the teacher's mean probability of the true class."""
        if not isinstance(teacher, LogitBatch) or not teacher.statistics.count:
            raise InputError(
                "Loss 'kd-sim' with tau=confidence needs the statistics of a cache, which this "
                "teacher has not: give a number as tau."
            )
        confidence = teacher.statistics.mean_true_confidence
        if self._solved is None or self._solved[0] != confidence:
            self._solved = confidence, solve_tau(cosines, confidence, *self.ranges["tau"])
        return self._solved[1]


def solve_tau(cosines: Tensor, confidence: float, low: float, high: float) -> Tensor:
    """The τ at which the mean probability of a class by itself is ``confidence``.

    It falls with τ, so that halving finds it; the nearer end where it lies outside.

    Args:
        cosines: ``[C, C]``, ones on the diagonal.
        confidence: wanted.
        low: smallest τ.
        high: largest τ.
    """
    below, above = (cosines.new_tensor(math.log(end)) for end in (low, high))
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        own = F.softmax(cosines / middle.exp(), dim=1).diagonal().mean()
        sure = own > confidence
        below, above = torch.where(sure, middle, below), torch.where(sure, above, middle)
    return ((below + above) / 2).exp()
