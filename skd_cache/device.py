"""The device somebody asked for."""

import torch

from skd_cache.errors import InputError
from skd_cache.world import World


def open_device(name: str) -> torch.device:
    """The device ``name``: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    ``cuda`` alone is torch's current GPU; under torchrun, the one of the process's local rank.

    Raises:
        InputError: there is none; the message says what torch sees on this machine.
    """
    gpus = range(torch.cuda.device_count())
    seen = ["cpu", *(f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in gpus)]
    if torch.backends.mps.is_available():
        seen.append("mps")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"no device is called '{name}': there are {', '.join(seen)}.") from error
    if device.type == "cuda" and device.index is None and gpus:
        world = World.here()
        index = world.local_rank if world.size > 1 else torch.cuda.current_device()
        device = torch.device("cuda", index)
    if str(device) not in (one.partition(" ")[0] for one in seen):
        raise InputError(
            f"there is no '{name}' here: torch {torch.__version__} sees {', '.join(seen)}."
        )
    return device
