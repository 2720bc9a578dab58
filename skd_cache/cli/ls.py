"""``skd-cache ls``: the caches on this machine."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from skd_cache.cli import options
from skd_cache.errors import InputError, SkdCacheError
from skd_cache.home import cache_home
from skd_cache.share import Registry
from skd_cache.store import list_caches, open_cache


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--registry",
    is_flag=False,
    flag_value="",
    metavar="[URL]",
    help="List the team's caches: those at URL, or where `push` and `pull` look.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(folder: Path | None, registry: str | None, as_json: bool) -> None:
    """List the caches in FOLDER, or in the cache home, most recently grown first.

    \b
    Examples:
      skd-cache ls
      skd-cache ls /mnt/team --json
      skd-cache ls --registry
    """
    where: str | Path
    if registry is not None:
        if folder is not None:
            raise InputError(f"list either {folder} or a registry")
        there = Registry(options.required_registry(registry or None))
        where, rows = there.location, [_row(there, name) for name in there.caches()]
    else:
        where = folder or cache_home()
        rows = [_row(path.parent, path.name) for path in list_caches(where)]
    if as_json:
        click.echo(json.dumps({"folder": str(where), "caches": rows}, indent=2))
        return
    if not rows:
        click.echo(f"no caches in {where}")
        return
    table = Table("cache", "teachers", "dataset", "policy", "codec", "views", "size", box=None)
    for row in rows:
        if "damage" in row:
            table.add_row(row["id"], row["damage"])
            continue
        views = f"{len(row['views'])}" + (f" +{row['partial']}" if row["partial"] else "")
        size = decimal(row["bytes"])
        table.add_row(
            *(row["id"], " + ".join(row["teachers"]), row["dataset"], row["policy"], row["codec"]),
            *(views, size),
        )
    Console().print(table)


def _row(home: Path | Registry, name: str) -> dict[str, Any]:
    try:
        cache = open_cache(home.objects(name) if isinstance(home, Registry) else home / name)
    except SkdCacheError as error:
        return {"id": name, "damage": str(error)}
    views = cache.views()
    policy = cache.recipe.policy
    return {
        "id": cache.id,
        "kin": cache.recipe.kin,
        "teachers": [teacher.architecture for teacher in cache.recipe.teachers],
        "dataset": str(cache.provenance.get("dataset", "?")),
        "policy": f"{policy['crop']}{'-flip' if policy['flip'] else ''}",
        "codec": cache.recipe.planned_codec().name,
        "views": views,
        "partial": len({unit.view for unit in cache.commits} - set(views)),
        "bytes": cache.data_bytes,
    }
