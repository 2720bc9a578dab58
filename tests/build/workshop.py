"""A small build that a test can start, kill and start again in processes of its own."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from skd_cache.build import build_units
from skd_cache.dataset.catalog import open_dataset
from skd_cache.dataset.images import ImageSet
from skd_cache.pixels import open_backend
from skd_cache.replay import load_policy
from skd_cache.store import Cache, Recipe, Unit, Work, create_cache
from skd_cache.store.agree import Fault

CLASSES = 10
# Processes fork from a clean one that has imported all this: a start costs milliseconds.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.build.workshop"])


def recipe_for(images: ImageSet, shard: int, codec: str = "float32") -> Recipe:
    return Recipe.model_validate(
        {
            "teachers": [
                {
                    "architecture": "tests:project",
                    "weights": "0" * 64,
                    "size": 28,
                    "mean": [0.5, 0.5, 0.5],
                    "std": [0.5, 0.5, 0.5],
                }
            ],
            "precision": "float32",
            "dataset": {
                "fingerprint": images.fingerprint,
                "samples": len(images),
                "classes": CLASSES,
            },
            "policy": load_policy("pad-crop-flip").to_dict(),
            "seed": 11,
            "pixels": {"backend": "reference", "decoder": "cpu"},
            "codec": {"name": codec},
            "shard": shard,
            "chunk": 64,
        }
    )


def project(images: Tensor) -> Tensor:
    """A teacher: ten fixed projections of the pixels, ``[B, S, S, 3]`` to ``[B, 10]``."""
    flat = images.reshape(len(images), -1).double()
    waves = torch.arange(1, CLASSES + 1)[:, None] * torch.arange(flat.shape[1])[None, :]
    return (flat @ torch.cos(waves.double()).T / 500).float()


@dataclass(frozen=True)
class Workshop:
    """A cache of the validation images of the demo, and how often the teacher looked."""

    folder: Path
    views: int
    shard: int
    log: Path

    def build(self, units: int | None = None, fault: Fault | None = None) -> None:
        """Build what is missing, or so many units; each is noted in the log when it is begun."""
        torch.set_num_threads(1)
        images = open_dataset("demo").val
        assert images is not None
        recipe = recipe_for(images, self.shard)
        cache = create_cache(
            self.folder / recipe.cache_id,
            recipe,
            labels=images.labels,
            contents=images.contents,
            class_weight=None,
            provenance={},
            fault=fault,
        )
        backend = open_backend("reference", images, 28, load_policy("pad-crop-flip"), threads=1)
        with (
            suppress(EnoughError),
            patch("skd_cache.build.run.Work", partial(Noted, self.log, units)),
        ):
            build_units(
                cache,
                range(self.views),
                images,
                backend,
                project,
                batch_size=32,
                bar=Silence(),
                waiting=lambda _busy: None,
            )

    def start(self, fault: int = 0) -> BaseProcess:
        """Build in a process of its own, which ends itself at fault point ``fault``."""
        process = processes.Process(target=_build_with_fault, args=(self, fault))
        process.start()
        return process

    def cache(self) -> Cache:
        """What is there."""
        (folder,) = self.folder.iterdir()
        return Cache(folder)

    def committed(self) -> set[str]:
        """Units that have a commit, as ``view/shard``."""
        commits = self.folder.glob("*/commit/*/*.json")
        return {f"{int(path.parent.name)}/{int(path.stem)}" for path in commits}

    def begun(self) -> list[str]:
        """Units that were begun, in order, once for every time."""
        return self.log.read_text().split() if self.log.exists() else []


class EnoughError(Exception):
    """As many units as were asked for are done."""


class Noted(Work):
    """Writes down each unit that is begun, and stops before one too many."""

    def __init__(self, log: Path, units: int | None, cache: Cache, views: range) -> None:
        super().__init__(cache, views)
        self._log, self._left = log, units

    def free(self) -> Iterator[Unit]:
        for unit in super().free():
            if self._left == 0:
                raise EnoughError
            if self._left is not None:
                self._left -= 1
            with self._log.open("a") as log:
                log.write(f"{unit.view}/{unit.shard}\n")
            yield unit


class Silence:
    def advance(self, count: int = 1) -> None:
        """Hear of progress and say nothing."""


def workshop_in(folder: Path, views: int, shard: int) -> Workshop:
    return Workshop(folder / "caches", views, shard, folder / "log")


def _build_with_fault(workshop: Workshop, fault: int) -> None:
    os.environ["SKD_CACHE_FAULT"] = str(fault)
    workshop.build()


def digests(cache: Cache) -> list[str]:
    return [cache.digest(view) for view in cache.views()]


def all_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a cache but claims and what killed builders left, which are not data."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {str(path.relative_to(folder)): path for path in files}
    return {
        name: path.read_bytes()
        for name, path in named.items()
        if name.split("/")[0] not in ("claim", "stage")
    }


def rows_of(cache: Cache, view: int) -> np.ndarray:
    return cache.read(view, 0, cache.recipe.dataset.samples).teacher.logits().numpy()
