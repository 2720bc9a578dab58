"""The units of a build that are free, handed out one after the other to any number of builders."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from skd_cache.store.cache import Cache
from skd_cache.store.claim import Claims, Working
from skd_cache.store.layout import Unit, claim_of


class Work:
    """What one builder does of some views of a cache; as a context, its presence is known.

    Whatever else builds the same cache, in this process or on another continent, takes other units.
    """

    def __init__(self, cache: Cache, views: range) -> None:
        """Nothing is claimed yet."""
        self._cache, self._views = cache, views
        self._claims = Claims(cache.objects)

    def __enter__(self) -> Self:
        self._claims.__enter__()
        self._claims.sweep()
        self._cache.refresh()
        self._cache.sweep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._claims.__exit__(kind, error, trace)

    def free(self) -> Iterator[Unit]:
        """Units that are missing and nobody is at, each claimed before it is given.

        It ends when there is none; others may still be at some, see :meth:`busy`.
        """
        while (unit := self._next()) is not None:
            yield unit

    def done(self, unit: Unit) -> None:
        """Let go of a unit, committed or not."""
        self._claims.release(claim_of(unit))

    def busy(self) -> list[Working]:
        """Who is at units of these views that are still missing, as of now."""
        self._cache.refresh(self._views)
        missing = {claim_of(unit) for unit in self._cache.missing(self._views)}
        return [one for what, one in self._claims.busy().items() if what in missing]

    def _next(self) -> Unit | None:
        self._cache.refresh(self._views)
        busy = self._claims.busy()
        for unit in self._cache.missing(self._views):
            what = claim_of(unit)
            if what in busy or self._claims.holds(what) or not self._claims.take(what):
                continue
            # Committed since we looked, or decided on by a builder that was killed then?
            if not self._cache.finish_unit(unit):
                return unit
            self._claims.release(what)
        return None


def who_builds(cache: Cache) -> list[Working]:
    """Who claims what of a cache, also those that are dead or long silent."""
    return Claims(cache.objects).working()
