"""Networks small enough that a test trains them in a second."""

import os

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


class Mortal(Tiny):
    """Sends its own process ``$TINY_SIGNAL`` (``NUMBER@STEP``) in a forward pass of training."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        number, _, step = os.environ.get("TINY_SIGNAL", "0@0").partition("@")
        self.signal, self.left = int(number), int(step)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.left -= 1
            if self.left == 0 and self.signal:
                os.kill(os.getpid(), self.signal)
        return super().forward(images)


def mortal(num_classes: int) -> nn.Module:
    return Mortal(num_classes)
