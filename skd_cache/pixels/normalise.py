"""uint8 pixels to what a network takes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels as a network takes them: ``(images / 255 - mean) / std``.

    Bit for bit what torchvision's ``ToTensor`` and ``Normalize`` give, for any batch size and
    number of threads.

    Args:
        images: uint8 ``[B, S, S, 3]`` on any device.
        mean: of each channel, for pixels in 0 to 1.
        std: likewise.

    Returns:
        float32 ``[B, 3, S, S]`` in channels_last memory order, on the same device.
    """
    B, height, width, channels = images.shape
    # A row of pixels as one axis keeps the innermost loop long; three channels would not.
    rows = images.to(torch.float32).view(B, height, width * channels)
    rows.div_(255).sub_(_row(images, mean, width)).div_(_row(images, std, width))
    return rows.view(B, height, width, channels).permute(0, 3, 1, 2)


def _row(images: Tensor, values: Sequence[float], width: int) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32, device=images.device).repeat(width)
