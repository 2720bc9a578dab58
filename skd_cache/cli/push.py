"""``skd-cache push``: give a cache to the team."""

import click

from skd_cache.cli import options
from skd_cache.cli.process import terminable
from skd_cache.home import cache_home
from skd_cache.share import Registry, push
from skd_cache.store import find_cache


@click.command(no_args_is_help=True)
@click.argument("cache")
@click.option("--views", type=options.Views(), help="Which views. [default: all there is of them]")
@options.registry
def command(cache: str, views: range | None, registry: str | None) -> None:
    """Copy CACHE (an id, the beginning of one, or a path) to the registry.

    Only what is missing there moves, and what is there already stays. A push that was cut off goes
    on where it was: run it again.

    \b
    Examples:
      skd-cache push 3f9a
      skd-cache push 3f9a --views 0:10 --registry s3://team/distillation
    """
    there = Registry(options.required_registry(registry))
    with terminable():
        found = push(find_cache(cache, cache_home()), there, views, _say)
    click.echo(found.location)


def _say(line: str) -> None:
    click.echo(line, err=True)
