"""``skd-cache info``: what a cache holds."""

import json
from typing import Any

import click
from rich.filesize import decimal

from skd_cache.cli import options
from skd_cache.errors import InputError
from skd_cache.home import cache_home
from skd_cache.share import Registry, pins_of, registry_location
from skd_cache.store import Cache, find_cache, open_cache, who_builds
from skd_cache.store.objects import Objects


@click.command(no_args_is_help=True)
@click.argument("cache")
@options.registry
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(cache: str, registry: str | None, as_json: bool) -> None:
    """Show what CACHE (an id, the beginning of one, a path or a URL) holds.

    One that is not on this machine is looked for in the registry, and one that --registry names
    only there; nothing is downloaded for it but commits.

    \b
    Examples:
      skd-cache info 3f9a
      skd-cache info /mnt/team/3f9a0c1d2e4b5a69 --json
      skd-cache info 3f9a --registry s3://team/distillation
    """
    found = describe(open_cache(_place(cache, registry)))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for line in _lines(found):
        click.echo(line)


def _place(cache: str, asked: str | None) -> str | Objects:
    """Where the cache is: here, else in the registry."""
    there = registry_location(asked)
    if not asked or there is None:
        try:
            return find_cache(cache, cache_home())
        except InputError:
            if there is None:
                raise
    registry = Registry(there)
    return registry.objects(registry.find(cache))


def describe(cache: Cache) -> dict[str, Any]:
    """Everything there is to say about a cache, as plain JSON values."""
    views = cache.views()
    statistics = cache.statistics
    digests = {view: cache.digest(view) for view in views}
    partial: dict[str, int] = {}
    for unit in cache.commits:
        if unit.view not in views:
            partial[str(unit.view)] = partial.get(str(unit.view), 0) + 1
    return {
        "id": cache.id,
        "kin": cache.recipe.kin,
        "location": cache.location,
        "codec": cache.recipe.planned_codec().name,
        "views": views,
        "digest": {str(view): digest for view, digest in digests.items()},
        "pins": [str(pin) for pin in pins_of(cache.id, digests)],
        "partial": partial,
        "shards": cache.shards,
        "claims": [
            {
                "what": one.what,
                "name": one.name,
                "host": one.builder.host,
                "pid": one.builder.pid,
                "silent_seconds": round(one.silent, 1),
                "over": one.over,
            }
            for one in who_builds(cache)
        ],
        "bytes": cache.data_bytes,
        "bytes_per_row": cache.data_bytes / statistics.count if statistics.count else None,
        "statistics": {
            "rows": statistics.count,
            "mean_norm": statistics.mean_norm if statistics.count else None,
            "norm_deviation": statistics.norm_deviation if statistics.count else None,
            "teacher_accuracy": statistics.accuracy if statistics.count else None,
            "mean_top_confidence": statistics.mean_top_confidence if statistics.count else None,
            "mean_true_confidence": statistics.mean_true_confidence if statistics.count else None,
        },
        "recipe": cache.recipe.model_dump(mode="json"),
        "provenance": dict(cache.provenance),
    }


def _lines(found: dict[str, Any]) -> list[str]:
    recipe, told, sums = found["recipe"], found["provenance"], found["statistics"]
    dataset = recipe["dataset"]
    per_row = f", {found['bytes_per_row']:,.1f} bytes a row" if found["bytes_per_row"] else ""
    lines = [
        f"cache       {found['id']} at {found['location']}",
        f"kin         {found['kin']}",
    ]
    lines += [
        f"teacher     {teacher['architecture']}, {teacher['size']} px, {recipe['precision']}, "
        f"weights {teacher['weights'][:12]}"
        for teacher in recipe["teachers"]
    ]
    lines += [
        f"dataset     {told.get('dataset', '?')}: {dataset['samples']:,} samples, "
        f"{dataset['classes']:,} classes, fingerprint {dataset['fingerprint'][:12]}",
        f"policy      {', '.join(f'{key} {value}' for key, value in recipe['policy'].items())}",
        f"seed        {recipe['seed']}",
        f"pixels      {recipe['pixels']['backend']}, decoded on {recipe['pixels']['decoder']}",
        f"codec       {found['codec']}, {decimal(found['bytes'])}{per_row}",
        f"views       {len(found['views'])} complete, shards of each: {found['shards']}",
    ]
    lines += [f"  view {view}: {digest}" for view, digest in found["digest"].items()]
    lines += [
        f"  view {view}: {count} of {found['shards']} shards"
        for view, count in found["partial"].items()
    ]
    lines += [f"pin         {pin}" for pin in found["pins"]]
    lines += [f"building    {_claim(claim)}" for claim in found["claims"]]
    if sums["rows"]:
        lines += [
            f"norm        mean {sums['mean_norm']:.3f}, deviation {sums['norm_deviation']:.3f}",
            f"top-1       {sums['teacher_accuracy']:.2%} of the views, at mean confidence "
            f"{sums['mean_top_confidence']:.3f}",
        ]
    return lines


def _claim(claim: dict[str, Any]) -> str:
    """Who is at what."""
    state = (
        "gone, free to be taken" if claim["over"] else f"seen {claim['silent_seconds']:.0f} s ago"
    )
    return f"{claim['name']}: process {claim['pid']} on {claim['host']}, {state}"
