"""Networks small enough that a test trains them in a second."""

import os
import time

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """Has what makes resuming hard: batch statistics and dropout."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)
        )
        self.head = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
        return logits


def student(num_classes: int) -> nn.Module:
    return Tiny(num_classes)


def maps_instead_of_rows(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, 1)


class Plain(nn.Module):
    """Treats every image by itself, and draws nothing at random."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images).mean((2, 3)))
        return logits


def plain(num_classes: int) -> nn.Module:
    return Plain(num_classes)


class Idle(Plain):
    """Has a weight that takes no part."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.unused = nn.Parameter(torch.zeros(3))


def idle(num_classes: int) -> nn.Module:
    return Idle(num_classes)


class Mortal(Tiny):
    """Sends its own process ``$TINY_SIGNAL`` (``NUMBER@STEP``) in a forward pass of training.

    ``NUMBER@STEP@parent`` goes to the process that started it, and later steps take longer.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        number, step, *parent = os.environ.get("TINY_SIGNAL", "0@0").split("@")
        self.signal, self.left, self.to_parent = int(number), int(step), bool(parent)

    def forward(self, images: Tensor) -> Tensor:
        if self.training and self.signal:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getppid() if self.to_parent else os.getpid(), self.signal)
            elif self.left < 0:
                time.sleep(0.2)  # the other process is on its way to stop us
        return super().forward(images)


def mortal(num_classes: int) -> nn.Module:
    return Mortal(num_classes)
