"""``skd-cache verify``: are the data what was committed?"""

import json

import click

from skd_cache.errors import DataError
from skd_cache.home import cache_home
from skd_cache.store import find_cache, open_cache


@click.command(no_args_is_help=True)
@click.argument("cache")
@click.option("--full", is_flag=True, help="Read and decode every byte, not just compare sizes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(cache: str, full: bool, as_json: bool) -> None:
    """Check the objects of CACHE against its commits; exit code 3 if one fails.

    \b
    Examples:
      skd-cache verify 3f9a
      skd-cache verify 3f9a --full
    """
    opened = open_cache(find_cache(cache, cache_home()))
    problems = []
    for problem in opened.verify(full=full):
        problems.append(problem)
        if not as_json:
            click.echo(problem)
    units = len(opened.commits)
    if as_json:
        document = {"id": opened.id, "full": full, "units": units, "problems": problems}
        click.echo(json.dumps(document, indent=2))
    if problems:
        raise DataError(f"{opened.location}: {len(problems)} of its checks failed")
    if not as_json:
        click.echo(f"{opened.id}: {units} units are what was committed")
