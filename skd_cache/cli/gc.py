"""``skd-cache gc``: remove what nobody needs any more."""

from datetime import timedelta

import click
from rich.filesize import decimal

from skd_cache.cli import options
from skd_cache.home import cache_home
from skd_cache.share.gc import Waste, find_registry_waste, find_waste
from skd_cache.share.place import shard_cache_bytes
from skd_cache.store.objects import Objects


@click.command()
@click.option("--dry-run", is_flag=True, help="List what would go, and remove nothing.")
@click.option(
    "--registry",
    metavar="URL",
    help="Clean the caches below a URL or folder that is shared; asks before it removes anything.",
)
@options.yes
@click.option(
    "--older-than",
    type=click.FloatRange(0),
    metavar="HOURS",
    default=24.0,
    show_default=True,
    help="Leave alone what might be a push or pull under way and is younger.",
)
@options.shard_cache_size
def command(
    dry_run: bool,
    registry: str | None,
    yes: bool,
    older_than: float,
    shard_cache_size: str | None,
) -> None:
    """Remove what nobody needs from the caches on this machine, after listing it with sizes.

    That is: shards that no commit speaks of, files half written by processes that are gone, what
    they staged, their claims, removals cut short, shards of remote caches beyond their limit or of
    caches that are gone. Caches that somebody builds are left as they are, and so is whatever
    was decided on and only waits to be committed. Nothing in a registry is touched without
    --registry.

    \b
    Examples:
      skd-cache gc --dry-run
      skd-cache gc --shard-cache-size 5GB
      skd-cache gc --registry s3://team/caches --dry-run
    """
    grace, limit = timedelta(hours=older_than), shard_cache_bytes(shard_cache_size)
    if registry is not None:
        where, found = registry, list(find_registry_waste(Objects(registry), grace))
    else:
        where = str(cache_home())
        found = list(find_waste(cache_home(), limit, grace))
    for one in found:
        click.echo(f"{decimal(one.size):>10}  {one.place}  ({one.why})")
    if not found:
        click.echo(f"nothing to remove in {where}")
        return
    total = f"{len(found):,} objects, {decimal(_bytes(found))}"
    if dry_run:
        click.echo(f"would remove {total} from {where}")
        return
    if registry is not None:
        options.confirm(f"remove these {total} from {registry}", yes=yes)
    for one in found:
        one.remove()
    click.echo(f"removed {total} from {where}")


def _bytes(found: list[Waste]) -> int:
    return sum(one.size for one in found)
