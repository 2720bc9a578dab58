"""What a registry does for a build: it is asked first, and may be given what was made."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.filesize import decimal

from skd_cache.errors import InputError, SkdCacheError
from skd_cache.progress import track
from skd_cache.share.holding import Holding, is_created
from skd_cache.share.registry import Registry
from skd_cache.share.transfer import carry, carry_unit, plan_journey, require_same_side
from skd_cache.store import Recipe, Unit, side
from skd_cache.store.objects import Objects
from skd_cache.store.writer import fault_from_environment

Say = Callable[[str], None]
MAX_VARIANT = 9999


@dataclass(frozen=True)
class Supply:
    """What a registry holds of what is to be built.

    Attributes:
        registry: where.
        holding: the cache there, if there is one.
        kin: other caches there with the same views in another codec or precision.
    """

    registry: Registry
    holding: Holding | None
    kin: tuple[str, ...]

    @classmethod
    def ask(cls, registry: Registry, recipe: Recipe, location: str, views: range) -> Self:
        """Look for a cache in a registry, before it is built at a location.

        Raises:
            InputError: if the cache is at both, with something else beside the views.
            DataError: if what the registry says cannot be true.
        """
        holding = _holding(registry, recipe.cache_id, views)
        if holding is not None and (here := _at(location)) is not None:
            require_same_side(Holding.at(here, range(0)), holding)
        return cls(registry, holding, () if holding else tuple(_kin(registry, recipe)))

    def units(self) -> set[Unit]:
        """What it holds of the views that were asked for."""
        return set(self.holding.ledger.commits) if self.holding else set()

    def fetch(self, location: str, views: range, say: Say) -> None:
        """Bring all it holds of these views to a location, with what lies beside them."""
        if self.holding is None:
            return
        journey = plan_journey(self.holding, Objects(location, create=True), views)
        with track(journey.done + journey.bytes, "pull", "bytes", journey.done) as bar:
            carried = carry(journey, bar)
        if carried.units:
            say(f"pulled    {carried.units} units, {decimal(carried.bytes)}")


class Contribution:
    """Units given to a registry as they are committed; leaving the context waits for the last."""

    def __init__(self, location: str, registry: Registry, views: range) -> None:
        """Of the cache at a location; nothing is given yet."""
        self._location, self._registry, self._views = location, registry, views
        self._pool = ThreadPoolExecutor(1, "skd-cache-push")
        self._given: list[Future[bool]] = []

    def __enter__(self) -> Self:
        """Give what is there already; whoever cannot give should know before computing.

        Raises:
            InputError: if the registry cannot be written, or has another cache of this name.
        """
        self._source = Holding.at(Objects(self._location), self._views)
        self._target = self._registry.objects(self._source.recipe.cache_id, create=True)
        journey = plan_journey(self._source, self._target, self._views)
        with track(journey.done + journey.bytes, "push", "bytes", journey.done) as bar:
            carry(journey, bar)
        return self

    def give(self, unit: Unit) -> None:
        """Have a unit copied that was just committed."""
        self._given.append(self._pool.submit(self._carry, unit))

    def _carry(self, unit: Unit) -> bool:
        self._source.ledger.refresh(range(unit.view, unit.view + 1))
        with track(0, "push", "bytes", shown=False) as bar:
            return carry_unit(self._source, self._target, unit, bar, fault_from_environment())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is not None:
            return
        for one in self._given:
            try:
                one.result()
            except SkdCacheError as failed:
                message = f"{failed}; what was built is in {self._location}: `skd-cache push` it"
                raise type(failed)(message) from failed


def own_variant(recipe: Recipe, home: str, registry: Registry | None) -> Recipe:
    """The recipe with the first variant that is ours or nobody's.

    One that exists here is gone on with, unless the registry has another cache of its name.

    Raises:
        InputError: all are taken.
    """
    for variant in range(1, MAX_VARIANT + 1):
        own = recipe.model_copy(update={"variant": variant})
        there = _holding(registry, own.cache_id, range(0)) if registry else None
        here = _at(f"{home}/{own.cache_id}")
        if there is None or (here and Holding.at(here, range(0)).side == there.side):
            return own
    raise InputError(f"all {MAX_VARIANT:,} variants of {recipe.cache_id} are taken")


def _holding(registry: Registry, cache: str, views: range) -> Holding | None:
    objects = _at(f"{registry.location}/{cache}")
    return Holding.at(objects, views) if objects else None


def _at(location: str) -> Objects | None:
    """The cache at a location, if there is one."""
    try:
        objects = Objects(location)
    except InputError:
        if "://" in location and not location.startswith("file://"):
            raise
        return None  # there is no such folder
    return objects if is_created(objects) else None


def _kin(registry: Registry, recipe: Recipe) -> list[str]:
    found = []
    for cache in registry.caches():
        try:
            if side.read_recipe(registry.objects(cache)).kin == recipe.kin:
                found.append(cache)
        except SkdCacheError:
            continue  # a damaged neighbour is no reason not to build
    return [cache for cache in found if cache != recipe.cache_id]
