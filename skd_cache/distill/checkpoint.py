"""A run's state in the middle of an epoch: safetensors and JSON, whole or not at all.

``checkpoint/step-000000120/`` holds ``state.safetensors`` (weights, optimizer, moving average,
random generators) and ``state.json`` (where the run stands). A folder gets that name only once
its files are on disk; the last two are kept.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from skd_cache.distill.durable import explained, sync_folder

KEPT = 2
_NAME = re.compile(r"step-(\d{9,})")
_TENSORS, _PROGRESS = "state.safetensors", "state.json"


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done since the start.
        epochs: epochs done and validated.
        loss_sum: sum of the losses of the epoch under way, over images, and ``images`` so far.
        top1: accuracy after the last epoch, if validated, and ``top5``.
        best_top1: best accuracy so far, and its ``best_epoch``.
        metrics_bytes: length of ``metrics.jsonl``.
        scaler: state of the gradient scaler; empty where there is none.
    """

    step: int = 0
    epochs: int = 0
    loss_sum: float = 0.0
    images: int = 0
    top1: float | None = None
    top5: float | None = None
    best_top1: float | None = None
    best_epoch: int | None = None
    metrics_bytes: int = 0
    scaler: dict[str, float] = field(default_factory=dict)


def save_checkpoint(folder: Path, progress: Progress, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint into ``folder`` and drop the oldest ones.

    Raises:
        SkdCacheError: if it cannot be written; what was there before stays.
    """
    data = save({name: on_disk(tensor) for name, tensor in tensors.items()})
    record = {**asdict(progress), "bytes": len(data), "xxh3_64": xxhash.xxh3_64_hexdigest(data)}
    final = folder / f"step-{progress.step:09d}"
    partial = folder / f".{final.name}.partial"
    with explained("write", final):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, content in ((_TENSORS, data), (_PROGRESS, json.dumps(record).encode())):
            with (partial / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(partial)
        if final.exists():  # the state of this step, before its epoch was validated, or damaged
            shutil.rmtree(final)
        partial.rename(final)
        sync_folder(folder)
        for _, old in _found(folder)[:-KEPT]:
            shutil.rmtree(old)


def load_checkpoint(folder: Path) -> tuple[Progress, dict[str, Tensor]] | None:
    """The newest checkpoint in ``folder`` that is whole, or None; tensors are on the CPU."""
    for _, place in reversed(_found(folder)):
        try:
            record: dict[str, Any] = json.loads((place / _PROGRESS).read_bytes())
            data = (place / _TENSORS).read_bytes()
            size, digest = record.pop("bytes"), record.pop("xxh3_64")
            if len(data) != size or xxhash.xxh3_64_hexdigest(data) != digest:
                continue
            return Progress(**record), load(data)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            continue
    return None


def on_disk(tensor: Tensor) -> Tensor:
    """A tensor as safetensors takes it: on the CPU, contiguous, sharing memory with no other."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's buffers by ``PARAMETER.NAME``; settings are not among them."""
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, buffers in state.items()
        for name, value in buffers.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, buffers: Mapping[str, Tensor]) -> None:
    """Put back what :func:`flatten_optimizer` took, in each parameter's own memory layout."""
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in buffers.items():
        index, _, name = key.partition(".")
        like = parameters[int(index)]
        if value.shape == like.shape:
            value = torch.empty_like(like).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _found(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints by step, ascending."""
    if not folder.is_dir():
        return []
    matches = [(_NAME.fullmatch(place.name), place) for place in folder.iterdir()]
    return sorted((int(match[1]), place) for match, place in matches if match)
