"""``skd-cache import``: an exported file as a cache."""

from pathlib import Path

import click

from skd_cache.exchange import restore
from skd_cache.home import cache_home


@click.command(name="import", no_args_is_help=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", metavar="PATH|URL", help="Where <cache-id>/ is put. [default: cache home]")
def command(file: Path, out: str | None) -> None:
    """Make a cache of FILE, which `skd-cache export` wrote.

    Its recipe is that of the exported cache but for the codec (float16 or topk:K), so `distill`
    replays it in the same way. An import that was stopped goes on where it was when run again.
    Standard output is the cache's place, nothing else.

    \b
    Examples:
      skd-cache import 3f9a0c1d2e4b5a69-hdf5.h5
      skd-cache import resnet152-top100.h5 --out /mnt/team
    """
    click.echo(restore(file, out or str(cache_home())).location)
