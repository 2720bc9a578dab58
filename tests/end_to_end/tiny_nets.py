"""A teacher and a student small enough for tests to run the real commands with."""

from torch import Tensor, nn


class Tiny(nn.Module):
    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 5, 3)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


def teacher(num_classes: int) -> nn.Module:
    return Tiny(16, num_classes)


def student(num_classes: int) -> nn.Module:
    return Tiny(4, num_classes)
