"""A cache out of an exported file."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal

from skd_cache.errors import InputError
from skd_cache.exchange.source import Source, open_source
from skd_cache.progress import track
from skd_cache.store import Cache, Unit, create_cache


def restore(file: Path, home: str) -> Cache:
    """Make a cache of an exported file, or go on where an earlier try was stopped.

    Its recipe is that of the exported cache but for the codec (``float16`` or ``topk:K``), so
    whatever replays the one replays the other. One unit at a time passes through memory.

    Args:
        file: made by `export_views`; nothing in it is trusted.
        home: the folder or URL in which the cache gets its own.

    Raises:
        InputError: it is no such file, or a cache of other data is there under the same name.
        DataError: the file is damaged; what was committed before stays.
    """
    with open_source(file) as source:
        source.check()
        recipe = source.recipe
        labels, contents, class_weight = source.sides()
        _require_disk(source, home)
        cache = create_cache(
            f"{home.rstrip('/')}/{recipe.cache_id}",
            recipe,
            labels=labels,
            contents=contents,
            class_weight=class_weight,
            provenance=source.provenance,
        )
        cache.sweep()
        _write(cache, source, [u for v in source.views for u in cache.missing(range(v, v + 1))])
        return cache


def _write(cache: Cache, source: Source, missing: Sequence[Unit]) -> None:
    total = len(source.views) * cache.recipe.dataset.samples
    ranges = [cache.unit_range(unit.shard) for unit in missing]
    done = total - sum(stop - start for start, stop in ranges)
    with track(total, f"import {source.file.name}", "rows", done) as bar:
        for unit in missing:
            rows = source.unit(unit)
            cache.write_unit(unit, rows.norm, rows.code, rows.probe, rows.params, rows.statistics)
            bar.advance(len(rows.norm))


def _require_disk(source: Source, home: str) -> None:
    """Refuse what cannot end; a cache is smaller than the file, so its size is enough.

    What an earlier try left counts as free: it is part of the cache.
    """
    if "://" in home:
        return
    folder = Path(home).expanduser().absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    there = folder / source.recipe.cache_id
    held = sum(path.stat().st_size for path in there.rglob("*") if path.is_file())
    need = source.cache_bytes - held
    if need > (free := shutil.disk_usage(existing).free):
        raise InputError(
            f"{there} needs up to {decimal(need)} more and its disk has {decimal(free)} free: "
            "free some, or use another --out"
        )
