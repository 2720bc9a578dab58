"""What a dataset is: its splits, and the defaults that make a bare command a recipe."""

from dataclasses import dataclass
from typing import Literal

from skd_cache.dataset.images import ImageSet


@dataclass(frozen=True)
class Defaults:
    """How a dataset is looked at and learned from unless a command says otherwise.

    ``size`` and ``eval_resize`` are pixels, ``mean`` and ``std`` are per channel of images in
    [0, 1], ``milestones`` are epochs (of the ``step`` schedule).
    """

    size: int
    policy: str
    eval_resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    student: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: Literal["cosine", "step"]
    milestones: tuple[int, ...] = ()
    warmup_epochs: int = 0
    interpolation: str = "bilinear"
    views: int = 10


@dataclass(frozen=True)
class Dataset:
    """An opened dataset; ``kind`` names the format whose defaults it carries."""

    name: str
    kind: str
    train: ImageSet
    val: ImageSet | None
    defaults: Defaults

    @property
    def splits(self) -> dict[str, ImageSet]:
        """The splits there are, by name."""
        return {"train": self.train} | ({"val": self.val} if self.val is not None else {})
