"""Takes out of a cache what fails its commits, so that a build makes it again."""

from collections.abc import Iterator

from skd_cache.errors import DataError, InputError
from skd_cache.store import side
from skd_cache.store.agree import put_object
from skd_cache.store.cache import Cache
from skd_cache.store.claim import Claims
from skd_cache.store.document import MAX_BYTES
from skd_cache.store.layout import Layout, Unit, commit_name, metadata_objects, unit_of
from skd_cache.store.ledger import Ledger
from skd_cache.store.objects import Objects
from skd_cache.store.recipe import Recipe
from skd_cache.store.writer import unit_agreement


def repair(location: str, *, full: bool = False) -> Iterator[str]:
    """Drop the units that fail their commits and write metadata again that are derived anyway.

    Args:
        location: folder or URL of the cache.
        full: read and decode every byte instead of comparing sizes.

    Yields:
        a sentence for everything that was changed.

    Raises:
        InputError: somebody builds the cache, or there is none.
        DataError: what lies beside the views is damaged, which a build cannot make again in place.
    """
    objects = Objects(location)
    recipe = side.read_recipe(objects)
    commit, layout = side.read_commit(objects, recipe)
    _require_nobody(objects)
    yield from _rewrite(objects, side.side_metadata(layout))
    for problem in side.check(objects, recipe, full=full):
        raise DataError(
            f"{objects.location}: {problem}; it is the same for all views and cannot be dropped: "
            "get the cache from where it came, or remove it and build it again"
        )
    ledger = Ledger(objects, layout, commit)
    for unit in _listed(objects, recipe):
        try:
            ledger.parse(unit, objects.get(commit_name(unit), MAX_BYTES))
        except DataError as error:
            _drop(objects, layout, unit)
            yield f"dropped {_name(unit)}: {error}"
    cache = Cache(objects)
    for view in sorted({unit.view for unit in cache.commits}):
        yield from _rewrite(objects, metadata_objects(layout.view(view)))
    for unit in sorted(cache.commits):
        problems = list(cache.check_unit(unit, full=full))
        if problems:
            _drop(objects, layout, unit)
            yield f"dropped {_name(unit)}: {problems[0]}"


def _require_nobody(objects: Objects) -> None:
    for one in Claims(objects).busy().values():
        raise InputError(
            f"process {one.builder.pid} on {one.builder.host} builds {objects.location}: "
            "repair it when nobody does"
        )


def _listed(objects: Objects, recipe: Recipe) -> list[Unit]:
    found = (unit_of(found.name, recipe) for found in objects.list("commit"))
    return sorted(unit for unit in found if unit is not None)


def _rewrite(objects: Objects, wanted: dict[str, bytes]) -> Iterator[str]:
    for problem in list(side.check_metadata(objects, wanted)):
        yield f"wrote again what {problem}"
    for name, data in wanted.items():
        put_object(objects, name, data, lambda _point: None)


def _drop(objects: Objects, layout: Layout, unit: Unit) -> None:
    names = [grid.object(unit.shard) for grid in layout.view(unit.view).values()]
    unit_agreement(objects, layout, unit, lambda _point: None).withdraw(names)


def _name(unit: Unit) -> str:
    return f"view {unit.view}, shard {unit.shard} ({commit_name(unit)})"
