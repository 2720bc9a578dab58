"""One answer of a network, to see that it gives one and what it ends in."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skd_cache.errors import InputError
from skd_cache.teacher.forward import Precision, forward


def require_answer(
    model: nn.Module, name: str, size: int, classes: int, precision: Precision, device: torch.device
) -> None:
    """See that the network maps images ``[B, 3, size, size]`` to logits ``[B, classes]``.

    Raises:
        InputError: it fails on them, or gives something else.
    """
    images = torch.zeros(2, 3, size, size, device=device)
    images = images.to(memory_format=torch.channels_last)
    raw: list[object] = []
    hook = model.register_forward_hook(lambda _module, _images, answer: raw.append(answer))
    try:
        forward(model, images, precision)
    except Exception as error:  # a network's own code may raise anything
        if raw and not isinstance(raw[0], Tensor):
            kind = type(raw[0]).__name__
            raise InputError(f"Teacher '{name}' gives a {kind}, not a tensor of logits.") from error
        reason = (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
        raise InputError(
            f"Teacher '{name}' cannot look at {size}x{size} images in {precision} on {device}: "
            f"{reason}."
        ) from error
    finally:
        hook.remove()
    answer = raw[0]
    shape = list(answer.shape) if isinstance(answer, Tensor) else []
    if len(shape) == 2 and shape[0] == 2 and shape[1] != classes:
        raise InputError(f"Teacher '{name}' knows {shape[1]} classes; the dataset has {classes}.")
    if shape != [2, classes]:
        raise InputError(
            f"Teacher '{name}' gives {shape} for two images, not logits [2, {classes}]."
        )


def class_weight(
    model: nn.Module, size: int, precision: Precision, device: torch.device
) -> NDArray[np.float32] | None:
    """The weight of the Linear whose output the network gives as it is, ``[C, D]``; else None."""
    last: list[tuple[nn.Linear, Tensor]] = []
    given: list[Tensor] = []

    def remember(module: nn.Module, _inputs: object, answer: Tensor) -> None:
        if isinstance(module, nn.Linear):
            last[:] = [(module, answer)]

    hooks = [module.register_forward_hook(remember) for module in model.modules()]
    hooks.append(model.register_forward_hook(lambda _module, _images, answer: given.append(answer)))
    try:
        forward(model, torch.zeros(2, 3, size, size, device=device), precision)
    finally:
        for hook in hooks:
            hook.remove()
    if not last or last[0][1] is not given[0]:
        return None
    weight: NDArray[np.float32] = last[0][0].weight.detach().float().cpu().numpy()
    return weight
