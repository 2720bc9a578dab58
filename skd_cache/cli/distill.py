"""``skd-cache distill``: stage 2."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from skd_cache.cli import options
from skd_cache.dataset.catalog import Dataset, open_dataset
from skd_cache.distill.run import Result, distill
from skd_cache.distill.settings import Settings, settings_for
from skd_cache.errors import InputError
from skd_cache.home import cache_home
from skd_cache.losses import combine, fix_teacher, names, parse, parse_fix
from skd_cache.share.place import open_in_place, shard_cache_bytes
from skd_cache.store import Cache, find_cache, list_caches, open_cache
from skd_cache.world import World


@click.command(no_args_is_help=True)
@click.option(
    "--loss",
    "losses",
    multiple=True,
    required=True,
    metavar="NAME[:key=value,...]",
    help=f"{', '.join(names())}; repeat it and the teacher terms add up.",
)
@click.option(
    "--teacher-fix",
    "teacher_fixes",
    multiple=True,
    metavar="swap|topk:K|smooth:EPS",
    help="Correct the teacher's logits in front of the losses; repeat it for several, in order.",
)
@click.option(
    "--schedule-loss",
    "loss_schedules",
    multiple=True,
    metavar="OPTION=VALUE@EPOCH,...",
    help="Change an option of the losses over the epochs: alpha=0.9@0,0.5@60,0.1@80, or climbing: "
    "weight=0@0..1@20.",
)
@click.option(
    "--cache",
    metavar="ID|PATH|URL",
    help="Where the logits lie; at a URL they are read in place. "
    "[default: the most recent local cache of the dataset]",
)
@options.shard_cache_size
@options.dataset_name(required=False)
@options.data
@click.option("--views", type=options.Views(), help="Views to go through. [default: all built]")
@click.option("--student", metavar="NAME", help="As --teacher of build. [default: the dataset's]")
@click.option("--student-weights", metavar="FILE", help="Start from a safetensors file.")
@click.option("--epochs", type=click.IntRange(1))
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Images of a step, of all processes together.",
)
@click.option(
    "--accumulate",
    type=click.IntRange(1),
    help="Micro-batches that a process makes of its part. [default: 1]",
)
@click.option(
    "--sync-batch-norm",
    is_flag=True,
    default=None,
    help="Batch norm over all processes; GPUs only.",
)
@click.option("--optimizer", type=click.Choice(["sgd", "adamw"]), help="[default: sgd]")
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option("--momentum", type=float, help="[default: 0.9]")
@click.option("--nesterov", is_flag=True, default=None)
@click.option("--weight-decay", type=float)
@click.option("--schedule", type=click.Choice(["cosine", "step"]), help="Of the learning rate.")
@click.option("--milestones", metavar="E,E,...", help="Epochs at which step multiplies the rate.")
@click.option("--lr-decay", type=float, help="By what step multiplies it. [default: 0.1]")
@click.option("--warmup-epochs", type=click.IntRange(0))
@click.option("--clip", type=float, help="Largest L2 norm of the gradients.")
@click.option("--ema", type=float, help="Decay of a moving average of the weights.")
@click.option("--size", metavar="PX|PX@EPOCH,...", help="Pixels, or 128@0,160@30,224@80.")
@click.option("--seed", type=click.IntRange(0), help="Of the student's weights. [default: 0]")
@options.precision
@click.option("--compile", is_flag=True, default=None, help="torch.compile the student.")
@options.pixels
@options.decoder
@options.device
@options.threads
@click.option("--checkpoint-every", type=click.IntRange(1), help="Steps. [default: 1000]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder. [default: runs/<what>]"
)
@click.option("--fresh", is_flag=True, help="Start over whatever run is in --out.")
@click.option("--online", is_flag=True, help="Ask the teacher in every step: the baseline.")
@click.option(
    "--teacher-weights",
    multiple=True,
    metavar="FILE|NAME|default",
    help="Of the teacher, for --online; of several, in the order of the cache's.",
)
def command(
    cache: str | None,
    shard_cache_size: str | None,
    dataset: str | None,
    data: Path | None,
    out: Path | None,
    fresh: bool,
    online: bool,
    teacher_weights: tuple[str, ...],
    views: range | None,
    milestones: str | None,
    **chosen: Any,
) -> None:
    """Train a student from a cache: the same views, the teacher's logits, no teacher.

    Every default is the dataset's published recipe. A run whose --out holds a run of the same
    settings goes on where it stopped, mid-epoch if need be. --loss ce alone needs no cache;
    docs/losses.md has every loss's formula, options and source. Started with torchrun it trains on
    as many GPUs as there are processes.

    \b
    Examples:
      skd-cache distill --loss spherical
      skd-cache distill --loss dkd:beta=2 --schedule-loss weight=0.05@0..1@19
      skd-cache distill --loss kd --teacher-fix swap
      skd-cache distill --loss dist:beta=2,gamma=2 --dataset imagenet --data /data/imagenet
      skd-cache distill --loss kd:temperature=4 --loss dist --cache 3f9a --student resnet8x4
      skd-cache distill --loss dist --cache s3://team/caches/3f9a0c1d2e4b5a69 --data /data/imagenet
      torchrun --nproc-per-node 8 -m skd_cache distill --loss spherical --data /data/imagenet
    """
    losses, name = chosen["losses"], dataset
    chosen["threads"] = options.set_threads(chosen["threads"])
    chosen["device"] = options.resolve_device(chosen["device"])
    # A wrong loss is told before a dataset of a million files is opened.
    fixes = [parse_fix(text) for text in chosen["teacher_fixes"]]
    needs_teacher = fix_teacher(combine([parse(text) for text in losses]), fixes).needs_teacher
    opened = None if name is None else open_dataset(name, data)
    limit = shard_cache_bytes(shard_cache_size)
    found = _cache(cache, opened, limit, needed=needs_teacher or online)
    if opened is None:
        opened = _dataset_of(found, data)
    settings = settings_for(
        opened,
        found,
        views=None if views is None else tuple(views),
        milestones=None if milestones is None else _epochs(milestones),
        online=online or None,
        **chosen,
    )
    out = out or Path("runs") / _name(opened, settings)
    _say(f"run       {out}")
    _hint(settings.device)
    look = _teacher(found, teacher_weights, settings) if found is not None and online else None
    fresh = fresh and not _restarted()
    result = distill(settings, opened, out, cache=found, look=look, fresh=fresh, say=_say)
    _report(result)


def _cache(text: str | None, dataset: Dataset | None, limit: int, *, needed: bool) -> Cache | None:
    """The cache that is asked for, or the most recent one that fits, if one is needed."""
    home = cache_home()
    if text is not None:
        return open_in_place(find_cache(text, home), home, limit=limit, say=_say)
    if not needed:
        return None
    for path in list_caches(home):
        cache = open_cache(path)
        if dataset is None or cache.recipe.dataset.fingerprint == dataset.train.fingerprint:
            _say(f"cache     {cache.id}, the most recent in {home} (--cache takes another)")
            return cache
    of_it = "" if dataset is None else f" of {dataset.name}"
    raise InputError(f"there is no cache{of_it} in {home}: run skd-cache build, or give --cache")


def _dataset_of(cache: Cache | None, data: Path | None) -> Dataset:
    """The dataset that a cache says it is of."""
    if cache is None:
        raise InputError("which images? give --dataset, or a --cache that knows")
    name = str(cache.provenance.get("dataset", ""))
    try:
        return open_dataset(name, data)
    except InputError as error:
        raise InputError(
            f"cache {cache.id} was built of {name!r}, but {error} (--dataset says where it is)"
        ) from error


def _teacher(cache: Cache, weights: Sequence[str], settings: Settings) -> Callable[..., Tensor]:
    """The cache's own teachers, to be asked again."""
    from skd_cache.teacher import Ensemble, load_ensemble  # only here: stage 2 does without

    recipes = cache.recipe.teachers
    loaded = load_ensemble(
        [recipe.architecture for recipe in recipes],
        weights,
        classes=cache.recipe.dataset.classes,
        size=[recipe.size for recipe in recipes],
        mean=(0.0, 0.0, 0.0),  # theirs are the recipe's, below
        std=(1.0, 1.0, 1.0),
        default_size=recipes[0].size,
        precision=cache.recipe.precision,
        device=settings.device,
    )
    members = []
    for teacher, recipe in zip(loaded.members, recipes, strict=True):
        if teacher.weights != recipe.weights:
            raise InputError(
                f"the weights of {recipe.architecture} ({teacher.weights[:12]}) are not those "
                f"cache {cache.id} was built with ({recipe.weights[:12]}): give --teacher-weights"
            )
        mean, std = tuple(recipe.mean), tuple(recipe.std)
        members.append(replace(teacher, mean=mean, std=std))  # type: ignore[arg-type]  # three each
    return Ensemble(tuple(members)).logits


def _epochs(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--milestones {text!r} is not of the form 30,60,90") from None


def _name(dataset: Dataset, settings: Settings) -> str:
    """A run's folder name, from what people tell runs apart by."""
    losses = "+".join(text.partition(":")[0] for text in settings.losses)
    fixes = "".join(f"-{text.replace(':', '')}" for text in settings.teacher_fixes)
    student = settings.student.replace("/", "-").replace(":", "-")
    online = "-online" if settings.online else ""
    return f"{dataset.name.removesuffix('.h5')}-{student}-{losses}{fixes}{online}"


def _restarted() -> bool:
    """Whether torchrun has started this run before: what it did since is not to be thrown away."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _hint(device: str) -> None:
    """Say that there are more GPUs than the one that a single process uses."""
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    if World.here().size > 1 or gpus < 2:
        return
    line = shlex.join(sys.argv[1:])
    torchrun = f"torchrun --nproc-per-node {gpus} -m skd_cache {line}"
    _say(f"gpus      one of {gpus} GPUs is used; all: {torchrun}")


def _say(line: str) -> None:
    """Tell people, once for all processes."""
    if World.here().first:
        click.echo(line, err=True)


def _report(result: Result) -> None:
    _say(f"pace      {result.pace.sentence()}")
    if result.fallbacks:
        _say(f"pixels    {result.fallbacks:,} images went through PIL, which DALI refuses")
    if result.top1 is not None and result.top5 is not None:
        _say(f"top-1     {result.top1:.2%}, top-5 {result.top5:.2%}")
    if result.best_top1 is not None and result.best_epoch is not None:
        _say(f"best      {result.best_top1:.2%} after epoch {result.best_epoch + 1}")
    _say("To load the student:")
    for line in result.loading:
        _say(f"  {line}")
    if World.here().first:
        click.echo(result.student)
