"""The teacher back in the step: the honest baseline that a cache is compared with."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from skd_cache.batch import LogitBatch, Statistics
from skd_cache.codec import Codec

Look = Callable[..., Tensor]
"""Images uint8 ``[B, S, S, 3]``, at each of the recipe's sizes in turn, to logits ``[B, C]``."""


def look_online(
    look: Look, images: Sequence[Tensor], codec: Codec, statistics: Statistics
) -> LogitBatch:
    """What the teacher says now, passed through the same encode and decode as a cache's.

    Args:
        look: the teacher.
        images: uint8 ``[B, S, S, 3]``, at each of the recipe's sizes in turn.
        codec: the cache's.
        statistics: the cache's, which a batch cannot know.
    """
    with torch.no_grad():
        logits = look(*images)  # [B, C]
    encoded = codec.encode(logits.detach().to("cpu", torch.float32).numpy())
    code = {name: torch.from_numpy(rows) for name, rows in encoded.code.items()}
    return LogitBatch(torch.from_numpy(encoded.norm), code, codec, statistics)
