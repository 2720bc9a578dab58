"""``skd-cache export``: a cache as one HDF5 file."""

from pathlib import Path

import click

from skd_cache.cli import options
from skd_cache.errors import InputError
from skd_cache.exchange import Dense, Form, Top, complete_views, export_views
from skd_cache.home import cache_home
from skd_cache.store import Cache, find_cache, open_cache

LARGEST = 100


@click.command(no_args_is_help=True)
@click.argument("cache")
@click.option(
    "--to",
    "form",
    type=click.Choice(["hdf5", "topk"]),
    required=True,
    help="hdf5: all logits as float16. topk: the largest probabilities and their classes.",
)
@click.option(
    "--k",
    type=click.IntRange(1),
    help="How many, with --to topk. [default: 100, or as many as there are]",
)
@click.option("--views", type=options.Views(), help="Which views. [default: all that are complete]")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file. [default: <cache-id>-hdf5.h5 or <cache-id>-topk.h5 here]",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def command(
    cache: str, form: str, k: int | None, views: range | None, out: Path | None, force: bool
) -> None:
    """Write CACHE (an id, the beginning of one, a path or a URL) into one HDF5 file.

    Plain h5py reads it: docs/exchange.md says what is where. `skd-cache import` makes a cache of
    it again. Only complete views are written. Standard output is the file, nothing else.

    \b
    Examples:
      skd-cache export 3f9a --to hdf5
      skd-cache export 3f9a --to topk --k 100 --views 0:10 -o resnet152-top100.h5
    """
    if k is not None and form != "topk":
        raise InputError(f"--k {k} goes with --to topk only")
    opened = open_cache(find_cache(cache, cache_home()))
    chosen = _form(opened, form, k)
    whole, partial = complete_views(opened, views)
    if partial:
        names = ", ".join(map(str, partial))
        click.echo(f"left out, not complete: view {names}", err=True)
    file = out or Path(f"{opened.id}-{form}.h5")
    export_views(opened, chosen, file, whole, force=force)
    click.echo(file)


def _form(cache: Cache, form: str, k: int | None) -> Form:
    classes = cache.recipe.dataset.classes
    if form == "hdf5":
        return Dense(classes)
    kept = cache.codec.settings.get("k", classes - 1)
    return Top(classes, k or min(LARGEST, kept))
