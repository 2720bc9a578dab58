"""A network from a file of torch.export, whatever batch it was exported for.

Shape legend: B batch, S side in pixels, C classes.
"""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.nn import functional as F

from skd_cache.errors import InputError
from skd_cache.teacher.archive import vet
from skd_cache.teacher.graph import graph_digest, require_inference
from skd_cache.teacher.identity import tensors_digest

PROGRAM = "export:"
"""What the architecture of an exported program begins with; 16 hex digits of its graph follow."""


@dataclass(frozen=True)
class LoadedProgram:
    """An exported program on its device, and what its file says of it."""

    architecture: str  # "export:0123456789abcdef"
    weights: str  # sha256 over its parameters, buffers and constants, hex
    model: nn.Module
    size: int | None  # pixels; None where it takes any


class Pieces(nn.Module):
    """A program that takes batches of ``least`` to ``most`` images, for batches of any size.

    Larger ones are cut, smaller ones filled up with zeros, whose answers are dropped.
    """

    def __init__(self, program: nn.Module, least: int, most: int | None) -> None:
        super().__init__()
        self.program, self.least, self.most = program, least, most

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[B, 3, S, S]`` float32 to logits ``[B, C]``."""
        pieces = torch.split(x, self.most) if self.most else (x,)
        answers = [self._answer(piece) for piece in pieces]
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def _answer(self, x: Tensor) -> Any:
        count = len(x)
        if count < self.least:
            x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, self.least - count))
        answer = self.program(x.contiguous())  # in the memory order it was traced in
        return answer[:count] if isinstance(answer, Tensor) and count < self.least else answer


def load_program(path: Path, device: torch.device) -> LoadedProgram:
    """A program saved with ``torch.export.save``, to be asked on a device.

    Nothing in the file is run but operators of torch: see :mod:`skd_cache.teacher.archive`.

    Raises:
        InputError: no such file, or not one network from float32 images to one tensor.
    """
    if not path.is_file():
        raise InputError(f"The exported program '{path}' does not exist.")
    vet(path)
    program = _read(path)
    require_inference(program, str(path))
    least, most, size = _takes(program, path)
    named: dict[str, object] = {**program.state_dict, **program.constants}
    architecture = f"{PROGRAM}{graph_digest(program)[:16]}"
    weights = tensors_digest(named)
    moved = move_to_device_pass(program, str(device))
    # Its guards would be Python of the file; sizes are seen to here, and asserted in the graph.
    model = moved.module(check_guards=False).requires_grad_(False)
    return LoadedProgram(architecture, weights, Pieces(model, least, most), size)


def _read(path: Path) -> ExportedProgram:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # torch logs the traceback of what it then raises again
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.export.load(path)
    except Exception as error:  # torch raises all kinds for what it cannot make sense of
        reason = (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")
        raise InputError(
            f"'{path}' cannot be read as a program saved with torch.export.save: {reason}."
        ) from error
    finally:
        logging.disable(before)


def _takes(program: ExportedProgram, path: Path) -> tuple[int, int | None, int | None]:
    """The smallest and largest batch it takes, and S; None for any."""
    images = _only_input(program, path)
    batch, channels, height, width = images.shape if images.ndim == 4 else (None, 0, 0, 0)
    good = channels == 3 if isinstance(channels, int) else True
    if not good or images.dtype != torch.float32 or _fixed(height) != _fixed(width):
        found = f"[{', '.join(map(str, images.shape))}] {str(images.dtype).removeprefix('torch.')}"
        raise InputError(f"'{path}' takes {found}, not images [B, 3, S, S] float32.")
    if fixed := _fixed(batch):
        return fixed, fixed, _fixed(height)
    symbol: Any = batch
    bounds = program.range_constraints.get(symbol.node.expr)
    if bounds is None:
        raise InputError(
            f"'{path}' takes batches of {symbol} images: export it with a batch that is fixed, or "
            "free."
        )
    least, most = bounds.lower, bounds.upper
    return max(1, int(least)), int(most) if most.is_Integer else None, _fixed(height)


def _only_input(program: ExportedProgram, path: Path) -> Tensor:
    """Its input as it was traced; no memory is behind it."""
    signature = program.graph_signature
    inputs, outputs = signature.user_inputs, signature.user_outputs
    named = {node.name: node.meta.get("val") for node in program.graph.nodes}
    value = named.get(str(inputs[0])) if len(inputs) == len(outputs) == 1 else None
    if not isinstance(value, Tensor):
        raise InputError(
            f"'{path}' maps {len(inputs)} input(s) to {len(outputs)} output(s): a teacher maps "
            "one, images [B, 3, S, S], to one, logits [B, C]."
        )
    return value


def _fixed(side: Any) -> int | None:
    return side if isinstance(side, int) else None
