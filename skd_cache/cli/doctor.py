"""``skd-cache doctor``: is this machine fit for the job?"""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import click
import torch
from rich.filesize import decimal

from skd_cache.home import cache_home

_PACKAGES = ("torch", "torchvision", "numpy", "zarr", "numcodecs", "pcodec", "obstore", "h5py")
_OPTIONAL = ("timm", "tensorboard")
_DALI = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")


@click.command()
def command() -> None:
    """Check this machine: versions, DALI, GPUs, folders. Exit code 1 if something is missing.

    \b
    Example:
      skd-cache doctor
    """
    checks = [_python(), *map(_package, _PACKAGES), _dali(), _gpu(), _cores(), _home()]
    checks += [_optional(name) for name in _OPTIONAL]
    for fit, what, found in checks:
        click.echo(f"{'ok' if fit else 'NO':>3}  {what:<12} {found}")
    if not all(fit for fit, _, _ in checks):
        raise SystemExit(1)


Check = tuple[bool, str, str]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Check:
    return True, "python", f"{platform.python_version()} on {platform.platform()}"


def _package(name: str) -> Check:
    found = _version(name)
    return found is not None, name, found or "missing: pip install skd-cache again"


def _optional(name: str) -> Check:
    return True, name, _version(name) or f"not installed (pip install 'skd-cache[{name}]')"


def _dali() -> Check:
    found = [f"{name} {version}" for name in _DALI if (version := _version(name))]
    if len(found) > 1:
        both = " and ".join(found)
        return False, "dali", f"{both} overwrite each other: uninstall both, install one extra"
    if not found:
        advice = "pip install 'skd-cache[cuda13]' (or cuda12)"
        return True, "dali", f"not installed, torchvision draws the pixels; faster: {advice}"
    try:
        import nvidia.dali  # noqa: F401 - does it load on this machine?
    except ImportError as error:
        return False, "dali", f"{found[0]} does not load: {error}"
    return True, "dali", found[0]


def _gpu() -> Check:
    if not torch.cuda.is_available():
        return True, "gpu", "none that torch can use; both stages run on the CPU"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return True, "gpu", ", ".join(names)


def _cores() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return True, "cores", f"{usable} usable, torch computes with {torch.get_num_threads()} threads"


def _home() -> Check:
    home = cache_home()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = decimal(shutil.disk_usage(existing).free)
    writable = os.access(existing, os.W_OK) and Path(existing).is_dir()
    state = f"{free} free" if writable else "not writable: set SKD_CACHE_HOME"
    return writable, "cache home", f"{home}, {state}"
