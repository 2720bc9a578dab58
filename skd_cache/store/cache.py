"""A cache of logits: open or create one, see what it holds, read it, add to it."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.batch import LogitBatch, Statistics
from skd_cache.codec import Codec, complete
from skd_cache.errors import DataError, InputError
from skd_cache.store import side, writer
from skd_cache.store.agree import STAGE, Fault
from skd_cache.store.checked import check_unit
from skd_cache.store.commit import Commit
from skd_cache.store.layout import CLASS_WEIGHT, Unit, claim_of, metadata_objects
from skd_cache.store.ledger import Ledger
from skd_cache.store.objects import Objects
from skd_cache.store.reader import READ_AHEAD_CHUNKS, Reader, Rows
from skd_cache.store.recipe import Recipe
from skd_cache.store.source import Source, Stored


class Cache:
    """One cache: the logits of one teacher over one dataset, a view after another."""

    def __init__(
        self,
        location: str | Path | Objects,
        *,
        fault: Fault | None = None,
        source: Source | None = None,
    ) -> None:
        """Open the cache at a location.

        Args:
            location: its own folder or URL.
            fault: called around every put (for tests).
            source: where shards are read from, if not at the location.

        Raises:
            InputError: if there is no completely created cache.
            DataError: if its recipe, metadata or commits are damaged.
        """
        self._objects = location if isinstance(location, Objects) else Objects(location)
        self._source = source or Stored(self._objects)
        self._fault = fault or writer.fault_from_environment()
        self.recipe: Recipe = side.read_recipe(self._objects)
        self._side, self._layout = side.read_commit(self._objects, self.recipe)
        self.provenance: Mapping[str, Any] = side.read_provenance(self._objects, self.recipe)
        for problem in side.check(self._objects, self.recipe, full=False):
            raise DataError(f"{self.location}: {problem}")
        self._ledger = Ledger(self._objects, self._layout, self._side)
        self._ledger.refresh()

    @property
    def location(self) -> str:
        """The folder or URL of the cache."""
        return self._objects.location

    @property
    def objects(self) -> Objects:
        """Everything under the location."""
        return self._objects

    @property
    def id(self) -> str:
        """The cache's name: 16 hex digits that follow from its recipe."""
        return self.recipe.cache_id

    @property
    def shards(self) -> int:
        """Shards of a view."""
        return self.recipe.shards

    @property
    def commits(self) -> Mapping[Unit, Commit]:
        """The units that are there, as last seen; :meth:`refresh` looks again."""
        return self._ledger.commits

    @cached_property
    def codec(self) -> Codec:
        """How the logits are stored, with the basis they were fitted to if there is one.

        Raises:
            DataError: if that is damaged.
        """
        fitted = self._side.shapes.keys() - {CLASS_WEIGHT}
        try:
            arrays = {name: self._side_array(name) for name in fitted}
            return complete(self.recipe.planned_codec(), arrays)
        except DataError as error:
            raise DataError(f"{self.location}: {error}") from error

    @cached_property
    def statistics(self) -> Statistics:
        """Sums over everything that is there."""
        return self._ledger.statistics

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """The label of each sample, ``[N]`` int32 in sample order."""
        labels = self._side_array("label")
        if labels.min() < 0 or labels.max() >= self.recipe.dataset.classes:
            raise DataError(f"{self.location}: sample/label holds labels that are no class")
        return labels

    @cached_property
    def contents(self) -> NDArray[np.uint64]:
        """The xxh3 of each sample's encoded image, ``[N]`` uint64 in sample order."""
        return self._side_array("content")

    @cached_property
    def class_weight(self) -> NDArray[np.float32] | None:
        """The teacher's last linear layer, ``[C, D]`` float32, if it ends in one."""
        return self._side_array(CLASS_WEIGHT) if CLASS_WEIGHT in self._side.shapes else None

    def unit_range(self, shard: int) -> tuple[int, int]:
        """The positions ``[start, stop)`` of a shard."""
        return self._ledger.unit_range(shard)

    def views(self) -> list[int]:
        """The views that are completely there, in order."""
        return self._ledger.views()

    def missing(self, views: range) -> list[Unit]:
        """The units of these views that are not there yet, in order."""
        return self._ledger.missing(views)

    def refresh(self, views: range | None = None) -> None:
        """Look for units, of these views or of all, committed since the cache was opened.

        Raises:
            DataError: if a commit is damaged.
        """
        self._ledger.refresh(views)
        self._forget_sums()

    def write_unit(
        self,
        unit: Unit,
        norm: NDArray[np.float32],
        code: Mapping[str, NDArray[Any]],
        probe: NDArray[np.uint8],
        params_digest: str,
        statistics: Statistics,
    ) -> bool:
        """Store one unit for good; safe whoever else writes it, but see :class:`Work`.

        Args:
            unit: one that :meth:`missing` names.
            norm: ``[n]`` float32, ``n`` the positions of the shard, as all rows below.
            code: what the codec made of the logits, rows first.
            probe: ``[p, 8, 8, 3]`` uint8, of the positions that 64 divides.
            params_digest: sha256 hex over the integer parameters of the unit's samples.
            statistics: of these rows, by ``Statistics.of`` over the whole unit.

        Returns:
            whether these are the rows that count; False where another builder was first with
            rows that differ.

        Raises:
            SkdCacheError: if the storage is full or fails; nothing is committed then.
            ValueError: if an array is not exactly the unit's.
        """
        start, stop = self.unit_range(unit.shard)
        if statistics.count != stop - start:
            raise ValueError(f"statistics of {statistics.count} rows for {stop - start} positions")
        proposed, counts = writer.write_unit(
            self._objects,
            self._layout,
            self._side.digest(),
            unit,
            norm,
            code,
            probe,
            params_digest,
            statistics,
            self._fault,
        )
        self._add(unit, counts)
        return self.commits[unit] == proposed

    def finish_unit(self, unit: Unit) -> bool:
        """Bring to its end what a killed builder had as good as committed; whether it is there.

        Raises:
            DataError: if what it left is damaged.
        """
        if unit not in self.commits:
            agreement = writer.unit_agreement(self._objects, self._layout, unit, self._fault)
            if (counts := agreement.finish()) is not None:
                self._add(unit, counts)
        return unit in self.commits

    def sweep(self) -> None:
        """Remove what killed builders left and nobody needs; safe while others build."""
        self._objects.sweep()
        staged = (found.name.split("/") for found in self._objects.list(STAGE))
        places = {"/".join(parts[1:-1]) for parts in staged}
        for unit in self.commits:
            if claim_of(unit) in places:
                writer.unit_agreement(self._objects, self._layout, unit, self._fault).clear()

    def _add(self, unit: Unit, document: bytes) -> None:
        self._ledger.add(unit, self._ledger.parse(unit, document))
        self._forget_sums()

    def read(self, view: int, start: int, stop: int) -> Rows:
        """The rows at positions ``[start, stop)`` of a view, checked against their commits.

        Raises:
            InputError: if the view is not there.
            DataError: if the data are damaged, naming view and sample.
        """
        return self._reader.read(view, start, stop)

    def stream(
        self,
        view: int,
        start: int,
        stop: int,
        batch_size: int,
        ahead: int = READ_AHEAD_CHUNKS,
        then: int | None = None,
    ) -> Iterator[Rows]:
        """Batches of ``batch_size`` consecutive rows over ``[start, stop)``, the last maybe short.

        A thread reads ``ahead`` chunks before they are asked for; no chunk is decoded twice. What
        is read from afar is fetched shards ahead, into the view ``then`` if that comes next.

        Raises:
            InputError: if the view is not there.
            DataError: if the data are damaged, naming view and sample.
        """
        return self._reader.stream(view, start, stop, batch_size, ahead, then)

    def lookup(self, view: int, samples: NDArray[np.int64]) -> LogitBatch:
        """What the teacher said about these samples ``[B]`` in a view, in their order.

        Random access decodes a chunk per sample at worst; the last ones used are kept.

        Raises:
            InputError: if the view or a sample is not there.
            DataError: if the data are damaged.
        """
        return self._reader.lookup(view, samples)

    def probes(self, view: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Positions ``[p]`` int64 and thumbnails ``[p, 8, 8, 3]`` uint8 of ``[start, stop)``."""
        return self._reader.probes(view, start, stop)

    def digest(self, view: int) -> str:
        """What identifies all data of a complete view: ``sha256:`` and 64 hex digits.

        Raises:
            InputError: if the view is not complete.
        """
        return self._ledger.digest(view)

    @property
    def largest_unit(self) -> int:
        """Bytes of the largest unit that is there."""
        sizes = (sum(o.size for o in commit.objects.values()) for commit in self.commits.values())
        return max(sizes, default=0)

    @property
    def data_bytes(self) -> int:
        """Bytes of all committed data."""
        prints = [self._side.objects, *(commit.objects for commit in self.commits.values())]
        return sum(stored.size for objects in prints for stored in objects.values())

    def bytes_on_disk(self) -> int:
        """Bytes of everything under the location, leftovers included."""
        return sum(found.size for found in self._objects.list())

    def verify(self, full: bool = False) -> Iterator[str]:
        """What is wrong with this cache, a sentence each: sizes, and with ``full`` every byte."""
        yield from side.check(self._objects, self.recipe, full=full)
        for view in sorted({unit.view for unit in self.commits}):
            metadata = metadata_objects(self._layout.view(view))
            yield from side.check_metadata(self._objects, metadata)
        for unit in sorted(self.commits):
            yield from self.check_unit(unit, full=full)

    def check_unit(self, unit: Unit, *, full: bool = False) -> Iterator[str]:
        """What is wrong with a unit, a sentence each: sizes, and with ``full`` every byte."""
        place, sound = f"view {unit.view}, shard {unit.shard}", True
        for problem in check_unit(self._objects, self._layout, self.commits[unit], full=full):
            sound = False
            yield f"{place}: {problem}"
        if full and sound:  # bytes that are right may have been committed wrong
            yield from self._unreadable(unit)

    def _unreadable(self, unit: Unit) -> Iterator[str]:
        start, stop = self.unit_range(unit.shard)
        try:
            for rows in self.stream(unit.view, start, stop, self.recipe.chunk):
                if not rows.teacher.logits().isfinite().all():
                    yield f"view {unit.view}, positions {rows.start} to {rows.stop - 1}: not finite"
        except DataError as error:
            yield str(error)

    @cached_property
    def _reader(self) -> Reader:
        return Reader(
            self._objects, self._source, self._layout, self.codec, self.commits, self.statistics
        )

    def _forget_sums(self) -> None:
        self.__dict__.pop("statistics", None)
        self.__dict__.pop("_reader", None)

    def _side_array(self, name: str) -> NDArray[Any]:
        return side.read_array(self._objects, self._layout, self._side, name)


def open_cache(location: str | Path | Objects) -> Cache:
    """Open the cache at a folder or URL, or in an object store opened elsewhere.

    Raises:
        InputError: if there is none, or it was never completely created.
        DataError: if its recipe, metadata or commits are damaged.
    """
    return Cache(location)


def create_cache(
    location: str | Path | Objects,
    recipe: Recipe,
    *,
    labels: NDArray[np.int32],
    contents: NDArray[np.uint64],
    class_weight: NDArray[np.float32] | None,
    provenance: Mapping[str, Any],
    codec: Codec | None = None,
    fault: Fault | None = None,
) -> Cache:
    """Create a cache, or open it if it is there already; a killed creation is finished.

    Args:
        location: its own folder or URL; the last part must be ``recipe.cache_id``.
        recipe: all that determines its logits.
        labels: ``[N]`` int32, sample order.
        contents: ``[N]`` uint64, xxh3 of each encoded image.
        class_weight: ``[C, D]`` float32, the teacher's last linear layer, if it ends in one.
        provenance: anything JSON worth knowing later, such as versions and batch size; part of
            no digest, and kept from the first creation.
        codec: fitted to the teacher, where the recipe's must be; if the cache is there already,
            it keeps the one it has.
        fault: called around every put (for tests).

    Raises:
        InputError: if the location cannot be written, or was created from other labels, contents
            or last layer.
    """
    objects = location if isinstance(location, Objects) else Objects(location, create=True)
    if objects.leaf != recipe.cache_id:
        message = f"the last part of {objects.location} must be the cache's name, {recipe.cache_id}"
        raise InputError(message)
    arrays: dict[str, NDArray[Any]] = {"label": labels, "content": contents}
    if class_weight is not None:
        arrays[CLASS_WEIGHT] = class_weight
    if codec is not None:
        arrays |= codec.side
    fault = fault or writer.fault_from_environment()
    side.create(objects, recipe, arrays, provenance, fault)
    return Cache(objects, fault=fault)
