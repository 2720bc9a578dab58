"""The device somebody asked for."""

import torch

from skd_cache.errors import InputError


def open_device(name: str) -> torch.device:
    """The device ``name``: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        InputError: there is none; the message says what this machine has.
    """
    seen = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        seen.append("mps")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"no device is called '{name}': there are {', '.join(seen)}.") from error
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    if str(device) not in seen:
        raise InputError(f"there is no '{name}' here: torch sees {', '.join(seen)}.")
    return device
