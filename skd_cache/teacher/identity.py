"""What makes two sets of weights the same."""

import hashlib
import json
import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def weights_digest(model: nn.Module) -> str:
    """The sha256 of the network's parameters and persistent buffers; see :func:`tensors_digest`."""
    return tensors_digest(model.state_dict())


def tensors_digest(named: Mapping[str, object]) -> str:
    """The sha256 of the tensors among these, as 64 hex digits.

    Sorted by name, for each the JSON line
    ``["name","dtype",[shape]]`` and its values, row-major and little-endian. Where the tensors came
    from, their memory format and device do not matter. ``num_batches_tracked`` of batch norms is
    left out: it does not change what the network answers, and old checkpoints lack it.
    """
    digest = hashlib.sha256()
    for name in sorted(named):
        value = named[name]
        if not isinstance(value, Tensor) or name.rpartition(".")[2] == "num_batches_tracked":
            continue
        dtype = str(value.dtype).removeprefix("torch.")
        head = json.dumps([name, dtype, list(value.shape)], separators=(",", ":"))
        digest.update(f"{head}\n".encode())
        digest.update(_little_endian(value).numpy().tobytes())
    return digest.hexdigest()


def _little_endian(value: Tensor) -> Tensor:
    """The bytes of a tensor, ``[n]`` uint8, on the CPU."""
    flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
    if sys.byteorder == "big":
        flat = flat.view(-1, value.element_size()).flip(1).contiguous().flatten()
    return flat
