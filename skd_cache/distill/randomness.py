"""Torch's random generators of every process: kept in checkpoints, seeded where none was kept."""

from collections.abc import Mapping, Sequence

import torch
import xxhash
from torch import Tensor


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The generators of this process: ``cpu``, and ``cuda`` where it computes there."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def named_by_rank(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The generators of all processes, by the names ``random.cpu``, ``random.1.cpu`` and so on."""
    return {
        f"{_prefix(rank)}{kind}": state
        for rank, kinds in enumerate(states)
        for kind, state in kinds.items()
    }


def restore_random(
    tensors: Mapping[str, Tensor], device: torch.device, *, seed: int, rank: int, step: int
) -> None:
    """Go on drawing where this rank stood, or, where no such rank was, from a seed of its own."""
    prefix = _prefix(rank)
    if f"{prefix}cpu" not in tensors:
        torch.manual_seed(xxhash.xxh3_64_intdigest(f"{seed}/{rank}/{step}".encode()))
        return
    torch.set_rng_state(tensors[f"{prefix}cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors[f"{prefix}cuda"], device)


def _prefix(rank: int) -> str:
    return f"random.{rank}." if rank else "random."
