"""The device that was asked for, or what there is instead."""

import torch

from skd_cache.errors import InputError


def open_device(name: str) -> torch.device:
    """The device called ``name`` (``cpu``, ``cuda``, ``cuda:1``, …), seen to work.

    Raises:
        InputError: no such device here; says what there is.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        count = torch.cuda.device_count()
        named = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
        seen = f"{count} CUDA GPUs ({named})" if count else "no CUDA GPU"
        raise InputError(
            f"Device '{name}' cannot be used: torch {torch.__version__} sees {seen} and the CPU."
        ) from error
    return device
