"""Is the teacher what it should be? A look at its accuracy before it labels everything."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.errors import InputError
from skd_cache.teacher.ensemble import Ensemble, joint
from skd_cache.teacher.forward import Teacher

_SIGMAS = 4  # of sampling error
_POINTS = 0.02
_SUSPECTS = "suspect the normalisation, the order of the classes, the resizing"


@dataclass(frozen=True)
class Preflight:
    """The teacher's accuracy on a sample, beside what was published. Shares are 0 to 1."""

    top1: float
    samples: int
    published: float | None
    dataset: str | None  # where the published figure was measured
    warning: str | None
    who: str = "teacher"

    def __str__(self) -> str:
        found = f"{self.who} top-1 {self.top1:.1%} on {self.samples:,} validation images"
        if self.published is None:
            return f"{found} (no published figure)"
        return f"{found} (published: {self.published:.1%}{_on(self.dataset)})"


def preflight(
    teacher: Teacher, batches: Iterable[tuple[Tensor, NDArray[np.int32] | Tensor]]
) -> Preflight:
    """Let the teacher label a sample of the validation set.

    It warns when top-1 differs from the published figure by more than two points and four standard
    errors; without such a figure, when it is no better than guessing.

    Args:
        teacher: who is looked at.
        batches: images uint8 ``[B, S, S, 3]`` and their labels ``[B]``.

    Raises:
        InputError: there are no batches.
    """
    (found,) = preflight_all(
        Ensemble((teacher,)), (([images], labels) for images, labels in batches)
    )
    return found


def preflight_all(
    ensemble: Ensemble,
    batches: Iterable[tuple[Sequence[Tensor], NDArray[np.int32] | Tensor]],
) -> list[Preflight]:
    """:func:`preflight` of teachers together and then of each; of a lone one, once.

    Args:
        ensemble: who is looked at.
        batches: images uint8 ``[B, S, S, 3]`` as each teacher wants them, and labels ``[B]``.

    Raises:
        InputError: there are no batches.
    """
    members = ensemble.members
    alone = len(members) == 1
    hits, samples = np.zeros(len(members) + 1, np.int64), 0
    for images, labels in batches:
        answers = [one.logits(seen) for one, seen in zip(members, images, strict=True)]
        true = torch.as_tensor(labels).cpu()
        for row, logits in enumerate([joint(answers), *answers]):
            hits[row] += int((logits.argmax(1).cpu() == true).sum())
        samples += len(true)
    if not samples:
        raise InputError("The validation set is empty, so the teacher cannot be checked on it.")
    together, *each = (hits / samples).tolist()
    if alone:
        return [_judged(together, samples, members[0], "teacher")]
    name = f"ensemble of {len(members)}"
    warning = _warning(together, samples, None, None, ensemble.classes, name)
    return [
        Preflight(together, samples, None, None, warning, name),
        *(
            _judged(top1, samples, member, f"teacher {member.architecture}")
            for top1, member in zip(each, members, strict=True)
        ),
    ]


def _judged(top1: float, samples: int, teacher: Teacher, who: str) -> Preflight:
    published, dataset = teacher.published_top1, teacher.published_dataset
    warning = _warning(top1, samples, published, dataset, teacher.classes, who)
    return Preflight(top1, samples, published, dataset, warning, who)


def _warning(
    top1: float, samples: int, published: float | None, dataset: str | None, classes: int, who: str
) -> str | None:
    if published is None:
        chance = 1 / classes
        if top1 > chance + _SIGMAS * _error(chance, samples):
            return None
        return f"the {who}'s top-1 of {top1:.1%} is no better than guessing: {_SUSPECTS}."
    if abs(top1 - published) <= max(_POINTS, _SIGMAS * _error(published, samples)):
        return None
    return (
        f"the {who}'s top-1 of {top1:.1%} is far from the published {published:.1%}"
        f"{_on(dataset)}: {_SUSPECTS}."
    )


def _error(share: float, samples: int) -> float:
    """The standard error of a share counted on that many samples."""
    return math.sqrt(share * (1 - share) / samples)


def _on(dataset: str | None) -> str:
    return f" on {dataset}" if dataset else ""
