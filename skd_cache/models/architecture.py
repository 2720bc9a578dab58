"""A network from its name, wherever its code lives."""

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import torchvision
from torch import nn

from skd_cache import models
from skd_cache.errors import InputError

# Their auxiliary heads make the training-mode output a tuple; distillation wants one row of logits.
_WITH_AUXILIARY_HEADS = {"googlenet", "inception_v3"}


def create_model(name: str, classes: int) -> nn.Module:
    """Build the network ``name`` with ``classes`` outputs, freshly initialised.

    Maps normalised images ``[B, 3, H, W]`` float to logits ``[B, classes]``. Initial weights come
    from torch's generator: wrap the call in ``torch.random.fork_rng`` and seed it there.

    Args:
        name: one of :func:`skd_cache.models.names`, a classification network of torchvision,
            ``timm/NAME``, or ``package.module:factory`` (called with ``num_classes=classes`` where
            it has such an argument; the working directory is searched too).
        classes: number of logits.

    Raises:
        InputError: no such network (with the nearest names), or its factory failed.
    """
    if ":" in name:
        return _from_factory(name, classes)
    if name.startswith("timm/"):
        return _from_timm(name.removeprefix("timm/"), classes)
    if name in models.names():
        return models.create(name, classes)
    if name in torchvision.models.list_models(module=torchvision.models):
        return _from_torchvision(name, classes)
    known = architecture_names()
    near = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"nearest: {', '.join(near)}" if near else "torchvision's names are known"
    raise InputError(
        f"No network is called '{name}' ({hint}; also timm/NAME and package.module:factory)."
    )


def architecture_names() -> list[str]:
    """The names :func:`create_model` knows without timm and factories."""
    return [*models.names(), *torchvision.models.list_models(module=torchvision.models)]


def _from_torchvision(name: str, classes: int) -> nn.Module:
    options: dict[str, object] = {"weights": None, "num_classes": classes}
    if name in _WITH_AUXILIARY_HEADS:
        options |= {"aux_logits": False, "init_weights": True}
    model: nn.Module = torchvision.models.get_model(name, **options)
    return model


def _from_timm(name: str, classes: int) -> nn.Module:
    if importlib.util.find_spec("timm") is None:
        raise InputError(f"'timm/{name}' needs timm: pip install 'skd-cache[timm]'.")
    import timm  # optional, and slow to import

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3, 0.5)
        hint = f" (nearest: {', '.join('timm/' + one for one in near)})" if near else ""
        raise InputError(f"timm {timm.__version__} has no network called '{name}'{hint}.")
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return model


def _from_factory(name: str, classes: int) -> nn.Module:
    factory = _import_factory(name)
    parameters = inspect.signature(factory).parameters.values()
    takes_classes = any(p.name == "num_classes" or p.kind is p.VAR_KEYWORD for p in parameters)
    try:
        model = factory(num_classes=classes) if takes_classes else factory()
    except Exception as error:  # whatever somebody's code raises
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"'{name}' could not be called to build a network ({reason}).") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"'{name}' gave a {type(model).__name__}, not a torch.nn.Module.")
    return model


def _import_factory(name: str) -> Callable[..., object]:
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:  # a console script, unlike python -m, does not search the working directory
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"'{name}': module '{module_name}' cannot be imported: {error}."
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        public = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        near = difflib.get_close_matches(attribute, public, 3, 0.4)
        hint = f" (nearest: {', '.join(near)})" if near else ""
        raise InputError(f"'{module_name}' has no factory called '{attribute}'{hint}.")
    made: Callable[..., object] = factory
    return made
