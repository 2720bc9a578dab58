"""Wide residual networks for small images.

Zagoruyko and Komodakis, "Wide Residual Networks" (arXiv 1605.07146), pre-activation, no dropout.

Shape legend: B batch, I input channels, H height, W width, F features, C classes.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class WideBlock(nn.Module):
    """Pre-activated pair of 3x3 convolutions; a 1x1 projection where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        identity = x if self.shortcut is None else self.shortcut(active)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + identity


class WideResNet(nn.Module):
    """A wide residual network, ``depth = 6n + 4``, ``width`` times the thin one's channels.

    Maps images ``[B, I, H, W]`` float to logits ``[B, C]``.
    """

    def __init__(self, depth: int, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        stages: list[nn.Module] = []
        before = 16
        for stage, channels in enumerate((16 * width, 32 * width, 64 * width)):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(WideBlock(before, channels, stride))
                before = channels
        self.blocks = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(before)
        self.fc = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.conv1(x))  # [B, F, H/4, W/4]
        x = F.relu(self.bn(x))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))  # [B, C]
        return logits
