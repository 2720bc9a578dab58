"""What caching costs and saves, as ratios inside one run, on 500 x 375 photographs at 224 pixels.

    read     images + logits against images alone, with a student that does nothing   >= 0.95
    build    a build with a teacher that does nothing against images alone            >= 0.9
    epoch    ResNet-18's epoch from a cache against --loss ce                         <= 1.02
    online   the teacher (ResNet-152) in every step against its cache                 >= 2.5

The two sides of a ratio take turns; the ratio is the median over the rounds.

    python benchmarks/overhead.py [--images 4096] [--rounds 5] [--steps 6] [--only read build]
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

import as_command_line
import numpy as np
import torch
from numpy.typing import NDArray
from photographs import write_folder
from torch import Tensor

from skd_cache.build import build_units
from skd_cache.codec import Codec, fit, parse_codec
from skd_cache.dataset.catalog import Dataset, open_dataset
from skd_cache.distill.loader import Loader
from skd_cache.distill.run import distill
from skd_cache.distill.settings import settings_for
from skd_cache.distill.views import Pixels
from skd_cache.pixels import open_backend
from skd_cache.replay import Views, load_policy
from skd_cache.store import Cache, Recipe, create_cache
from skd_cache.teacher import Teacher, load_teacher

SIZE, BATCH = 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICY = load_policy("rrc-flip")
REQUIRED = {"read": ">= 0.95", "build": ">= 0.9", "epoch": "<= 1.02", "online": ">= 2.5"}

Measure = Callable[[int], float]


def recipe_for(dataset: Dataset, codec: Codec, teacher: Teacher | None) -> Recipe:
    """A recipe; without a teacher, that of one who does nothing."""
    shard = 64 * -(-len(dataset.train) // 64)
    return Recipe.model_validate(
        {
            "teachers": [
                {
                    "architecture": "nothing" if teacher is None else teacher.architecture,
                    "weights": "0" * 64 if teacher is None else teacher.weights,
                    "size": SIZE,
                    "mean": list(MEAN),
                    "std": list(STD),
                }
            ],
            "precision": "float32",
            "dataset": {
                "fingerprint": dataset.train.fingerprint,
                "samples": len(dataset.train),
                "classes": codec.classes,
            },
            "policy": POLICY.to_dict(),
            "seed": 0,
            "pixels": {"backend": "dali", "decoder": "cpu"},
            "codec": codec.settings,
            "shard": shard,
            "chunk": math.gcd(4096, shard),
        }
    )


def build(
    folder: Path, recipe: Recipe, codec: Codec, dataset: Dataset, logits: Callable[..., Tensor]
) -> Cache:
    cache = create_cache(
        folder / recipe.cache_id,
        recipe,
        labels=dataset.train.labels,
        contents=dataset.train.contents,
        class_weight=None,
        provenance={"dataset": dataset.name},
        codec=codec,
    )
    backend = open_backend("dali", dataset.train, SIZE, POLICY)
    build_units(
        cache,
        range(1),
        dataset.train,
        backend,
        logits,
        batch_size=BATCH,
        bar=Nothing(),
        waiting=lambda _busy: None,
    )
    return cache


class Nothing:
    def advance(self, count: int = 1) -> None:
        """Hear of progress and say nothing."""


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def exhaust(items: Iterable[Any]) -> None:
    for _ in items:
        pass


def nothing(classes: int) -> Callable[[Tensor], Tensor]:
    """A teacher whose logits cost nothing: rows of a fixed table."""
    table = torch.from_numpy(logits_table(classes))
    starts = cycle(range(0, len(table), BATCH))
    return lambda images: table[next(starts) :][: len(images)]


def logits_table(classes: int) -> NDArray[np.float32]:
    """``[4096, C]`` logits of 512 features whose deviations fall, as ResNet-18's do."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4096, 512)) * (1 + np.arange(512)) ** -0.5
    return (features @ rng.normal(size=(512, classes))).astype(np.float32)


def loaders(folder: Path, dataset: Dataset) -> tuple[Measure, Measure, Measure]:
    """Seconds for a pass: images alone, images and logits, images built with no teacher."""
    views = Views(dataset.train, POLICY, 0)
    alone = Loader(views, SIZE, BATCH, Pixels("dali"))
    codec = fit(parse_codec("klt", 1000), np.array_split(logits_table(1000), 32), None)
    recipe = recipe_for(dataset, codec, None)
    teacher = nothing(1000)
    cache = build(folder / "stored", recipe, codec, dataset, teacher)
    joined = Loader(views, SIZE, BATCH, Pixels("dali"), cache=cache)
    return (
        lambda _: timed(lambda: exhaust(alone.epoch(0))),
        lambda _: timed(lambda: exhaust(joined.epoch(0))),
        lambda turn: timed(lambda: build(folder / f"{turn}", recipe, codec, dataset, teacher)),
    )


def epochs(folder: Path, dataset: Dataset) -> tuple[Measure, Measure, Measure]:
    """Seconds of ResNet-18's training steps: cross-entropy, from a cache, teacher in the step."""
    classes = len(dataset.train.classes)
    weights = folder / "resnet152.pt"
    torch.save(random_network(classes).state_dict(), weights)
    teacher = load_teacher(
        "resnet152", str(weights), classes=classes, size=SIZE, mean=MEAN, std=STD, default_size=SIZE
    )
    # The logits themselves do not matter to the time of a student's step.
    codec = fit(parse_codec("klt", classes), np.array_split(logits_table(classes), 32), None)
    recipe = recipe_for(dataset, codec, teacher)
    cache = build(folder, recipe, codec, dataset, nothing(classes))

    def seconds(turn: int, *, loss: str, cached: bool, online: bool) -> float:
        with tempfile.TemporaryDirectory() as out:
            settings = settings_for(
                dataset,
                cache if cached else None,
                policy=None if cached else "rrc-flip",
                losses=(loss,),
                student="resnet18",
                epochs=1,
                batch_size=32,
                seed=turn,
                online=online,
            )
            look = teacher.logits if online else None
            result = distill(
                settings,
                dataset,
                Path(out),
                cache=cache if cached else None,
                look=look,
                say=lambda _: None,
            )
        return result.pace.seconds

    return (
        lambda turn: seconds(turn, loss="ce", cached=False, online=False),
        lambda turn: seconds(turn, loss="spherical", cached=True, online=False),
        lambda turn: seconds(turn, loss="spherical", cached=True, online=True),
    )


def random_network(classes: int) -> torch.nn.Module:
    from torchvision.models import resnet152

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return resnet152(num_classes=classes)


def ratios(ours: Measure, baseline: Measure, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of both sides, round by round, taking turns; the first round is a warm-up."""
    pairs = [(ours(turn), baseline(turn)) for turn in range(rounds + 1)][1:]
    return [a for a, _ in pairs], [b for _, b in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="batches of 32 in an epoch")
    parser.add_argument("--only", nargs="*", choices=REQUIRED, default=list(REQUIRED))
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if {"read", "build"} & set(options.only):
            write_folder(root / "many", options.images)
            alone, joined, built = loaders(root, open_dataset("imagefolder", root / "many"))
            if "read" in options.only:
                mine, base = ratios(joined, alone, options.rounds)
                found["read"] = [b / a for a, b in zip(mine, base, strict=True)]
            if "build" in options.only:
                mine, base = ratios(built, alone, options.rounds)
                found["build"] = [b / a for a, b in zip(mine, base, strict=True)]
        if {"epoch", "online"} & set(options.only):
            write_folder(root / "few", 32 * options.steps)
            plain, cached, online = epochs(root, open_dataset("imagefolder", root / "few"))
            if "epoch" in options.only:
                mine, base = ratios(cached, plain, options.rounds)
                found["epoch"] = [a / b for a, b in zip(mine, base, strict=True)]
            if "online" in options.only:
                mine, base = ratios(online, cached, max(1, options.rounds // 2))
                found["online"] = [a / b for a, b in zip(mine, base, strict=True)]
    print(f"{'':8} {'median':>7} {'required':>9}  rounds")
    for name, values in found.items():
        rounds = " ".join(f"{value:.3f}" for value in values)
        print(f"{name:8} {statistics.median(values):7.3f} {REQUIRED[name]:>9}  {rounds}")
    medians = {name: round(statistics.median(values), 3) for name, values in found.items()}
    told = {"as_command_line": as_command_line.SET, "torch": torch.__version__}
    print(json.dumps({"benchmark": "overhead", **medians, "rounds": found, **told}))


if __name__ == "__main__":
    main()
