"""What a GPU makes of it: students from a cache, builds, decoders and memory, at 224 pixels.

    student  ResNet-18 from a cache against the same trainer on one batch in GPU memory   >= 0.95
    build    a build against the bare forward pass of its teacher                         >= 0.95
    decode   images alone, decoded on the GPU against on the CPU's cores                  (no aim)
    memory   most GPU memory of a student: from a cache, with ce, with the teacher in the step

The two sides of a ratio take turns; the ratio is the median over the rounds. Rates are those of a
run's last epoch, so that starting up and searching for the fastest convolutions is not in them.

    python benchmarks/gpu.py [--images 8192] [--rounds 3] [--only student build]
    python benchmarks/gpu.py --device cpu --images 96 --batch-size 16 --size 64 --rounds 1 \
        --teacher resnet18 --precision float32    # shows that it runs, and says nothing of a GPU
"""

import argparse
import contextlib
import gc
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import as_command_line
import numpy as np
import torch
from overhead import MEAN, POLICY, STD, Nothing, logits_table
from photographs import write_folder
from torchvision import models

from skd_cache.build import build_units
from skd_cache.codec import fit, parse_codec
from skd_cache.dataset.catalog import Dataset, open_dataset
from skd_cache.device import open_device
from skd_cache.distill.loader import Batch, Loader, Waits
from skd_cache.distill.run import distill
from skd_cache.distill.settings import settings_for
from skd_cache.distill.views import Pixels, batch_bounds
from skd_cache.pixels import open_backend
from skd_cache.replay import Views
from skd_cache.store import Cache, Recipe, create_cache
from skd_cache.teacher import Teacher, load_teacher

AIM = {"student": 0.95, "build": 0.95, "decode": None, "memory": None}


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    options: argparse.Namespace
    folder: Path
    dataset: Dataset
    teacher: Teacher

    @property
    def device(self) -> torch.device:
        return open_device(self.options.device)

    def recipe(self) -> tuple[Recipe, Any]:
        """A cache of the teacher's, and its codec, fitted to logits of about the right form."""
        classes, shard = len(self.dataset.train.classes), 64 * -(-len(self.dataset.train) // 64)
        table = np.array_split(logits_table(classes), 32)
        codec = fit(parse_codec("klt", classes), table, None)
        recipe = {
            "teacher": {
                "architecture": self.teacher.architecture,
                "weights": self.teacher.weights,
                "size": self.teacher.size,
                "mean": list(MEAN),
                "std": list(STD),
                "precision": self.teacher.precision,
            },
            "dataset": {
                "fingerprint": self.dataset.train.fingerprint,
                "samples": len(self.dataset.train),
                "classes": classes,
            },
            "policy": POLICY.to_dict(),
            "seed": 0,
            "pixels": {"backend": "dali", "decoder": "cpu"},
            "codec": codec.settings,
            "shard": shard,
            "chunk": math.gcd(4096, shard),
        }
        return Recipe.model_validate(recipe), codec

    def backend(self) -> Any:
        size, images = self.teacher.size, self.dataset.train
        return open_backend("dali", images, size, POLICY, device=str(self.device))


def build(bench: Bench, folder: Path) -> tuple[Cache, float]:
    """A view of the dataset, and how many images a second it took."""
    (recipe, codec), train = bench.recipe(), bench.dataset.train
    cache = create_cache(
        folder / recipe.cache_id,
        recipe,
        labels=train.labels,
        contents=train.contents,
        class_weight=None,
        provenance={"dataset": bench.dataset.name},
        codec=codec,
    )
    backend, batch_size = bench.backend(), bench.options.batch_size
    began = time.perf_counter()
    build_units(
        cache,
        range(1),
        train,
        backend,
        bench.teacher.logits,
        batch_size=batch_size,
        bar=Nothing(),
        waiting=lambda _busy: None,
    )
    return cache, len(train) / (time.perf_counter() - began)


def bare_forward(bench: Bench) -> float:
    """Images a second of the teacher's forward pass on a batch that lies where it computes."""
    size, batch_size = bench.teacher.size, bench.options.batch_size
    images = torch.randint(256, (batch_size, size, size, 3), dtype=torch.uint8).to(bench.device)
    batches = -(-len(bench.dataset.train) // batch_size)
    bench.teacher.logits(images).cpu()
    began = time.perf_counter()
    for _ in range(batches):
        logits = bench.teacher.logits(images)
    logits.cpu()  # waits for all of them
    return batches * batch_size / (time.perf_counter() - began)


class OneBatch:
    """A loader that gives the first batch of another again and again, from the device's memory."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.waits, self.fallbacks = Waits(), 0
        views, _, self._batch_size, self._pixels = given
        self._count, self._loader = len(views.images), Loader(*given, **named)
        self._batch: Batch | None = None

    def epoch(self, view: int, first_batch: int = 0) -> Iterator[Batch]:
        if self._batch is None:
            batches = self._loader.epoch(view)
            first = next(batches)
            self._batch = first.to(open_device(self._pixels.device))
            del batches
        for start, stop in batch_bounds(self._count, self._batch_size, first_batch):
            yield (
                self._batch.cut(0, stop - start) if stop - start < len(self._batch) else self._batch
            )


def train(
    bench: Bench, cache: Cache | None, loss: str, *, in_memory: bool = False, online: bool = False
) -> float:
    """Images a second in the last epoch of a student."""
    options = bench.options
    settings = settings_for(
        bench.dataset,
        cache,
        policy=None if cache is not None else "rrc-flip",
        losses=(loss,),
        student=options.student,
        size=options.size,
        epochs=options.epochs,
        batch_size=options.batch_size,
        precision=options.precision,
        device=options.device,
        online=online,
    )
    source = mock.patch("skd_cache.distill.run.Loader", OneBatch)
    with tempfile.TemporaryDirectory() as out, source if in_memory else contextlib.nullcontext():
        look = bench.teacher.logits if online else None
        distill(settings, bench.dataset, Path(out), cache=cache, look=look, say=lambda _: None)
        lines = map(json.loads, (Path(out) / "metrics.jsonl").read_text().splitlines())
        rates = [line["images_per_second"] for line in lines if line["kind"] == "epoch"]
    return float(rates[-1])


def decode(bench: Bench, decoder: str) -> float:
    """Images a second that arrive on the device, with nothing else to do."""
    views = Views(bench.dataset.train, POLICY, 0)
    pixels = Pixels("dali", decoder, None, str(bench.device))
    loader, count = Loader(views, bench.options.size, bench.options.batch_size, pixels), 0
    began = time.perf_counter()
    for batch in loader.epoch(0):
        count += len(batch.to(bench.device).images)
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - began)


def memory(work: Callable[[], object]) -> float | None:
    """The most GPU memory that tensors took, in MiB; None without a GPU."""
    if not torch.cuda.is_available():
        work()
        return None
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    return round(torch.cuda.max_memory_allocated() / 2**20, 1)


def write_classes(root: Path, images: int, classes: int) -> None:
    """The photographs, in as many class folders as asked for, so that logits are as long."""
    write_folder(root / "by-source", images)
    for number, path in enumerate(sorted((root / "by-source").rglob("*.jpg"))):
        folder = root / "classes" / f"{number % classes:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)


def load(options: argparse.Namespace, classes: int, device: str, folder: Path) -> Teacher:
    """A teacher with random weights, which take as long."""
    torch.manual_seed(0)
    weights = folder / "teacher.pt"
    torch.save(getattr(models, options.teacher)(num_classes=classes).state_dict(), weights)
    return load_teacher(
        options.teacher,
        str(weights),
        classes=classes,
        size=options.size,
        mean=MEAN,
        std=STD,
        default_size=options.size,
        precision=options.precision,
        device=device,
    )


def take_turns(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> list[Any]:
    """The rates of both, round by round; the first round is a warm-up."""
    return [(ours(), theirs()) for _ in range(rounds + 1)][1:]


def measure(bench: Bench, root: Path) -> dict[str, Any]:
    """All that was asked for, by name."""
    only, rounds, found = bench.options.only, bench.options.rounds, {}
    cache, _ = build(bench, root / "cache")
    turn = iter(range(10**6))
    if "student" in only:
        found["student"] = take_turns(
            lambda: train(bench, cache, "spherical"),
            lambda: train(bench, cache, "spherical", in_memory=True),
            rounds,
        )
    if "build" in only:
        found["build"] = take_turns(
            lambda: build(bench, root / f"build-{next(turn)}")[1],
            lambda: bare_forward(bench),
            rounds,
        )
    if "decode" in only and bench.device.type == "cuda":
        found["decode"] = take_turns(
            lambda: decode(bench, "gpu"), lambda: decode(bench, "cpu"), rounds
        )
    if "memory" in only:
        bench.teacher.model.to("cpu")  # what the student takes, not who stood by
        peaks = {
            "cached": memory(lambda: train(bench, cache, "spherical")),
            "ce": memory(lambda: train(bench, None, "ce")),
        }
        bench.teacher.model.to(bench.device)
        peaks["online"] = memory(lambda: train(bench, cache, "spherical", online=True))
        found["memory"] = peaks
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--student", default="resnet18")
    parser.add_argument("--teacher", default="resnet152")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--only", nargs="*", choices=AIM, default=list(AIM))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["SKD_CACHE_HOME"] = str(root / "home")  # the index goes with the images
        write_classes(root, options.images, min(options.classes, options.images))
        dataset = open_dataset("imagefolder", root / "classes")
        teacher = load(options, len(dataset.train.classes), options.device, root)
        found = measure(Bench(options, root, dataset, teacher), root)
    told: dict[str, Any] = {}
    print(f"{'':8} {'ours':>9} {'theirs':>9} {'ratio':>6} {'aim':>5}  ratios of the rounds")
    for name, rows in found.items():
        if name == "memory":
            continue
        ratios = [round(a / b, 3) for a, b in rows]
        ours, theirs = (statistics.median(side) for side in zip(*rows, strict=True))
        told[name] = {"ours": ours, "theirs": theirs, "ratio": statistics.median(ratios)}
        aim, ratio = AIM[name] or "", told[name]["ratio"]
        print(f"{name:8} {ours:9,.0f} {theirs:9,.0f} {ratio:6.3f} {aim:>5}  {ratios}")
    for name, peak in found.get("memory", {}).items():
        print(f"memory   {name:8} " + ("no GPU" if peak is None else f"{peak:,.0f} MiB"))
    told["memory"] = found.get("memory")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    about = {key: getattr(options, key) for key in ("images", "batch_size", "size", "precision")}
    about |= {"gpu": gpu, "torch": torch.__version__, "as_command_line": as_command_line.SET}
    print(json.dumps({"benchmark": "gpu", **told, **about}))


if __name__ == "__main__":
    main()
