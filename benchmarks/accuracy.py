"""What a lossy codec costs a student: the same students from one teacher's logits, codec by codec.

A float32 cache is written again with each codec, without asking the teacher; students of the same
seed start from the same weights and see the same pixels in the same order, whatever the codec. On
held-out images each is compared with the exact teacher, and its difference to the float32 student
of its seed is averaged over the seeds, with Student's 95 % interval.

    python benchmarks/accuracy.py CACHE --dataset imagefolder --data TRAIN --held-out ROOT
        --teacher-weights FILE [--codecs float32 int8 ...] [--losses kd spherical] [--seeds 5]
        [--jobs 2] [--labels] --work DIR [-- --student resnet20 --epochs 3 ...]

What follows `--` goes to `skd-cache distill`. Finished runs in --work are not repeated.
"""

import argparse
import hashlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache as once
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as students_t  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional as F

from skd_cache.batch import centred, unit_rows
from skd_cache.cli.process import keep_memory
from skd_cache.codec import Codec, Encoded, fit, parse_codec
from skd_cache.dataset.catalog import Dataset, open_dataset
from skd_cache.distill.student import load_student
from skd_cache.pixels import normalise, open_backend
from skd_cache.replay import Policy
from skd_cache.store import Cache, Recipe, Unit, create_cache, open_cache
from skd_cache.teacher import Teacher, load_teacher

EXACT = "float32"
ROWS = 1024  # encoded at a time
BATCH = 250


@dataclass(frozen=True)
class Run:
    """One student: what it learned from, and where it is."""

    loss: str
    codec: str
    seed: int
    folder: Path

    @property
    def student(self) -> Path:
        return self.folder / "student.safetensors"


@dataclass(frozen=True)
class Score:
    """A student on held-out images, beside labels and teacher; KL in nats, teacher first."""

    accuracy: float  # %
    agreement: float  # % of first answers that are the teacher's
    kl_1: float
    kl_4: float


MEASURES = {
    "accuracy": ("top-1, %", 2),
    "agreement": ("agreement, %", 2),
    "kl_1": ("KL, T=1", 4),
    "kl_4": ("KL, T=4", 4),
}


def make_codec(text: str, source: Cache) -> Codec:
    """The codec for a cache like this one; where a fit is needed, from its view 0, shard 0."""
    first = source.stream(0, *source.unit_range(0), ROWS)
    logits = (rows.teacher.logits().numpy() for rows in first)
    return fit(parse_codec(text, source.recipe.dataset.classes), logits, source.class_weight)


def recode(source: Cache, text: str, home: Path) -> Cache:
    """The cache that a build with this codec would have written."""
    if text == EXACT:
        return source
    codec = make_codec(text, source)
    chunk = math.gcd(4096 if codec.settings["name"] == "klt" else 1024, source.recipe.shard)
    changed = {"codec": codec.settings, "chunk": chunk}
    recipe = Recipe.model_validate(source.recipe.model_dump() | changed)
    cache = create_cache(
        home / recipe.cache_id,
        recipe,
        labels=source.labels,
        contents=source.contents,
        class_weight=source.class_weight,
        provenance=dict(source.provenance),
        codec=codec,
    )
    for unit in sorted(set(source.commits) - set(cache.commits)):
        recode_unit(source, cache, unit)
    return cache


def recode_unit(source: Cache, cache: Cache, unit: Unit) -> None:
    encoded: list[Encoded] = []
    probes: list[NDArray[np.uint8]] = []
    for rows in source.stream(unit.view, *source.unit_range(unit.shard), ROWS):
        encoded.append(cache.codec.encode(rows.teacher.logits().numpy()))
        probes.append(rows.probes.numpy())
    code = {name: np.concatenate([part.code[name] for part in encoded]) for name in encoded[0].code}
    norm, commit = np.concatenate([part.norm for part in encoded]), source.commits[unit]
    told = commit.statistics.statistics()  # of the teacher's own logits, whatever the codec
    cache.write_unit(unit, norm, code, np.concatenate(probes), commit.params, told)


def bytes_per_row(cache: Cache) -> float:
    """Stored for each sample and view: codes, norm and its share of the thumbnails."""
    prints = [stored for unit in cache.commits.values() for stored in unit.objects.values()]
    return sum(stored.size for stored in prints) / cache.statistics.count


def train(run: Run, cache: Cache, options: argparse.Namespace) -> None:
    """Have ``skd-cache distill`` train a student that is not there yet."""
    if run.student.exists():
        return
    asked = {
        "--loss": run.loss,
        "--cache": cache.location,
        "--dataset": options.dataset,
        "--data": options.data,
        "--seed": run.seed,
        "--threads": 1,
        "--out": run.folder,
    }
    words = [str(word) for pair in asked.items() for word in pair] + options.recipe
    command = [sys.executable, "-m", "skd_cache", "distill", *words]
    began = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}\n{ended.stderr}")
    took = time.monotonic() - began
    print(f"{run.loss}, {run.codec}, seed {run.seed}: {took:.0f} s", file=sys.stderr, flush=True)


class HeldOut:
    """The held-out images, and what the exact teacher says of them."""

    def __init__(self, dataset: Dataset, teacher: Teacher, work: Path) -> None:
        if dataset.val is None:
            raise SystemExit(f"{dataset.name} has no held-out images: give --held-out")
        self._images, self._defaults = dataset.val, dataset.defaults
        self._name = self._images.fingerprint[:8]
        self.labels = torch.from_numpy(self._images.labels.astype(np.int64))  # [N]
        name = f"teacher-{teacher.weights[:8]}-{self._name}-{teacher.size}.npy"
        self.teacher = torch.from_numpy(self._ask(teacher, work / name))  # [N, C]

    def _ask(self, teacher: Teacher, file: Path) -> NDArray[np.float32]:
        if not file.exists():
            known = self._defaults
            resize = teacher.resize or round(teacher.size * known.eval_resize / known.size)
            seen = self._stream(teacher.size, resize, known.interpolation)
            np.save(file, torch.cat([teacher.logits(batch) for batch in seen]).numpy())
        return np.load(file)  # type: ignore[no-any-return]

    def _stream(self, size: int, resize: int, interpolation: str) -> Iterator[Tensor]:
        policy = Policy.from_dict({"interpolation": interpolation})
        count = len(self._images)
        batches = [np.arange(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]
        return open_backend(None, self._images, size, policy).stream_eval(iter(batches), resize)

    @once  # noqa: B019  # students of one study share a size
    def pixels(self, size: int, resize: int, interpolation: str) -> list[Tensor]:
        return list(self._stream(size, resize, interpolation))

    def score(self, run: Run, mean_norm: float) -> Score:
        """How the student of a run does; remembered beside it."""
        file = run.folder / f"score-{self._name}.json"
        if not file.exists():
            file.write_text(json.dumps(asdict(self._measure(run, mean_norm))))
        return Score(**json.loads(file.read_text()))

    @torch.inference_mode()
    def _measure(self, run: Run, mean_norm: float) -> Score:
        model, portrait = load_student(run.student)
        batches = self.pixels(portrait.size, portrait.resize, portrait.interpolation)
        model = model.to(memory_format=torch.channels_last)
        z = torch.cat([model(normalise(one, portrait.mean, portrait.std)) for one in batches])
        if run.loss.startswith("spherical"):  # its logits have a direction only
            z = mean_norm * unit_rows(centred(z))
        first, t = z.argmax(1), self.teacher
        return Score(
            accuracy=100 * (first == self.labels).float().mean().item(),
            agreement=100 * (first == t.argmax(1)).float().mean().item(),
            kl_1=divergence(t, z, 1),
            kl_4=divergence(t, z, 4),
        )


def divergence(t: Tensor, z: Tensor, temperature: float) -> float:
    """``KL(softmax(t/T) ‖ softmax(z/T))``, mean over the rows, without a factor T²."""
    log_t, log_z = (F.log_softmax(rows.double() / temperature, 1) for rows in (t, z))
    return F.kl_div(log_z, log_t, reduction="batchmean", log_target=True).item()


def interval(differences: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half width of Student's 95 % interval; a single one has none."""
    mean, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return mean, None
    quantile = float(students_t.ppf(0.975, count - 1))
    return mean, quantile * statistics.stdev(differences) / math.sqrt(count)


@dataclass(frozen=True)
class Summary:
    """A measure of one loss and codec over the seeds."""

    mean: float
    deviation: float | None  # between seeds
    difference: float  # to the float32 students of the same seeds
    interval: float | None  # of it: 95 %, half

    def told(self, digits: int) -> str:
        width = "" if self.interval is None else f" ± {self.interval:.{digits}f}"
        return f"{self.difference:+.{digits}f}{width}"


def summarise(scores: dict[Run, Score], loss: str, codec: str, measure: str) -> Summary:
    def of(wanted: str) -> dict[int, float]:
        found = {run: score for run, score in scores.items() if run.loss == loss}
        return {r.seed: getattr(s, measure) for r, s in found.items() if r.codec == wanted}

    ours, exact = of(codec), of(EXACT)
    deviation = statistics.stdev(ours.values()) if len(ours) > 1 else None
    differences = [ours[seed] - exact[seed] for seed in ours]
    return Summary(statistics.fmean(ours.values()), deviation, *interval(differences))


def teacher_of(source: Cache, weights: str | None) -> Teacher:
    (recipe,) = source.recipe.teachers
    mean, std = tuple(recipe.mean), tuple(recipe.std)
    teacher = load_teacher(
        recipe.architecture,
        weights,
        classes=source.recipe.dataset.classes,
        size=recipe.size,
        mean=mean,  # type: ignore[arg-type]  # three numbers
        std=std,  # type: ignore[arg-type]
        default_size=recipe.size,
    )
    if teacher.weights != recipe.weights:
        raise SystemExit(f"--teacher-weights are not those {source.location} was built with")
    return teacher


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path, help="a float32 cache")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data", type=Path, required=True, help="what the cache was built from")
    parser.add_argument("--held-out", type=Path, help="with validation images [default: --data]")
    parser.add_argument("--teacher-weights")
    parser.add_argument("--codecs", nargs="+", default=[EXACT, "float16", "int8"])
    parser.add_argument("--losses", nargs="+", default=["kd", "spherical"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each")
    parser.add_argument("--labels", action="store_true", help="labels mean something: tell top-1")
    parser.add_argument("--work", type=Path, required=True, help="folder for caches and runs")
    words = sys.argv[1:]
    ours = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:ours])
    options.recipe = words[ours + 1 :]
    options.codecs = [EXACT, *(one for one in options.codecs if one != EXACT)]
    return options


def main() -> None:
    options = arguments()
    keep_memory()  # as the command line does
    source = open_cache(options.cache)
    if source.codec.name != EXACT:
        raise SystemExit(f"{source.location} holds {source.codec.name}, not {EXACT}")
    told = json.dumps([source.id, options.dataset, options.recipe])
    runs = options.work / f"runs-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
    runs.mkdir(parents=True, exist_ok=True)
    caches = {text: recode(source, text, options.work / "caches") for text in options.codecs}
    seeds = range(options.seeds)  # the slowest to change: a study that is stopped has whole ones
    every = [
        Run(loss, codec, seed, runs / f"{loss}-{caches[codec].id}-{seed}".replace(":", "_"))
        for seed, loss, codec in product(seeds, options.losses, options.codecs)
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda run: train(run, caches[run.codec], options), every))
    dataset = open_dataset(options.dataset, options.held_out or options.data)
    held_out = HeldOut(dataset, teacher_of(source, options.teacher_weights), options.work)
    scores = {run: held_out.score(run, source.statistics.mean_norm) for run in every}
    measures = {name: MEASURES[name] for name in MEASURES if options.labels or name != "accuracy"}
    titles = [f"{title} | against {EXACT}" for title, _ in measures.values()]
    print(f"| loss | codec | bytes a row | {' | '.join(titles)} |")
    print("| --- " * (3 + 2 * len(measures)) + "|")
    found = []
    for loss, codec in product(options.losses, options.codecs):
        size = round(bytes_per_row(caches[codec]), 1)
        cells, said = [loss, codec, f"{size:.0f}"], {"loss": loss, "codec": codec, "bytes": size}
        for name, (_, digits) in measures.items():
            one = summarise(scores, loss, codec, name)
            cells += [f"{one.mean:.{digits}f}", "" if codec == EXACT else one.told(digits)]
            said[name] = asdict(one)
        print(f"| {' | '.join(cells)} |")
        found.append(said)
    single = [
        {"loss": run.loss, "codec": run.codec, "seed": run.seed, **asdict(score)}
        for run, score in scores.items()
    ]
    result = {"benchmark": "accuracy", "found": found, "runs": single, "recipe": options.recipe}
    print(json.dumps(result | {"held_out": len(held_out.labels), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
