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


def small_teacher(num_classes: int) -> nn.Module:
    """The same as one that says how it wants images."""
    return _wanting(teacher(num_classes), 32, (0.5, 0.5, 0.5))


def wide_teacher(num_classes: int) -> nn.Module:
    return _wanting(Tiny(24, num_classes), 40, (0.25, 0.5, 0.75))


def _wanting(model: nn.Module, size: int, mean: tuple[float, float, float]) -> nn.Module:
    wants = {"input_size": (3, size, size), "mean": mean, "std": (0.25, 0.25, 0.25)}
    model.pretrained_cfg = wants
    return model


def student(num_classes: int) -> nn.Module:
    return Tiny(4, num_classes)
