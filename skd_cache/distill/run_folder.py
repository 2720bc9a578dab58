"""A run's folder: what it was asked to do, how far it is, and whether the same is asked again."""

import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from skd_cache.batch import Statistics
from skd_cache.distill.durable import explained, write_durably
from skd_cache.distill.settings import Settings
from skd_cache.errors import DataError, InputError

_PACKAGES = ("skd-cache", "torch", "torchvision", "numpy", "zarr", "nvidia-dali-cuda130", "timm")
_FILES = ("student.safetensors", "best.safetensors", "metrics.jsonl")
_FOLDERS = ("checkpoint", "tensorboard")


@dataclass(frozen=True)
class Frozen:
    """What a run takes from a cache that may grow: fixed when the run starts."""

    views: tuple[int, ...]
    statistics: Statistics | None


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files are."""

    path: Path

    @property
    def record(self) -> Path:
        """Settings, frozen values, versions."""
        return self.path / "run.json"

    @property
    def student(self) -> Path:
        """The final weights."""
        return self.path / "student.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the best epoch so far."""
        return self.path / "best.safetensors"

    @property
    def checkpoints(self) -> Path:
        """States to resume from."""
        return self.path / "checkpoint"

    def clear(self) -> None:
        """Remove what a run writes, and nothing else."""
        with explained("clear", self.path):
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)
            for name in _FOLDERS:
                shutil.rmtree(self.path / name, ignore_errors=True)
            self.record.unlink(missing_ok=True)  # last: what is left must not pass for a new run

    def resume(self, settings: Settings, world: int) -> Frozen | None:
        """What the run in this folder froze, or None where there is none yet.

        Args:
            settings: what is asked now.
            world: how many processes there are now.

        Raises:
            InputError: if the run there has other settings, which the message names, or there
                are a run's files but not what it was.
            DataError: if its ``run.json`` is damaged.
        """
        if not self.record.exists():
            for name in (*_FILES, *_FOLDERS):
                if (self.path / name).exists():
                    raise InputError(
                        f"{self.path} holds {name} but no run.json: "
                        "choose another --out, or --fresh to replace what is there."
                    )
            return None
        try:
            record = json.loads(self.record.read_bytes())
            stored, views, sums = record["settings"], record["views"], record["statistics"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{self.record} is damaged: --fresh starts the run over") from error
        same_world = record.get("world", 1) == world
        different = settings.differences(stored, same_world=same_world)
        if different:
            raise InputError(
                f"{self.path} holds a run with {', '.join(different)}: "
                "choose another --out, or --fresh to start over."
            )
        if sums is not None:
            sums = Statistics(**sums | {"norm_histogram": tuple(sums["norm_histogram"])})
        return Frozen(tuple(views), sums)

    def start(self, settings: Settings, frozen: Frozen, world: int) -> None:
        """Note what a new run of ``world`` processes is going to do.

        Raises:
            SkdCacheError: if the folder cannot be written (InputError where it is read-only).
        """
        with explained("write", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {
            "settings": settings.to_dict(),
            "world": world,
            "views": list(frozen.views),
            "statistics": None if frozen.statistics is None else asdict(frozen.statistics),
            "memory_format": "channels_last" if settings.channels_last else "contiguous",
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version(), **_versions(_PACKAGES)},
            "processor": platform.processor() or platform.machine(),
        }
        write_durably(self.record, json.dumps(record, indent=1).encode() + b"\n")


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
