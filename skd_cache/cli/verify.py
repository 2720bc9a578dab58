"""``skd-cache verify``: are the data what was committed?"""

import json

import click

from skd_cache.errors import DataError
from skd_cache.home import cache_home
from skd_cache.store import find_cache, open_cache, repair


@click.command(no_args_is_help=True)
@click.argument("cache")
@click.option("--full", is_flag=True, help="Read and decode every byte, not just compare sizes.")
@click.option(
    "--repair",
    "repairing",
    is_flag=True,
    help="Drop the units that fail, so that the next build makes them again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(cache: str, full: bool, repairing: bool, as_json: bool) -> None:
    """Check the objects of CACHE against its commits; exit code 3 if one fails.

    With --repair the failing ones are taken out, and what is left is checked; the command that
    built the cache then computes them again.

    \b
    Examples:
      skd-cache verify 3f9a
      skd-cache verify 3f9a --full
      skd-cache verify 3f9a --full --repair
    """
    place = find_cache(cache, cache_home())
    repairs = []
    for done in repair(place, full=full) if repairing else ():
        repairs.append(done)
        if not as_json:
            click.echo(done)
    opened = open_cache(place)
    problems = []
    for problem in opened.verify(full=full):
        problems.append(problem)
        if not as_json:
            click.echo(problem)
    units = len(opened.commits)
    if as_json:
        document = {"id": opened.id, "full": full, "units": units, "problems": problems}
        if repairing:
            document["repairs"] = repairs
        click.echo(json.dumps(document, indent=2))
    if problems:
        raise DataError(f"{opened.location}: {len(problems)} of its checks failed")
    if not as_json:
        click.echo(f"{opened.id}: {units} units are what was committed")
        if repairs:
            click.echo("run its build again to have what was dropped made again")
