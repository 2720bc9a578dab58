"""Which units a cache holds: its commits, read once each and added up."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from skd_cache.batch import Statistics
from skd_cache.errors import DataError, InputError
from skd_cache.store.commit import Commit, SideCommit, view_digest
from skd_cache.store.document import MAX_BYTES
from skd_cache.store.layout import SIDE, Layout, Unit, commit_name, unit_of
from skd_cache.store.objects import Objects

_PARALLEL_READS = 16
_MAX_UNITS = 500_000


class Ledger:
    """The commits of one cache. They are never rewritten, so each is read once."""

    def __init__(self, objects: Objects, layout: Layout, side: SideCommit) -> None:
        """Nothing is read yet."""
        self._objects, self._layout, self._recipe = objects, layout, layout.recipe
        self._commits: dict[Unit, Commit] = {}
        self._side = side

    @property
    def commits(self) -> Mapping[Unit, Commit]:
        """The units that are there, as last seen."""
        return self._commits

    @property
    def statistics(self) -> Statistics:
        """Sums over everything that is there, in the units' order."""
        records = (self._commits[unit].statistics for unit in sorted(self._commits))
        return sum((record.statistics() for record in records), Statistics())

    def unit_range(self, shard: int) -> tuple[int, int]:
        """The positions ``[start, stop)`` of a shard."""
        start = shard * self._recipe.shard
        return start, min(start + self._recipe.shard, self._recipe.dataset.samples)

    def refresh(self, views: range | None = None) -> None:
        """Read the commits that are new, of these views or of all.

        Raises:
            DataError: if one is damaged.
        """
        places = ["commit"]
        if views is not None:
            gaps = sorted({unit.view for unit in self.missing(views)})
            places = [f"commit/{view:05d}" for view in gaps]
        listed = (found.name for place in places for found in self._objects.list(place))
        units = {name: unit for name in listed if (unit := unit_of(name, self._recipe))}
        new = [name for name, unit in units.items() if unit not in self._commits]
        if len(units) > _MAX_UNITS:
            raise DataError(
                f"{self._objects.location} lists {len(units):,} commits; at most {_MAX_UNITS:,} "
                "are read: name fewer views"
            )
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            documents = pool.map(lambda name: self._objects.get(name, MAX_BYTES), new)
            for name, data in zip(new, documents, strict=True):
                self._commits[units[name]] = self.parse(units[name], data)

    def add(self, unit: Unit, commit: Commit) -> None:
        """Take note of a unit whose commit this process has seen made."""
        self._commits[unit] = commit

    def missing(self, views: range) -> list[Unit]:
        """The units of these views that are not there, in order."""
        units = (Unit(view, shard) for view in views for shard in range(self._recipe.shards))
        return [unit for unit in units if unit not in self._commits]

    def views(self) -> list[int]:
        """The views that are completely there, in order."""
        started = sorted({unit.view for unit in self._commits})
        return [view for view in started if not self.missing(range(view, view + 1))]

    def digest(self, view: int) -> str:
        """What identifies all data of a complete view.

        Raises:
            InputError: if the view is not complete.
        """
        if gaps := self.missing(range(view, view + 1)):
            total = f"{len(gaps)} of its {self._recipe.shards} shards are missing"
            raise InputError(f"{self._objects.location} does not hold view {view}: {total}")
        units = (Unit(view, shard) for shard in range(self._recipe.shards))
        documents = {commit_name(unit): self._commits[unit].canonical() for unit in units}
        return view_digest({SIDE: self._side.canonical(), **documents})

    def parse(self, unit: Unit, data: bytes) -> Commit:
        """A unit's commit, as long as it is that unit's and complete.

        Raises:
            DataError: if it is not.
        """
        place = f"{self._objects.location}/{commit_name(unit)}"
        commit = Commit.parse(data, place)
        told = (commit.cache, commit.view, commit.shard)
        if told != (self._recipe.cache_id, unit.view, unit.shard):
            raise DataError(f"{place} is damaged: it belongs to another cache, view or shard")
        start, stop = self.unit_range(unit.shard)
        if commit.side != self._side.digest():
            raise DataError(f"{place} was encoded on another basis or for other samples")
        arrays = self._layout.view(unit.view).keys()
        if commit.objects.keys() != arrays or commit.statistics.count != stop - start:
            raise DataError(f"{place} is damaged: it does not cover its shard")
        return commit
