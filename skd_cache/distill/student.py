"""The student: made, tried, saved with all that is needed to use it, and loaded again."""

import copy
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from skd_cache import models
from skd_cache.distill.checkpoint import on_disk
from skd_cache.distill.durable import write_durably
from skd_cache.errors import InputError
from skd_cache.models.architecture import create_model


@dataclass(frozen=True)
class Portrait:
    """What must be known of saved weights to use them; travels in the file's own metadata.

    ``mean`` and ``std`` are per channel of images in [0, 1]; validation resizes the shorter side
    to ``resize`` pixels and cuts the centred square of ``size``.
    """

    architecture: str
    classes: int
    dataset: str
    size: int
    resize: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def at(self, size: int, resize: int | None = None) -> "Portrait":
        """The same seen at another size; ``resize`` keeps its proportion unless it is given."""
        return replace(self, size=size, resize=resize or round(self.resize * size / self.size))


def make_student(name: str, classes: int, weights: str | None = None) -> nn.Module:
    """The network ``name`` with ``classes`` outputs, initialised from torch's generator or a file.

    Raises:
        InputError: no such network, or weights that do not fit it.
    """
    student = create_model(name, classes)
    if weights is not None:
        _load_weights(student, Path(weights), name)
    return student


@torch.no_grad()
def try_student(student: nn.Module, name: str, classes: int, size: int, batch: int) -> None:
    """See that a student can learn from a batch as small as the smallest of an epoch.

    Raises:
        InputError: it fails on images ``[batch, 3, size, size]``, or its logits are not
            ``[batch, classes]``.
    """
    images = torch.zeros(batch, 3, size, size)
    trial = copy.deepcopy(student).train()  # batch norm keeps statistics: not the student's own
    try:
        logits = trial(images)
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise InputError(
            f"student '{name}' cannot take a batch of {batch} at {size} pixels "
            f"({reason}): choose another student, --size or --batch-size."
        ) from error
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (batch, classes):
        raise InputError(
            f"student '{name}' gives {shape} for {batch} images where ({batch}, {classes}) is "
            "needed: one row of logits per image."
        )


def has_idle_weights(student: nn.Module, size: int) -> bool:
    """Whether some weights take no part in the answer to images ``[2, 3, size, size]``."""
    with torch.random.fork_rng(devices=[]):
        trial = copy.deepcopy(student).train()
        weights = [one for one in trial.parameters() if one.requires_grad]
        answer = trial(torch.zeros(2, 3, size, size))
        gradients = torch.autograd.grad(answer.sum(), weights, allow_unused=True)
    return any(one is None for one in gradients)


def save_student(path: Path, student: nn.Module, portrait: Portrait) -> None:
    """Write weights and portrait as one safetensors file, whole or not at all."""
    tensors = {name: on_disk(tensor) for name, tensor in student.state_dict().items()}
    write_durably(path, save(tensors, {"skd-cache": json.dumps(asdict(portrait))}))


def load_student(path: Path) -> tuple[nn.Module, Portrait]:
    """A trained student, in evaluation mode on the CPU.

    Args:
        path: a run's folder (its final weights, else its best so far) or a safetensors file.

    Raises:
        InputError: if there is none, or it was not saved by a run.
    """
    file = path
    if path.is_dir():
        candidates = [path / "student.safetensors", path / "best.safetensors"]
        file = next((one for one in candidates if one.exists()), candidates[0])
    if not file.is_file():
        raise InputError(f"{file} does not exist: give a run's folder or a safetensors file.")
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is not a readable safetensors file: {error}.") from error
    if "skd-cache" not in metadata:
        raise InputError(f"{file} does not say what network it is: it was not saved by distill.")
    values = json.loads(metadata["skd-cache"])
    values |= {key: tuple(values[key]) for key in ("mean", "std")}
    portrait = Portrait(**values)
    with torch.random.fork_rng(devices=[]):
        student = create_model(portrait.architecture, portrait.classes)
    _load_weights(student, file, portrait.architecture)
    return student.eval(), portrait


def loading_lines(path: Path, portrait: Portrait) -> list[str]:
    """The lines of Python that load saved weights without this package where that is possible."""
    name, classes = portrait.architecture, portrait.classes
    if ":" in name:
        module, _, factory = name.partition(":")
        make = f"from {module} import {factory}; model = {factory}({classes})"
    elif name.startswith("timm/"):
        timm_name = name.removeprefix("timm/")
        make = f"import timm; model = timm.create_model({timm_name!r}, num_classes={classes})"
    elif name in models.names():
        make = f"from skd_cache import models; model = models.create({name!r}, {classes})"
    else:
        make = f"import torchvision; model = torchvision.models.{name}(num_classes={classes})"
    load = "from safetensors.torch import load_file; "
    return [make, load + f"model.load_state_dict(load_file({str(path)!r}))"]


def _load_weights(student: nn.Module, file: Path, name: str) -> None:
    try:
        student.load_state_dict(load_file(file))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is not a readable safetensors file: {error}.") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n", 2)[1:2]).strip() or str(error)
        raise InputError(f"{file} does not fit the network '{name}': {reason}") from error
