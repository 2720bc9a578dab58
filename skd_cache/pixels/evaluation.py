"""torchvision's eval transform as numbers: what each image is resized to, and what is cut out."""

import numpy as np
from numpy.typing import NDArray


def resized_shapes(
    heights: NDArray[np.int32], widths: NDArray[np.int32], resize: int
) -> NDArray[np.int32]:
    """``[B, 2]`` heights and widths after ``Resize(resize)``: the shorter side becomes that.

    The longer side is cut to an integer as ``torchvision.transforms.v2.functional.resize`` does.
    """
    height, width = heights.astype(np.int64), widths.astype(np.int64)
    shorter, longer = np.minimum(height, width), np.maximum(height, width)
    long_side = (resize * longer / shorter).astype(np.int64)
    shapes = np.where(
        (width <= height)[:, None],
        np.stack([long_side, np.full_like(long_side, resize)], 1),
        np.stack([np.full_like(long_side, resize), long_side], 1),
    )
    return shapes.astype(np.int32)


def centred_anchors(shapes: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    """``[B, 2]`` top and left of ``CenterCrop(size)``, rounded as torchvision's: half to even.

    Where an image is smaller than the crop they are negative, and there are zeros around it.
    """
    spare = shapes.astype(np.int64) - size
    inside = np.rint(spare / 2.0).astype(np.int64)
    return np.where(spare < 0, -(-spare // 2), inside).astype(np.int32)
