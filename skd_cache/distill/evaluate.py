"""How often a network is right on images it has not learned from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skd_cache.dataset.dataset import Dataset
from skd_cache.dataset.images import ImageSet
from skd_cache.distill.student import Portrait, load_student
from skd_cache.distill.together import Team
from skd_cache.distill.views import Pixels, Seat, batch_bounds
from skd_cache.errors import InputError
from skd_cache.pixels import normalise
from skd_cache.progress import track
from skd_cache.replay import Policy
from skd_cache.world import World


@dataclass(frozen=True)
class Accuracy:
    """Shares of images, in [0, 1], whose label is the first, or among the first five, answers."""

    top1: float
    top5: float
    images: int


class Validation:
    """A validation set, ready to be gone through after every epoch.

    Images are resized and cut as torchvision's evaluation transform does; processes that train
    together share them.
    """

    def __init__(
        self,
        images: ImageSet,
        portrait: Portrait,
        *,
        batch_size: int,
        pixels: Pixels,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        team: Team | None = None,
    ) -> None:
        self.images, self.portrait, self._team = images, portrait, team or Team(World())
        seat = Seat(self._team.rank, self._team.size)
        wholes = batch_bounds(len(images), batch_size * seat.world)
        self._samples = [np.arange(*seat.part(*whole)) for whole in wholes]
        self._device, self._dtype = device, dtype
        policy = Policy.from_dict({"interpolation": portrait.interpolation})
        self._backend = pixels.open(images, policy, portrait.size)

    @torch.inference_mode()
    def measure(self, model: nn.Module, each: Callable[[int], None] = lambda _: None) -> Accuracy:
        """Top-1 and top-5 of a network; ``each`` hears the size of every batch of ours."""
        was_training = model.training
        model.eval()
        hits = torch.zeros(2, dtype=torch.int64, device=self._device)
        first = min(5, self.portrait.classes)
        stream = self._backend.stream_eval(filter(len, self._samples), self.portrait.resize)
        for chosen in self._samples:
            if len(chosen):
                images = normalise(
                    next(stream).to(self._device), self.portrait.mean, self.portrait.std
                )
                with torch.autocast(
                    self._device.type, self._dtype, enabled=self._dtype != torch.float32
                ):
                    logits = model(images)  # [B, C]
                labels = self._labels(chosen).to(self._device)
                right = logits.float().topk(first, dim=1).indices == labels[:, None]  # [B, 5]
                hits += torch.stack([right[:, 0].sum(), right.sum()])
            each(len(chosen))
        model.train(was_training)
        top1, top5 = (count / len(self.images) for count in self._team.totals(*hits.tolist()))
        return Accuracy(top1, top5, len(self.images))

    def _labels(self, samples: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(self.images.labels[samples].astype(np.int64))


def evaluate(
    path: Path,
    dataset: Dataset,
    *,
    batch_size: int = 250,
    size: int | None = None,
    resize: int | None = None,
    pixels: Pixels | None = None,
    device: str = "cpu",
) -> tuple[Accuracy, Portrait]:
    """Measure a trained student on a dataset's validation images.

    Args:
        path: a run's folder or a student's safetensors file.
        dataset: with validation images of the classes the student knows.
        batch_size: images at a time.
        size: pixels of the crop; None for the student's own.
        resize: pixels of the shorter side before the crop; None for the student's proportion.
        pixels: how files become pixels; None for DALI where installed.
        device: where the student runs.

    Raises:
        InputError: no student there, no validation images, or another number of classes.
    """
    model, portrait = load_student(path)
    if dataset.val is None:
        raise InputError(f"{dataset.name} has no validation images to evaluate on.")
    if len(dataset.val.classes) != portrait.classes:
        raise InputError(
            f"the student in {path} knows {portrait.classes} classes, {dataset.name} has "
            f"{len(dataset.val.classes)}: give the dataset it was trained on."
        )
    portrait = portrait.at(size or portrait.size, resize)
    validation = Validation(
        dataset.val,
        portrait,
        batch_size=batch_size,
        pixels=pixels or Pixels(device=device),
        device=torch.device(device),
    )
    model = model.to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    with track(len(dataset.val), "validating", "images") as bar:
        return validation.measure(model, bar.advance), portrait
