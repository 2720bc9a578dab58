"""What makes two sets of weights the same."""

import hashlib
import json
import sys

import torch
from torch import Tensor, nn


def weights_digest(model: nn.Module) -> str:
    """The sha256 of the network's tensors, as 64 hex digits.

    Over parameters and persistent buffers sorted by name, for each the JSON line
    ``["name","dtype",[shape]]`` and its values, row-major and little-endian. Where the tensors came
    from, their memory format and device do not matter. ``num_batches_tracked`` of batch norms is
    left out: it does not change what the network answers, and old checkpoints lack it.
    """
    digest = hashlib.sha256()
    tensors = {name: value for name, value in model.state_dict().items() if _counts(name, value)}
    for name in sorted(tensors):
        value = tensors[name]
        dtype = str(value.dtype).removeprefix("torch.")
        head = json.dumps([name, dtype, list(value.shape)], separators=(",", ":"))
        digest.update(f"{head}\n".encode())
        digest.update(_little_endian(value).numpy().tobytes())
    return digest.hexdigest()


def _counts(name: str, value: object) -> bool:
    return isinstance(value, Tensor) and name.rpartition(".")[2] != "num_batches_tracked"


def _little_endian(value: Tensor) -> Tensor:
    """The bytes of a tensor, ``[n]`` uint8, on the CPU."""
    flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
    if sys.byteorder == "big":
        flat = flat.view(-1, value.element_size()).flip(1).contiguous().flatten()
    return flat
