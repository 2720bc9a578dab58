"""Several losses as one."""

from collections.abc import Sequence

from torch import Tensor, nn

from skd_cache.losses.logits import at_least_float32
from skd_cache.losses.loss import Loss, Teacher


class Combined(nn.Module):
    """The teacher terms add up, the label term counts once.

    The label term is that of ``ce`` where it is among the losses, else the first one's, with the
    weight its own formula gives it.
    """

    def __init__(self, losses: Sequence[Loss]) -> None:
        super().__init__()
        self.losses = tuple(losses)
        self.terms = nn.ModuleList(losses)  # what modules() and to() walk
        self.labelled = next((loss for loss in losses if not loss.needs_teacher), losses[0])
        self.needs_teacher = any(loss.needs_teacher for loss in losses)

    def forward(self, student: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        z = at_least_float32(student)  # [B, C]
        total = self.labelled.label_term(z, teacher, labels)
        for loss in self.losses:
            total = total + loss.weight * loss.teacher_term(z, teacher, labels)
        return total


def combine(losses: Sequence[Loss]) -> Loss | Combined:
    """One module from one or more losses, called as each of them is."""
    return losses[0] if len(losses) == 1 else Combined(losses)
