"""Options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from skd_cache.cli.process import keep_memory
from skd_cache.errors import InputError, SkdCacheError
from skd_cache.world import World

Command = TypeVar("Command", bound=Callable[..., Any])


def dataset_name(*, required: bool) -> Callable[[Command], Command]:
    """``--dataset``: by name, or a packed file."""
    return click.option(
        "--dataset",
        required=required,
        metavar="NAME|FILE.h5",
        help="demo, imagenet, imagefolder, fashion-mnist, cifar10, cifar100, or a packed .h5.",
    )


data = click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Where the dataset lies. [default: SKD_CACHE_DATA, then the usual places]",
)
device = click.option("--device", help="cpu, cuda or cuda:N. [default: cuda if there is one]")
threads = click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads of a process for decoding and for torch. [default: one per core]",
)
pixels = click.option(
    "--pixels",
    type=click.Choice(["dali", "reference"]),
    help="Who draws the pixels. [default: dali if installed]",
)
decoder = click.option(
    "--decoder",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Where images are decoded; cpu keeps cache ids equal between machines.",
)
precision = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of the network's forward pass; losses and norms are float32 always.",
)


registry = click.option(
    "--registry",
    metavar="URL",
    help="Where the team's caches are: s3://, gs://, az://, file:// or a folder; none for none. "
    "[default: SKD_CACHE_REGISTRY, then `skd-cache config get registry`]",
)


shard_cache_size = click.option(
    "--shard-cache-size",
    metavar="SIZE",
    help="What shards of remote caches may take in $SKD_CACHE_HOME/shards, such as 500MB or 50GB. "
    "[default: SKD_CACHE_SHARD_CACHE_SIZE, then 20GB]",
)


yes = click.option("--yes", is_flag=True, help="Do not ask, for scripts.")


def confirm(what: str, *, yes: bool) -> None:
    """Ask whether to do what is named, unless that was said already.

    Raises:
        InputError: nobody answers.
        SkdCacheError: the answer is no.
    """
    if yes:
        return
    try:
        agreed = click.confirm(f"{what}?", err=True)
    except click.Abort:
        raise InputError("nothing was removed: give --yes where nobody can answer") from None
    if not agreed:
        raise SkdCacheError("nothing was removed")


class Views(click.ParamType[range]):
    """``N`` for the first N views, ``A:B`` for views A to B-1."""

    name = "N|A:B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> range:
        """A range of views, neither empty nor negative."""
        if isinstance(value, range):
            return value
        first, colon, last = str(value).partition(":")
        try:
            views = range(int(first), int(last)) if colon else range(int(first))
        except ValueError:
            self.fail(f"{value!r} is neither a number of views nor A:B", param, ctx)
        if not views or views.start < 0:
            self.fail(f"{value!r} names no view", param, ctx)
        if views.stop > 100_000:
            self.fail(f"{value!r} goes beyond view 99,999", param, ctx)
        return views


def required_registry(asked: str | None) -> str:
    """Where the registry is.

    Raises:
        InputError: nobody said where.
    """
    from skd_cache.share.settings import REGISTRY_VARIABLE, registry_location

    if (found := registry_location(asked)) is None:
        raise InputError(
            f"no registry is named: give --registry URL, set {REGISTRY_VARIABLE}, or run "
            "`skd-cache config set registry URL`"
        )
    return found


def resolve_device(asked: str | None) -> str:
    """The device to use: what was asked for, else a GPU when torch sees one."""
    import torch

    device = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        keep_memory()
    return device


def own_device(asked: str | None) -> str:
    """The same with its number; under torchrun every process has a GPU of its own.

    Raises:
        InputError: there is no such device.
    """
    import torch

    from skd_cache.device import open_device

    device = open_device(resolve_device(asked))
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what libraries use that are told nothing
    return str(device)


def set_threads(threads: int | None) -> int:
    """Fix how many threads torch computes with, and say how many decode.

    Processes that torchrun started on one machine share its cores.
    """
    import torch

    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        threads = max(1, cores // World.here().local_size)
    torch.set_num_threads(threads)
    return threads
