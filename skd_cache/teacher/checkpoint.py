"""Weights from a file into a network, or a sentence saying why they do not fit."""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from skd_cache.errors import InputError

_WRAPPERS = ("state_dict", "model", "model_state_dict")  # what training scripts call the weights
_PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before each name


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors or state_dict file by name, and the metadata beside them.

    A pickled file is read with ``weights_only``: nothing in it is run. The state_dict may lie
    under ``state_dict`` or ``model``, as training scripts put it, and its names may begin with
    ``module.``.

    Raises:
        InputError: not a readable file of either kind.
    """
    if not path.is_file():
        raise InputError(f"The weights file '{path}' does not exist.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_state_dict(path), {}


def load_weights(model: nn.Module, state: dict[str, Tensor], classes: int, source: str) -> None:
    """Copy ``state`` into ``model``, every tensor of it.

    Raises:
        InputError: another number of classes, or names or shapes that do not fit; ``source`` says
            whose weights.
    """
    own = model.state_dict()
    misfits = [name for name in own if name in state and own[name].shape != state[name].shape]
    counts = {_rows(state[name]) for name in misfits if _rows(own[name]) == classes}
    if len(counts) == 1 and all(_rows(own[name]) == classes for name in misfits):
        raise InputError(f"{source} are for {counts.pop()} classes; the dataset has {classes}.")
    if misfits:
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    else:
        missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    problems = [f"'{name}' is missing" for name in missing[:1]]
    problems += [f"'{name}' is not in the network" for name in unexpected[:1]]
    problems += [
        f"'{name}' is {_shape(state[name])} where {_shape(own[name])} is needed"
        for name in misfits[:1]
    ]
    if problems:
        raise InputError(f"{source} do not fit the network: {', '.join(problems)}.")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(
            f"'{path}' cannot be read as safetensors: {_first_line(error)}."
        ) from error
    _strip(state)
    return state, metadata


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        # Many published checkpoints keep the training script's arguments beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"'{path}' is not a file of plain tensors, and reading it otherwise could run code in "
            "it: save its state_dict() with torch.save or as safetensors."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"'{path}' cannot be read as a state_dict: {_first_line(error)}."
        ) from error
    state = _unwrapped(loaded)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"'{path}' holds no state_dict: a mapping from names to tensors.")
    _strip(state)
    return state


def _unwrapped(loaded: Any) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    return loaded if isinstance(loaded, dict) else {}


def _strip(state: dict[str, Tensor]) -> None:
    """Take away the prefixes that wrappers left, from all names or none."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            consume_prefix_in_state_dict_if_present(state, prefix)


def _rows(value: Tensor) -> int:
    return value.shape[0] if value.ndim else 1


def _shape(value: Tensor) -> str:
    return "x".join(str(size) for size in value.shape) or "a scalar"


def _first_line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.strip().splitlines()[0].rstrip(".")
