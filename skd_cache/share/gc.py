"""Finds what nobody needs any more, in caches and in the shard cache, so that it can be removed.

Safe while others work. Of a cache with a builder present nothing goes but what dead processes left
half written. Otherwise what was staged goes if its builder is known to be dead, or, since who
pushes or pulls a cache stages without a claim, after a while. What was decided on stays always: the
next build commits it.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from skd_cache.errors import DataError, InputError, SkdCacheError
from skd_cache.share import mirror, shard_cache
from skd_cache.share.remove import TRASH
from skd_cache.share.shard_cache import ShardCache
from skd_cache.store import side
from skd_cache.store.agree import STAGE
from skd_cache.store.claim import Claims, lease_seconds
from skd_cache.store.commit import Commit
from skd_cache.store.layout import SIDE, Layout, unit_of
from skd_cache.store.objects import Found, Objects

GRACE = timedelta(hours=24)
_ID = re.compile(r"^[0-9a-f]{16}$")
_SHARD = re.compile(r"^logits\.zarr/view/(\d{5})/[a-z_]+/c/")
_METADATA = re.compile(r"^logits\.zarr/view/(\d{5})/([a-z_]+/)?zarr\.json$")
_STAGED = re.compile(rf"^{STAGE}/(?P<place>.+)/[0-9a-f]{{64}}$")
_DECIDED = re.compile(rf"^{STAGE}/(?P<place>.+)/decision\.json$")


@dataclass(frozen=True)
class Waste:
    """Something nobody needs: why, where, how large, and how it goes."""

    why: str
    place: str
    size: int
    remove: Callable[[], object]


def find_waste(home: Path, limit: int, grace: timedelta = GRACE) -> Iterator[Waste]:
    """What can go of the caches in ``home``, and of the shards of remote caches.

    Args:
        home: where caches live on this machine.
        limit: bytes that shards of remote caches may take.
        grace: how long what might be under way is left alone.
    """
    if not home.is_dir():
        return
    for folder in sorted(path for path in home.iterdir() if path.is_dir()):
        if TRASH.match(folder.name):
            remove = partial(shutil.rmtree, folder, ignore_errors=True)
            yield Waste("a removal cut short", str(folder), _size(folder), remove)
        elif _ID.match(folder.name):
            yield from waste_of(Objects(folder), grace)
    yield from _waste_of_remote(home, limit)


def find_registry_waste(registry: Objects, grace: timedelta = GRACE) -> Iterator[Waste]:
    """What can go of the caches below a URL or folder."""
    for name in sorted(registry.folders()):
        if _ID.match(name):
            yield from waste_of(Objects(f"{registry.location.rstrip('/')}/{name}"), grace)


def waste_of(objects: Objects, grace: timedelta = GRACE) -> Iterator[Waste]:
    """What can go of one cache."""
    for path, size in objects.partials():
        remove = partial(path.unlink, missing_ok=True)
        yield Waste("half written by a process that is gone", str(path), size, remove)
    claims = Claims(objects)
    if claims.present():
        return
    # In this order: what is decided on is committed before its decision goes.
    found = list(objects.list())
    decided = {match["place"] for one in objects.list(STAGE) if (match := _DECIDED.match(one.name))}
    committed = {one.name for one in objects.list("commit")}
    for one in found:
        if why := _why(one, objects, claims, decided, committed, grace):
            remove = partial(_delete, objects, one.name, _place(one.name, committed))
            yield Waste(why, _where(objects, one), one.size, remove)
    with suppress(InputError, DataError):  # a cache that is no longer whole is left as it is
        yield from _waste_of_views(objects, found, decided, committed, grace)


def _waste_of_views(
    objects: Objects, found: list[Found], decided: set[str], committed: set[str], grace: timedelta
) -> Iterator[Waste]:
    recipe = side.read_recipe(objects)
    layout = side.read_commit(objects, recipe)[1]
    needed = _needed(layout, committed)
    deciding = {place.partition("/")[0] for place in decided}
    views = {name.split("/")[1] for name in committed} | deciding
    for one in found:
        if (match := _SHARD.match(one.name)) and one.name not in needed:
            if match[1] not in deciding:
                remove = partial(_delete_shard, objects, layout, one.name, match[1])
                yield Waste("a shard nobody commits", _where(objects, one), one.size, remove)
        elif (match := _METADATA.match(one.name)) and match[1] not in views and _age(one) > grace:
            remove = partial(_delete_shard, objects, layout, one.name, match[1])
            yield Waste("metadata of a view without data", _where(objects, one), one.size, remove)


def _needed(layout: Layout, committed: set[str]) -> set[str]:
    """The shards that commits of these names speak of."""
    units = {unit for name in committed if (unit := unit_of(name, layout.recipe))}
    views = {unit.view: layout.view(unit.view) for unit in units}
    return {grid.object(unit.shard) for unit in units for grid in views[unit.view].values()}


def _why(
    one: Found,
    objects: Objects,
    claims: Claims,
    decided: set[str],
    committed: set[str],
    grace: timedelta,
) -> str:
    """Why something outside the data can go, nobody being at work; empty if it stays."""
    if one.name.startswith("claim/"):
        return "a claim of a builder that is gone"
    if SIDE not in committed and f"{STAGE}/cache" not in one.name and not decided:
        return "of a cache that was never completed" if _age(one) > grace else ""
    if match := _DECIDED.match(one.name):
        return "staged, committed since" if f"commit/{match['place']}.json" in committed else ""
    if not (match := _STAGED.match(one.name)):
        return ""
    place = match["place"]
    if f"commit/{place}.json" in committed:
        return "staged, committed since"
    if place in decided:
        return ""
    sign = claims.last_sign(place)
    killed = sign is not None and one.modified <= sign + timedelta(seconds=lease_seconds())
    if killed and objects.folder is not None:
        return "staged by a builder that is gone"
    return "staged and left" if _age(one) > grace else ""


def _place(name: str, committed: set[str]) -> str:
    """Where a decision would make use of something staged; empty if none will any more."""
    match = _STAGED.match(name)
    return "" if match is None or f"commit/{match['place']}.json" in committed else match["place"]


def _where(objects: Objects, one: Found) -> str:
    return f"{objects.location.rstrip('/')}/{one.name}"


def _delete(objects: Objects, name: str, place: str) -> None:
    """Remove an object unless somebody has come since, or it was decided on at its ``place``."""
    decided = place and objects.size(f"{STAGE}/{place}/decision.json") is not None
    if not decided and not Claims(objects).present():
        objects.delete(name)


def _delete_shard(objects: Objects, layout: Layout, name: str, view: str) -> None:
    """Remove an object of a view unless somebody has come since, or a commit or decision has."""
    if Claims(objects).present() or any(objects.list(f"{STAGE}/{view}")):
        return
    committed = {found.name for found in objects.list(f"commit/{view}")}
    if name not in _needed(layout, committed) and not (committed and _METADATA.match(name)):
        objects.delete(name)


def _waste_of_remote(home: Path, limit: int) -> Iterator[Waste]:
    """Copies of remote caches that are gone, and shards that no remote cache names."""
    known: set[str] = set()
    for around in sorted((home / mirror.FOLDER).glob("*")):
        if _is_gone(around):
            remove = partial(shutil.rmtree, around, ignore_errors=True)
            yield Waste("of a remote cache that is gone", str(around), _size(around), remove)
            continue
        for path in around.glob("*/commit/*/*.json"):
            with suppress(DataError, OSError):
                commit = Commit.parse(path.read_bytes(), str(path))
                known |= {told.sha256 for told in commit.objects.values()}
    if (home / shard_cache.FOLDER).is_dir():
        shards = ShardCache(home / shard_cache.FOLDER, limit)
        for found in shards.surplus(known):
            why = "a shard beyond the limit"
            if found.partial:
                why = "half fetched by a process that is gone"
            elif found.name not in known:
                why = "a shard of no cache that is known here"
            place = str(shards.folder / found.name)
            yield Waste(why, place, found.size, partial(shards.remove, found))


def _is_gone(around: Path) -> bool:
    """Whether a remote cache is surely not there any more; one that does not answer may be."""
    try:
        url = (around / mirror.LOCATION).read_text()
        return Objects(url).size(SIDE) is None
    except FileNotFoundError:
        return True
    except (SkdCacheError, OSError):
        return False


def _age(one: Found) -> timedelta:
    return datetime.now(UTC) - one.modified


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
