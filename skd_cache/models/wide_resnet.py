"""Wide residual networks for small images.

Zagoruyko and Komodakis, "Wide Residual Networks" (arXiv 1605.07146), pre-activation, no dropout.
Modules bear the names of the code of Tian et al., "Contrastive Representation Distillation"
(arXiv 1910.10699), so that its published weights load.

Shape legend: B batch, I input channels, H height, W width, F features, C classes.
"""

from collections import OrderedDict

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
        self.convShortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        identity = x if self.convShortcut is None else self.convShortcut(active)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + identity


def _stage(blocks: int, before: int, channels: int, stride: int) -> nn.Sequential:
    following = [WideBlock(channels, channels, 1) for _ in range(blocks - 1)]
    layer = nn.Sequential(WideBlock(before, channels, stride), *following)
    return nn.Sequential(OrderedDict(layer=layer))


class WideResNet(nn.Module):
    """A wide residual network, ``depth = 6n + 4``, ``width`` times the thin one's channels.

    Maps images ``[B, I, H, W]`` float to logits ``[B, C]``.
    """

    def __init__(self, depth: int, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.block1 = _stage(blocks, 16, 16 * width, stride=1)
        self.block2 = _stage(blocks, 16 * width, 32 * width, stride=2)
        self.block3 = _stage(blocks, 32 * width, 64 * width, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))  # [B, F, H/4, W/4]
        x = F.relu(self.bn1(x))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))  # [B, C]
        return logits
