"""``skd-cache pull``: get a cache of the team."""

import click

from skd_cache.cli import options
from skd_cache.cli.process import terminable
from skd_cache.errors import InputError
from skd_cache.home import cache_home
from skd_cache.share import Pin, Registry, pull


@click.command(no_args_is_help=True)
@click.argument("cache", metavar="CACHE[@A:B:sha256:...]")
@click.option("--views", type=options.Views(), help="Which views. [default: all there is of them]")
@options.registry
def command(cache: str, views: range | None, registry: str | None) -> None:
    """Copy CACHE (an id or the beginning of one) from the registry into the cache home.

    Every byte is compared with its commit when it arrives. Only what is missing here moves, and a
    pull that was cut off goes on where it was: run it again. With a pin, as `skd-cache info` prints
    it, exactly the views it names are pulled, and nothing if they are not what it says.

    \b
    Examples:
      skd-cache pull 3f9a --views 0:10
      skd-cache pull 3f9a0c1d2e4b5a69@0:10:sha256:...
    """
    pin = Pin.parse(cache) if "@" in cache else None
    if pin and views:
        raise InputError("a pin names its views: leave --views out")
    there = Registry(options.required_registry(registry))
    with terminable():
        found = pull(pin.cache if pin else cache, there, cache_home(), views, pin, _say)
    click.echo(found.location)


def _say(line: str) -> None:
    click.echo(line, err=True)
