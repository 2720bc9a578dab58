"""Knowledge distillation with softened probabilities."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from skd_cache.losses.logits import softened_kl, teacher_logits
from skd_cache.losses.loss import Loss, Teacher


class KnowledgeDistillation(Loss):
    """``(1-α)·CE(z, y) + α·T²·KL(softmax(t/T) ‖ softmax(z/T))``.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531).
    Defaults are the custom on CIFAR; mdistiller's ImageNet rows have T=1 and α=0.5, DIST's KD
    rows T=4 and 0.9·CE + 1·KL.
    """

    name = "kd"
    ranges: ClassVar = {"temperature": (1e-2, 1e3), "alpha": (0.0, 1.0), "weight": (0.0, 1e6)}

    def __init__(self, temperature: float = 4.0, alpha: float = 0.9, weight: float = 1.0) -> None:
        super().__init__()
        self.temperature = self.number("temperature", temperature)
        self.alpha = self.number("alpha", alpha)
        self.weight = self.number("weight", weight)

    def label_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return (1 - self.alpha) * F.cross_entropy(z, labels)

    def teacher_term(self, z: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:  # noqa: ARG002
        return self.alpha * softened_kl(teacher_logits(teacher), z, self.temperature)
