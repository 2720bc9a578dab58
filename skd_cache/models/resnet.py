"""CIFAR residual networks, thin and four times as wide.

He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), section 4.2;
the ``x4`` widths are those of Tian et al., "Contrastive Representation Distillation"
(arXiv 1910.10699), whose tables most of the CIFAR distillation literature extends.

Modules bear the names of that paper's code, so that its published weights load.

Shape legend: B batch, I input channels, H height, W width, F features, C classes.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity, or a 1x1 projection where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(residual + self.downsample(x))


def _stage(blocks: int, before: int, width: int, stride: int) -> nn.Sequential:
    following = [BasicBlock(width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(before, width, stride), *following)


class CifarResNet(nn.Module):
    """A residual network for small images, ``depth = 6n + 2``.

    ``widths`` are the channels of the stem and of the three stages.
    Maps images ``[B, I, H, W]`` float to logits ``[B, C]``.
    """

    def __init__(
        self, depth: int, widths: tuple[int, int, int, int], num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        stem = widths[0]
        self.conv1 = nn.Conv2d(in_channels, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(blocks, stem, widths[1], stride=1)
        self.layer2 = _stage(blocks, widths[1], widths[2], stride=2)
        self.layer3 = _stage(blocks, widths[2], widths[3], stride=2)
        self.fc = nn.Linear(widths[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))  # [B, stem, H, W]
        x = self.layer3(self.layer2(self.layer1(x)))  # [B, F, H/4, W/4]
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))  # [B, C]
        return logits
