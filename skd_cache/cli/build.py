"""``skd-cache build``: stage 1."""

import math
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
import numpy as np
from torch import Tensor

from skd_cache.build import Plan, build_units, fit_codec, make_plan
from skd_cache.cli import options
from skd_cache.cli.process import terminable
from skd_cache.codec import Codec, KltSettings, Planned, parse_codec, resolve
from skd_cache.dataset.catalog import Dataset, open_dataset
from skd_cache.errors import InputError, SkdCacheError
from skd_cache.home import cache_home
from skd_cache.pixels import Backend, open_backend
from skd_cache.progress import track
from skd_cache.replay import Policy, load_policy
from skd_cache.share import Contribution, Registry, Supply, own_variant, registry_location
from skd_cache.share.holding import is_created
from skd_cache.share.registry import require_create
from skd_cache.store import Recipe, Unit, Working, begin_cache, list_caches, open_cache
from skd_cache.store.objects import Objects
from skd_cache.store.recipe import MAX_CHUNK_BYTES, PROBE_EVERY
from skd_cache.teacher import Ensemble, load_ensemble, preflight_all
from skd_cache.world import World

CHUNK, COMPRESSED_CHUNK = 1024, 4096
PREFLIGHT_SAMPLES = 512


@click.command(no_args_is_help=True)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    required=True,
    metavar="NAME|FILE.pt2",
    help="A torchvision name, one of ours (wrn_16_2, resnet56, ...), timm/NAME, "
    "package.module:factory, or a program saved with torch.export.save, which is normalised as "
    "the dataset says. Repeat it, and the mean of their centred logits is stored.",
)
@click.option(
    "--teacher-weights",
    multiple=True,
    metavar="FILE|NAME|default",
    help="A safetensors or state_dict file, or a published name such as IMAGENET1K_V1; of several "
    "teachers, as often and in their order. [default: the published ones]",
)
@options.dataset_name(required=True)
@options.data
@click.option("--views", type=options.Views(), help="Which views. [default: the dataset's, 0:10]")
@click.option("--policy", metavar="NAME|FILE", help="none, rrc-flip, pad-crop-flip, or a .toml.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True)
@click.option("--size", type=click.IntRange(8, 8192), help="Pixels the teachers see.")
@click.option(
    "--codec",
    default="klt",
    show_default=True,
    help="klt, klt:small, klt:fine, klt:step=0.5,refine=8/4, float32, float16, int8, topk:K.",
)
@options.precision
@options.pixels
@options.decoder
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Images per teacher step; divides --shard.",
)
@click.option(
    "--shard",
    type=click.IntRange(64, 2**20),
    default=16384,
    show_default=True,
    help="Samples per unit of work, which is what a kill can cost.",
)
@options.device
@options.threads
@click.option("--out", metavar="PATH|URL", help="Where <cache-id>/ is put. [default: cache home]")
@options.registry
@click.option("--push", "pushing", is_flag=True, help="Give every unit to the registry once made.")
@click.option(
    "--new",
    "apart",
    is_flag=True,
    help="Build under a name of its own what exists elsewhere with another klt basis.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Say what would be done and stop.")
def command(
    teachers: tuple[str, ...],
    teacher_weights: tuple[str, ...],
    dataset: str,
    data: Path | None,
    views: range | None,
    policy: str | None,
    seed: int,
    size: int | None,
    codec: str,
    precision: str,
    pixels: str | None,
    decoder: str,
    batch_size: int,
    shard: int,
    device: str | None,
    threads: int | None,
    out: str | None,
    registry: str | None,
    pushing: bool,
    apart: bool,
    plan_only: bool,
) -> None:
    """Run the teacher once over every seeded view of a dataset and store its logits.

    The cache is named after all that determines its logits, so the same command on another
    machine names the same cache. A build that was stopped goes on where it was: the same command
    again computes only what no commit holds, here or in the registry, if one is named. Standard
    output is the cache's place, nothing else.

    \b
    Examples:
      skd-cache build --teacher wrn_16_2 --dataset demo --views 4
      skd-cache build --teacher resnet152 --teacher-weights IMAGENET1K_V1 \\
          --dataset imagenet --data /data/imagenet --plan
      skd-cache build --teacher timm/convnext_base --dataset my-images.h5 --views 0:30
      skd-cache build --teacher resnet152 --teacher convnext_base --dataset imagenet
    """
    team = _team(registry, pushing)
    threads = options.set_threads(threads)
    device = options.own_device(device)
    images = open_dataset(dataset, data)
    for what, part in (("--batch-size ", batch_size), ("", PROBE_EVERY)):
        if shard % part:
            raise InputError(f"--shard {shard} must be a multiple of {what}{part}")
    loaded = load_ensemble(
        teachers,
        teacher_weights,
        classes=len(images.train.classes),
        size=size,
        mean=images.defaults.mean,
        std=images.defaults.std,
        default_size=images.defaults.size,
        precision=precision,
        device=device,
    )
    drawn = load_policy(policy or images.defaults.policy)
    fitted_to = min(shard, len(images.train))
    chosen, reason = resolve(parse_codec(codec, loaded.classes), loaded.classes, fitted_to)

    def backend_of(part: Any, side: int) -> Backend:
        return open_backend(
            pixels, part, side, drawn, decoder=decoder, threads=threads, device=device
        )

    backends = [backend_of(images.train, side) for side in loaded.sizes]
    name = backends[0].name
    recipe = _recipe(loaded, images, drawn, seed, name, decoder, chosen, shard)
    asked = views or range(images.defaults.views)
    if apart:
        recipe = own_variant(recipe, _home(out), team)
    plan = _plan(recipe, out, asked)
    _say(*plan.lines())
    supply = None
    if team and (plan.missing or pushing):
        supply = Supply.ask(team, recipe, plan.location, asked)
        _say(*_supplied(supply, plan))
    if reason:
        _say(f"codec     {chosen.name}: {reason}")
    if set(plan.missing) - (supply.units() if supply else set()):
        if not pixels and name == "reference":
            _say("pixels    torchvision: DALI is not installed (pip install 'skd-cache[cuda13]')")
        if World.here().first:
            _preflight(loaded, images, backend_of, plan, batch_size)
    plan.require_disk()
    if plan_only:
        return
    with terminable():
        if "://" in plan.location and plan.missing:
            require_create(_home(out))
        if supply and plan.missing:
            plan = _fetch(supply, plan, out)
        if plan.missing or pushing:
            given = team if pushing else None
            _build(plan, loaded, images, backends, batch_size, threads, teachers, given)
    if World.here().first:
        click.echo(plan.location)


def _recipe(
    teacher: Ensemble,
    dataset: Dataset,
    policy: Policy,
    seed: int,
    pixels: str,
    decoder: str,
    codec: Planned,
    shard: int,
) -> Recipe:
    """All that determines a logit, resolved."""
    return Recipe.model_validate(
        {
            "teachers": [
                {
                    "architecture": member.architecture,
                    "weights": member.weights,
                    "size": member.size,
                    "mean": list(member.mean),
                    "std": list(member.std),
                }
                for member in teacher.members
            ],
            "precision": teacher.members[0].precision,
            "dataset": {
                "fingerprint": dataset.train.fingerprint,
                "samples": len(dataset.train),
                "classes": teacher.classes,
            },
            "policy": policy.to_dict(),
            "seed": seed,
            "pixels": {"backend": pixels, "decoder": decoder},
            "codec": codec.settings,
            "shard": shard,
            "chunk": _chunk(codec, teacher.classes, shard),
        }
    )


def _chunk(codec: Planned, classes: int, shard: int) -> int:
    """Positions of a chunk: many where they are compressed together, if memory allows."""
    chunk = math.gcd(COMPRESSED_CHUNK if isinstance(codec, KltSettings) else CHUNK, shard)
    while chunk * classes * 4 > MAX_CHUNK_BYTES and chunk % 2 == 0:
        chunk //= 2
    return chunk


def _team(asked: str | None, pushing: bool) -> Registry | None:
    """The registry, if there is one; to push there must be one, and it must be writable."""
    location = options.required_registry(asked) if pushing else registry_location(asked)
    team = Registry(location) if location else None
    if team and pushing and World.here().first:
        team.require_create()
    return team


def _supplied(supply: Supply, plan: Plan) -> list[str]:
    """What the registry has of it, in words."""
    count = len(supply.units() & set(plan.missing))
    said = [f"registry  {supply.registry.location} has {count} of the units to build"]
    if supply.kin:
        kin = ", ".join(supply.kin)
        said.append(f"kin       {kin} in the registry (same views, other codec or precision)")
    return said


def _fetch(supply: Supply, plan: Plan, out: str | None) -> Plan:
    """Have the first process bring what the registry holds; what is left to build then."""
    if World.here().first:
        supply.fetch(plan.location, plan.views, _say)
    elif supply.holding is not None:
        while (left := _plan(plan.recipe, out, plan.views)) and set(left.missing) & supply.units():
            time.sleep(1.0)  # if the first one fails, torchrun ends us
    return _plan(plan.recipe, out, plan.views)


def _home(out: str | None) -> str:
    return (out or str(cache_home())).rstrip("/")


def _plan(recipe: Recipe, out: str | None, views: range) -> Plan:
    """What there is to do, from what is already there."""
    home = _home(out)
    location = f"{home}/{recipe.cache_id}"
    here = [] if "://" in home else list_caches(Path(home))
    if "://" in home:
        exists = is_created(Objects(location, create=True))
    else:
        exists = any(path.name == recipe.cache_id for path in here)
    every = [Unit(view, shard) for view in views for shard in range(recipe.shards)]
    missing = open_cache(location).missing(views) if exists else every
    kin = [path.name for path in here if path.name != recipe.cache_id and _kin(path) == recipe.kin]
    return make_plan(recipe, location, views=views, missing=missing, exists=exists, kin=kin)


def _kin(path: Path) -> str | None:
    try:
        return open_cache(path).recipe.kin
    except SkdCacheError:
        return None  # a damaged neighbour is no reason not to build


def _preflight(
    teacher: Ensemble,
    dataset: Dataset,
    backend_of: Any,
    plan: Plan,
    batch_size: int,
) -> None:
    """Look at the teacher before it looks at everything: is it what it should be, and how fast?"""
    val = dataset.val
    if val is None:
        _say("preflight skipped: there is no validation set")
        return
    count = min(PREFLIGHT_SAMPLES, len(val))
    samples = np.linspace(0, len(val) - 1, count).astype(np.int64)
    batches = [samples[start : start + batch_size] for start in range(0, count, batch_size)]

    def pixels() -> Iterator[tuple[Sequence[Tensor], Any]]:
        share = dataset.defaults.eval_resize / dataset.defaults.size
        wanted = [(one.size, one.resize or round(one.size * share)) for one in teacher.members]
        looks = list(dict.fromkeys(wanted))  # teachers that want the same share it
        streams = [backend_of(val, size).stream_eval(batches, resize) for size, resize in looks]
        for batch, *images in zip(batches, *streams, strict=True):
            seen = dict(zip(looks, images, strict=True))
            yield [seen[look] for look in wanted], val.labels[batch]

    began = time.monotonic()
    found = preflight_all(teacher, pixels())
    rate, team = count / (time.monotonic() - began), World.here().size
    many = f" in each of {team} processes" if team > 1 else ""
    _say(*(f"preflight {one}" for one in found))
    _say(f"estimate  {_duration(plan.rows / rate / team)} at {rate:,.0f} images/s{many}")
    _say(*(f"warning: {one.warning}" for one in found if one.warning))


def _build(
    plan: Plan,
    teacher: Ensemble,
    dataset: Dataset,
    backends: Sequence[Backend],
    batch_size: int,
    threads: int,
    names: Sequence[str],
    team: Registry | None,
) -> None:
    backend, *others = backends
    recipe, shown = plan.recipe, World.here().first
    waiting = _Waiting()

    def fit() -> Codec:
        first = min(recipe.shard, recipe.dataset.samples)
        with track(first, f"fit {recipe.codec['name']}", "images") as bar:
            return fit_codec(
                recipe,
                dataset.train,
                backend,
                teacher.logits,
                teacher.class_weight,
                batch_size=batch_size,
                bar=bar,
                others=others,
            )

    cache = begin_cache(
        plan.location,
        recipe,
        labels=dataset.train.labels,
        contents=dataset.train.contents,
        class_weight=teacher.class_weight,
        provenance=_provenance(names, dataset, batch_size, threads, backend),
        fit=fit if isinstance(recipe.planned_codec(), KltSettings) else None,
        waiting=waiting,
    )
    total, left = len(plan.views) * recipe.dataset.samples, plan.rows
    with ExitStack() as stack:
        given = Contribution(plan.location, team, plan.views) if team else None
        give = stack.enter_context(given).give if given else lambda _unit: None
        bar = stack.enter_context(track(total, "build", "images", total - left, shown=shown))
        computed = build_units(
            cache,
            plan.views,
            dataset.train,
            backend,
            teacher.logits,
            batch_size=batch_size,
            bar=bar,
            waiting=waiting,
            others=others,
            committed=give,
        )
    if computed < len(plan.missing):
        _say(
            f"units     {computed} computed here, {len(plan.missing) - computed} by other builders"
        )
    if backend.fallbacks:
        _say(f"{backend.fallbacks:,} images went through PIL, which DALI refuses")


class _Waiting:
    """Says who is waited for, once for everybody."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, busy: list[Working]) -> None:
        for one in busy:
            if one.what not in self._said:
                self._said.add(one.what)
                what = "the cache's creation" if one.what == "cache" else f"unit {one.what}"
                _say(
                    f"waiting for {what}, process {one.builder.pid} on {one.builder.host} is at it"
                )


def _provenance(
    names: Sequence[str], dataset: Dataset, batch_size: int, threads: int, backend: Backend
) -> dict[str, Any]:
    """What was used, for people to read; no digest depends on it."""
    packages = ("skd-cache", "torch", "torchvision", "numpy", "pillow", "zarr")
    versions = {package: version(package) for package in packages}
    for dali in ("nvidia-dali-cuda130", "nvidia-dali-cuda120"):
        try:
            versions[dali] = version(dali)
        except PackageNotFoundError:
            continue
    return {
        "dataset": dataset.name,
        "classes": list(dataset.train.classes),
        "teachers": list(names),
        "batch_size": batch_size,
        "threads": threads,
        "memory_format": "channels_last",
        "backend": backend.name,
        "processor": platform.processor() or platform.machine(),
        "versions": versions,
    }


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def _say(*lines: str) -> None:
    """Of the processes torchrun started, one speaks for all."""
    if World.here().first:
        for line in lines:
            click.echo(line, err=True)
