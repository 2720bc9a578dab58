"""``skd-cache rm``: remove a cache, or views of it."""

import click
from rich.filesize import decimal

from skd_cache.cli import options
from skd_cache.distill.matching import spans
from skd_cache.errors import InputError, SkdCacheError
from skd_cache.home import cache_home
from skd_cache.share.place import is_remote
from skd_cache.share.remove import remove_cache, remove_units, require_nobody, units_of
from skd_cache.store import find_cache, open_cache
from skd_cache.store.layout import RECIPE
from skd_cache.store.objects import Objects


@click.command(no_args_is_help=True)
@click.argument("cache")
@click.option("--views", type=options.Views(), help="Only these views. [default: all of it]")
@click.option(
    "--registry", metavar="URL", help="The cache of that id below a URL or folder that is shared."
)
@options.yes
def command(cache: str, views: range | None, registry: str | None, yes: bool) -> None:
    """Remove CACHE (an id, the beginning of one, or a path), or some views of it.

    Asks first, naming what goes; not while somebody builds it. The views that are left stay
    readable at every moment. A cache in a registry is removed with --registry only.

    \b
    Examples:
      skd-cache rm 3f9a
      skd-cache rm 3f9a --views 10:20
      skd-cache rm 3f9a0c1d2e4b5a69 --registry s3://team/caches
    """
    objects = _place(cache, registry)
    require_nobody(objects)
    if views is None:
        options.confirm(f"remove {_whole(objects)}", yes=yes)
        remove_cache(objects)
    else:
        units = units_of(objects, views)
        gone = sorted({unit.view for unit in units})
        held = open_cache(objects)
        size = sum(o.size for unit in units for o in held.commits[unit].objects.values())
        said = f"view{'s' if len(gone) > 1 else ''} {spans(gone)} of {objects.location}"
        options.confirm(f"remove {said} ({decimal(size)})", yes=yes)
        remove_units(objects, units)
    click.echo(f"removed from {objects.location}")


def _place(cache: str, registry: str | None) -> Objects:
    if registry is None:
        found = find_cache(cache, cache_home())
        if is_remote(found):
            raise InputError(
                f"{found} is not on this machine: say that it is meant with --registry "
                f"{found.rstrip('/').rpartition('/')[0]}, and the id"
            )
        return Objects(found)
    names = [name for name in Objects(registry).folders() if name.startswith(cache)]
    if len(names) != 1:
        what = f"several caches begin with {cache}" if names else f"there is no cache {cache}"
        raise InputError(f"{what} in {registry}: {', '.join(sorted(names)) or 'nothing like it'}")
    objects = Objects(f"{registry.rstrip('/')}/{names[0]}")
    if objects.size(RECIPE) is None:
        raise InputError(f"{objects.location} is not a cache: it has no {RECIPE}")
    return objects


def _whole(objects: Objects) -> str:
    """A cache in words: id, what it is of, views, size, place."""
    size = decimal(sum(found.size for found in objects.list()))
    try:
        cache = open_cache(objects)
    except SkdCacheError:
        return f"{objects.leaf} (damaged or incomplete, {size}) at {objects.location}"
    views = spans(cache.views()) or "none complete"
    of = f"{cache.provenance.get('dataset', '?')}, views {views}, {size}"
    return f"{cache.id} ({of}) at {objects.location}"
