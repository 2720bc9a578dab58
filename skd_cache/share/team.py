"""Push and pull: what a team does with its caches, said as it is done."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from skd_cache.errors import DataError, InputError
from skd_cache.progress import track
from skd_cache.share.holding import Holding, is_created
from skd_cache.share.pin import Pin, pin_digest
from skd_cache.share.registry import Registry
from skd_cache.share.transfer import Carried, Journey, carry, plan_journey
from skd_cache.store import Unit
from skd_cache.store.ledger import Ledger
from skd_cache.store.objects import Objects

Say = Callable[[str], None]


@dataclass(frozen=True)
class Delivery:
    """Where a cache stands now, and what had to be moved for it."""

    location: str
    carried: Carried


def push(place: str, registry: Registry, views: range | None, say: Say) -> Delivery:
    """Bring what a place holds of a cache into a registry.

    Raises:
        InputError: nothing to push, a registry that cannot be written, or one that has the cache
            with something else beside the views.
        DataError: what is pushed is damaged, or the registry's cache.
        SkdCacheError: the transfer failed; the same again goes on from there.
    """
    source = _source(Objects(place), views)
    registry.require_create()
    target = registry.objects(source.recipe.cache_id, create=True)
    journey = plan_journey(source, target, views)
    return _carry("push", journey, say)


def pull(
    cache: str, registry: Registry, home: Path, views: range | None, pin: Pin | None, say: Say
) -> Delivery:
    """Bring what a registry holds of a cache here; with a pin, exactly what it names, or nothing.

    Raises:
        InputError: nothing to pull, no room, or the cache is here with something else beside the
            views.
        DataError: what arrives is not what was committed, or not what the pin names.
        SkdCacheError: the transfer failed; the same again goes on from there.
    """
    name = registry.find(cache)
    source = _source(registry.objects(name), pin.views if pin else views)
    views = pin.views if pin else views
    if pin:
        _require(pin, source.ledger, str(source.objects.location))
    place = home / name
    if not place.is_dir() or not is_created(Objects(place)):
        _require_disk(place, sum(_size(source, unit) for unit in source.units(views)))
    elif pin:  # what is here already stays, so it is looked at first
        _require_agreeing(pin, Holding.at(Objects(place), views), source)
    journey = plan_journey(source, Objects(place, create=True), views)
    delivery = _carry("pull", journey, say)
    if pin:
        _require(pin, Holding.at(Objects(place), views).ledger, str(place))
    return delivery


def _source(objects: Objects, views: range | None) -> Holding:
    found = Holding.at(objects, views)
    if not found.units(views):
        held = found.ledger.views() if views is None else Holding.at(objects).ledger.views()
        which = "no views" if views is None else f"nothing of views {views.start} to {views[-1]}"
        told = f"; complete are {', '.join(map(str, held))}" if held else ""
        raise InputError(f"{objects.location} holds {which}{told}")
    return found


def _carry(verb: str, journey: Journey, say: Say) -> Delivery:
    total = journey.done + journey.bytes
    with track(total, verb, "bytes", journey.done) as bar:
        carried = carry(journey, bar)
    where = journey.target.location
    say(f"{verb}ed {carried.units} units, {decimal(carried.bytes)}, to {where}")
    if carried.theirs:
        shown = ", ".join(f"view {u.view} shard {u.shard}" for u in carried.theirs[:3])
        more = f" and {len(carried.theirs) - 3} more" if len(carried.theirs) > 3 else ""
        say(f"{where} keeps its own rows, which differ from the ones given, of {shown}{more}")
    return Delivery(where, carried)


def _require(pin: Pin, ledger: Ledger, place: str) -> None:
    found = pin_digest({view: ledger.digest(view) for view in pin.views})
    if found != pin.digest:
        raise DataError(
            f"{place} holds other data than the pin names: views {pin.views.start} to "
            f"{pin.views[-1]} are {found}"
        )


def _require_agreeing(pin: Pin, here: Holding, source: Holding) -> None:
    """The same of what a pull would end in, before it begins."""
    ours = here.units(pin.views)
    differing = [
        unit for unit, commit in source.units(pin.views).items() if ours.get(unit, commit) != commit
    ]
    if here.side != source.side or differing:
        which = (
            f"view {differing[0].view}, shard {differing[0].shard}" if differing else "its basis"
        )
        raise DataError(
            f"{here.objects.location} holds other rows than the pin names ({which}), and what is "
            "committed stays: pull into another SKD_CACHE_HOME, or remove that cache first"
        )


def _require_disk(place: Path, count: int) -> None:
    existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    if (free := shutil.disk_usage(existing).free) < count:
        raise InputError(
            f"{place} would need {decimal(count)} and its disk has {decimal(free)} free: free "
            "some, or name fewer --views"
        )


def _size(source: Holding, unit: Unit) -> int:
    return sum(told.size for told in source.ledger.commits[unit].objects.values())
