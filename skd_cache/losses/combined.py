"""Several losses as one."""

from collections.abc import Sequence

from torch import Tensor, nn

from skd_cache.losses.logits import at_least_float32
from skd_cache.losses.loss import Loss, Teacher


class Combined(nn.Module):
    """The teacher terms add up, the label term counts once.

    The label term is that of ``ce`` where it is among the losses, else that of the first one which
    has one, with the weight its own formula gives it.
    """

    def __init__(self, losses: Sequence[Loss]) -> None:
        super().__init__()
        self.losses = tuple(losses)
        self.terms = nn.ModuleList(losses)  # what modules() and to() walk
        without_teacher = [loss for loss in losses if not loss.needs_teacher]
        with_labels = [loss for loss in losses if loss.has_label_term]
        self.labelled = next(iter([*without_teacher, *with_labels, *losses]))
        self.needs_teacher = any(loss.needs_teacher for loss in losses)

    def forward(self, student: Tensor, teacher: Teacher, labels: Tensor) -> Tensor:
        z = at_least_float32(student)  # [B, C]
        total = z.new_zeros(())
        for loss in self.losses:
            loss.check_batch(z, teacher, labels)
            if loss is self.labelled:
                label_term, teacher_term = loss.terms(z, teacher, labels)
                total = total + label_term
            else:
                teacher_term = loss.teacher_term(z, teacher, labels)
            total = total + loss.weight * teacher_term
        return total


def combine(losses: Sequence[Loss]) -> Loss | Combined:
    """One module from one or more losses, called as each of them is."""
    return losses[0] if len(losses) == 1 else Combined(losses)
