"""Removes a cache, or views of it; what is left is a sound cache at every moment."""

import os
import re
import shutil
from collections.abc import Iterable

from skd_cache.errors import InputError
from skd_cache.store import side
from skd_cache.store.claim import Claims
from skd_cache.store.layout import ROOT, SIDE, Unit, unit_of
from skd_cache.store.objects import Objects
from skd_cache.store.writer import unit_agreement

TRASH = re.compile(r"^\.[0-9a-f]{16}\.removed-\d+$")


def require_nobody(objects: Objects) -> None:
    """See that nobody builds a cache.

    Raises:
        InputError: somebody does.
    """
    for builder in Claims(objects).present():
        raise InputError(
            f"process {builder.pid} on {builder.host} builds {objects.location}: remove it when "
            "nobody does"
        )


def remove_cache(objects: Objects) -> None:
    """Remove all of a cache; no longer one from the first moment on.

    Raises:
        InputError: somebody builds it, or it may not be removed.
    """
    require_nobody(objects)
    if objects.folder is not None:
        place = objects.folder
        trash = place.with_name(f".{place.name}.removed-{os.getpid()}")
        try:
            place.rename(trash)
        except OSError as error:
            raise InputError(f"cannot remove {place}: {error.strerror}") from error
        shutil.rmtree(trash, ignore_errors=True)  # what stays is gc's
        return
    names = [found.name for found in objects.list()]
    # Without this one nobody opens it; without commits nobody reads the rest.
    first = [name for name in names if name == SIDE]
    then = [name for name in names if name.startswith("commit/") and name != SIDE]
    for name in (*first, *then, *(set(names) - {*first, *then})):
        objects.delete(name)


def remove_units(objects: Objects, units: Iterable[Unit]) -> None:
    """Withdraw units, each commit before its objects, and the views they leave empty.

    Raises:
        InputError: somebody builds the cache.
        DataError: it is damaged.
    """
    require_nobody(objects)
    recipe = side.read_recipe(objects)
    layout = side.read_commit(objects, recipe)[1]
    units = sorted(units)
    for unit in units:
        names = [grid.object(unit.shard) for grid in layout.view(unit.view).values()]
        unit_agreement(objects, layout, unit, lambda _point: None).withdraw(names)
    there = (unit_of(found.name, recipe) for found in objects.list("commit"))
    left = {unit.view for unit in there if unit is not None}
    for view in {unit.view for unit in units} - left:
        for found in list(objects.list(f"{ROOT}/view/{view:05d}")):
            objects.delete(found.name)


def units_of(objects: Objects, views: range) -> list[Unit]:
    """The units of these views that are committed.

    Raises:
        InputError: if there are none.
        DataError: if the cache is damaged.
    """
    recipe = side.read_recipe(objects)
    there = [unit for found in objects.list("commit") if (unit := unit_of(found.name, recipe))]
    if not (found := sorted(unit for unit in there if unit.view in views)):
        held = ", ".join(str(view) for view in sorted({unit.view for unit in there})) or "none"
        raise InputError(
            f"{objects.location} has none of views {views.start} to {views.stop - 1}: it has {held}"
        )
    return found
