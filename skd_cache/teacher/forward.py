"""A network that answers: pixels in, logits out."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skd_cache.pixels.normalise import normalise

Colour = tuple[float, float, float]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Teacher:
    """A trained network, frozen, on its device, and how images reach it.

    ``published_top1`` (0 to 1) was measured on ``published_dataset`` with the shorter side resized
    to ``resize`` pixels and a centre crop of ``size``; each is None where nothing is known.
    """

    architecture: str  # "resnet152", "timm/convnext_base", "package.module:factory"
    weights: str  # sha256 over the tensors, hex
    model: nn.Module
    classes: int
    size: int  # pixels
    mean: Colour  # per channel, of pixels in 0 to 1
    std: Colour
    precision: Precision
    device: torch.device
    class_weight: NDArray[np.float32] | None = None  # [C, D] when the network ends in a Linear
    resize: int | None = None
    published_top1: float | None = None
    published_dataset: str | None = None

    def logits(self, images: Tensor) -> Tensor:
        """What the teacher says of these images: ``[B, C]`` float32, on its device.

        Args:
            images: uint8 ``[B, S, S, 3]`` RGB, on any device.
        """
        x = normalise(images.to(self.device, non_blocking=True), self.mean, self.std)
        return forward(self.model, x, self.precision)


def forward(model: nn.Module, x: Tensor, precision: Precision) -> Tensor:
    """Logits ``[B, C]`` float32 of normalised images ``[B, 3, S, S]``, in inference mode.

    ``float32`` means all 24 bits: TF32 is off, whatever the process has set.
    """
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    context = torch.autocast(x.device.type, dtype=half) if half else nullcontext()
    with torch.inference_mode(), _without_tf32(), context:
        logits: Tensor = model(x)
    return logits.float()


@contextmanager
def _without_tf32() -> Iterator[None]:
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before
