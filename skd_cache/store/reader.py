"""Reads committed shards of a cache: each checked before its first use, a chunk decoded once."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.batch import LogitBatch, Statistics
from skd_cache.codec import Codec
from skd_cache.errors import DataError, InputError
from skd_cache.seed import positions_of, samples_at
from skd_cache.store.ahead import map_ahead
from skd_cache.store.commit import Commit
from skd_cache.store.layout import NORM, PROBE, THUMBNAIL, Layout, Unit
from skd_cache.store.objects import Objects
from skd_cache.store.recipe import PROBE_EVERY, Recipe
from skd_cache.store.shard import StoredShard
from skd_cache.store.source import Source, Wanted

READ_AHEAD_CHUNKS = 3
READ_THREADS = 2
LOOKUP_CACHE_BYTES = 256 * 1024 * 1024
KEPT_SHARDS = 2
KEPT_MARGINS = 32
"""Shards whose norms and probes stay in memory, about 100 kB each."""


@dataclass(frozen=True)
class Rows:
    """Consecutive positions of a view: what the teacher said, and the thumbnails among them."""

    view: int
    start: int  # position of the first row
    teacher: LogitBatch
    probe_positions: Tensor  # [p] int64, those that 64 divides
    probes: Tensor  # [p, 8, 8, 3] uint8

    def __len__(self) -> int:
        return len(self.teacher)

    @property
    def stop(self) -> int:
        """One past the position of the last row."""
        return self.start + len(self)


@dataclass(frozen=True)
class _Chunk:
    """Decoded rows of one chunk."""

    start: int
    norm: Tensor
    code: Mapping[str, Tensor]  # rows first
    probes: Tensor

    def cut(self, start: int, stop: int) -> "_Chunk":
        """The rows at positions ``[start, stop)``, sharing memory."""
        rows = slice(start - self.start, stop - self.start)
        first = _probe_index(self.start)
        probes = slice(_probe_index(start) - first, _probe_index(stop) - first)
        code = {name: array[rows] for name, array in self.code.items()}
        return _Chunk(start, self.norm[rows], code, self.probes[probes])

    @property
    def stop(self) -> int:
        return self.start + len(self.norm)

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in (self.norm, self.probes, *self.code.values()))


@dataclass
class Reader:
    """Committed rows of one cache, by position or by sample."""

    objects: Objects
    source: Source
    layout: Layout
    codec: Codec
    commits: Mapping[Unit, Commit]
    statistics: Statistics
    _lock: Any = field(default_factory=RLock)
    _shards: "OrderedDict[Unit, Mapping[str, StoredShard]]" = field(default_factory=OrderedDict)
    _checked: set[Unit] = field(default_factory=set)
    _margins: "OrderedDict[Unit, tuple[Tensor, Tensor, int]]" = field(default_factory=OrderedDict)
    _kept: "OrderedDict[tuple[int, int], _Chunk]" = field(default_factory=OrderedDict)
    _kept_bytes: int = 0

    @property
    def recipe(self) -> Recipe:
        """Of the cache."""
        return self.layout.recipe

    def read(self, view: int, start: int, stop: int) -> Rows:
        """The rows at positions ``[start, stop)``."""
        self._within(start, stop)
        if start == stop:
            raise ValueError("nothing to read")
        chunks = [self._chunk(view, at).cut(low, high) for at, low, high in self._cuts(start, stop)]
        return self._rows(view, chunks)

    def stream(
        self,
        view: int,
        start: int,
        stop: int,
        batch_size: int,
        ahead: int = READ_AHEAD_CHUNKS,
        then: int | None = None,
    ) -> Iterator[Rows]:
        """Batches of consecutive rows over ``[start, stop)``, read ahead in a thread.

        The view ``then`` comes next, from its front.
        """
        self._within(start, stop)
        size, shards = self.recipe.shard, self.recipe.shards
        units = [Unit(view, shard) for shard in range(start // size, -(-stop // size))]
        if then is not None:
            units += [Unit(then, shard) for shard in range(shards)]
        self.source.expect([self._wanted(unit) for unit in units if unit in self.commits])
        waiting: list[_Chunk] = []
        have = 0

        def load(cut: tuple[int, int, int]) -> _Chunk:
            begin, low, high = cut
            return self._chunk(view, begin).cut(low, high)

        for chunk in map_ahead(load, self._cuts(start, stop), ahead, READ_THREADS):
            rest = chunk
            while have + len(rest.norm) >= batch_size:
                cut = rest.start + batch_size - have
                yield self._rows(view, [*waiting, rest.cut(rest.start, cut)])
                rest, waiting, have = rest.cut(cut, rest.stop), [], 0
            if len(rest.norm):
                waiting.append(rest)
                have += len(rest.norm)
        if waiting:
            yield self._rows(view, waiting)

    def lookup(self, view: int, samples: NDArray[np.int64]) -> LogitBatch:
        """What the teacher said about these samples ``[B]``, in their order."""
        count = self.recipe.dataset.samples
        samples = np.asarray(samples, np.int64)
        if samples.size and (samples.min() < 0 or samples.max() >= count):
            raise InputError(f"{self.objects.location} holds samples 0 to {count - 1:,} only")
        group = view // self.recipe.views_per_decode
        positions = positions_of(self.recipe.seed, group, samples, count)
        norm = torch.empty(len(samples), dtype=torch.float32)
        code: dict[str, Tensor] = {}
        owners = positions // self.recipe.chunk
        for owner in np.unique(owners):
            chunk = self._keep(view, int(owner) * self.recipe.chunk)
            rows = torch.from_numpy(np.flatnonzero(owners == owner))
            inside = torch.from_numpy(positions)[rows] - chunk.start
            norm[rows] = chunk.norm[inside]
            for name, array in chunk.code.items():
                if name not in code:
                    code[name] = array.new_empty(len(samples), *array.shape[1:])
                code[name][rows] = array[inside]
        return LogitBatch(norm, code, self.codec, self.statistics)

    def probes(self, view: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Positions ``[p]`` and thumbnails ``[p, 8, 8, 3]`` uint8 of ``[start, stop)``."""
        self._within(start, stop)
        pieces = []
        for shard in range(start // self.recipe.shard, -(-stop // self.recipe.shard)):
            _, probes, first = self._margin(Unit(view, shard))
            low, high = max(start, first), min(stop, first + self.recipe.shard)
            skip = _probe_index(first)
            pieces.append(probes[_probe_index(low) - skip : _probe_index(high) - skip])
        empty = torch.empty(0, *THUMBNAIL, dtype=torch.uint8)
        return _probe_positions(start, stop), torch.cat([empty, *pieces])

    def _within(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.recipe.dataset.samples:
            raise ValueError(f"positions [{start}, {stop}) lie outside the view")

    def _cuts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Chunks that meet ``[start, stop)``: where each begins, and the part asked for."""
        size = self.recipe.chunk
        for begin in range(start - start % size, stop, size):
            yield begin, max(begin, start), min(begin + size, stop)

    def _keep(self, view: int, begin: int) -> _Chunk:
        """A chunk for random access: the last used are kept decoded."""
        key = (view, begin)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        chunk = self._kept[key] = self._chunk(view, begin)
        self._kept_bytes += chunk.bytes
        while self._kept_bytes > LOOKUP_CACHE_BYTES and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].bytes
        return chunk

    def _chunk(self, view: int, begin: int) -> _Chunk:
        """Read and decode the chunk that begins at a position."""
        unit = Unit(view, begin // self.recipe.shard)
        norm, probes, first = self._margin(unit)
        end = min(begin + self.recipe.chunk, self.recipe.dataset.samples)
        code = {name: self._codes(unit, name, begin, end) for name in self.codec.arrays}
        skip = _probe_index(first)
        probes = probes[_probe_index(begin) - skip : _probe_index(end) - skip]
        return _Chunk(begin, norm[begin - first : end - first], code, probes)

    def _margin(self, unit: Unit) -> tuple[Tensor, Tensor, int]:
        """Norms and probes of a checked shard, and its first position: small, read whole, kept."""
        if unit in self.commits and unit not in self._margins:
            self._ready(unit)
        with self._lock:
            if kept := self._margins.get(unit):
                return kept
            begin = unit.shard * self.recipe.shard
            end = min(begin + self.recipe.shard, self.recipe.dataset.samples)
            norm = self._whole(unit, NORM, end - begin)
            if len(bad := torch.nonzero(~torch.isfinite(norm))):
                self._damaged(unit, begin + int(bad[0]), "has a norm that is not a number")
            probes = self._whole(unit, PROBE, _probe_index(end) - _probe_index(begin))
            margin = self._margins[unit] = norm, probes, begin
            while len(self._margins) > KEPT_MARGINS:
                self._margins.popitem(last=False)
            return margin

    def _whole(self, unit: Unit, name: str, rows: int) -> Tensor:
        """The first rows of a shard's array, of all its chunks."""
        shard = self._shard(unit, name)
        grid = shard.grid
        per_chunk = (grid.chunk or grid.shard)[grid.axis]
        chunks = [self._decode(unit, name, at) for at in range(-(-rows // per_chunk))]
        return torch.from_numpy(np.concatenate(chunks)[:rows])

    def _codes(self, unit: Unit, name: str, begin: int, end: int) -> Tensor:
        """The rows of a chunk; of an array by component, a transposed view of what was decoded."""
        first = unit.shard * self.recipe.shard
        found = self._decode(unit, name, (begin - first) // self.recipe.chunk)
        axis, rows = self._shard(unit, name).grid.axis, end - begin
        if axis == 0:
            return torch.from_numpy(found[:rows])
        return torch.from_numpy(found[: self.codec.arrays[name].row[0], :rows]).T

    def _decode(self, unit: Unit, name: str, number: int) -> NDArray[Any]:
        shard = self._shard(unit, name)
        try:
            return shard.chunk(number)
        except (ValueError, RuntimeError) as error:  # what codecs make of damaged bytes
            raise DataError(f"{self._name(unit)}: {name} cannot be decoded: {error}") from error

    def _shard(self, unit: Unit, name: str) -> StoredShard:
        """A shard, compared with its commit when it is first used.

        Raises:
            InputError: if the unit is not committed.
            DataError: if an object is missing, or differs in size or sha256.
        """
        if unit in self.commits and unit not in self._shards:
            self._ready(unit)
        with self._lock:
            if unit not in self._shards:
                self._shards[unit] = self._open(unit)
                while len(self._shards) > KEPT_SHARDS:
                    self._shards.popitem(last=False)
            return self._shards[unit][name]

    def _open(self, unit: Unit) -> Mapping[str, StoredShard]:
        commit = self.commits.get(unit)
        if commit is None:
            raise InputError(
                f"{self.objects.location} does not hold view {unit.view}, shard {unit.shard}: "
                "build that view first"
            )
        known, shards = unit in self._checked, {}
        for name, grid in self.layout.view(unit.view).items():
            wanted = commit.objects[name].print
            try:
                fetch = self.source.open(grid.object(unit.shard), wanted, known=known)
            except DataError as error:
                raise DataError(f"{self._name(unit)}: {error}") from error
            try:
                shards[name] = StoredShard.open(grid, wanted.size, fetch)
            except ValueError as error:
                message = f"{self._name(unit)}: {name} cannot be decoded: {error}"
                raise DataError(message) from error
        self._checked.add(unit)
        return shards

    def _ready(self, unit: Unit) -> None:
        """Wait for a unit, others being readable meanwhile."""
        try:
            self.source.ready(self._wanted(unit))
        except DataError as error:
            raise DataError(f"{self._name(unit)}: {error}") from error

    def _wanted(self, unit: Unit) -> Wanted:
        """The objects of a committed unit."""
        told = self.commits[unit].objects
        grids = self.layout.view(unit.view)
        return {grid.object(unit.shard): told[name].print for name, grid in grids.items()}

    def _name(self, unit: Unit) -> str:
        start = unit.shard * self.recipe.shard
        stop = min(start + self.recipe.shard, self.recipe.dataset.samples)
        return (
            f"{self.objects.location}, view {unit.view}, shard {unit.shard} "
            f"(positions {start} to {stop - 1}, first sample {self._sample(unit.view, start)})"
        )

    def _sample(self, view: int, position: int) -> int:
        group = view // self.recipe.views_per_decode
        place = np.array([position], np.int64)
        return int(samples_at(self.recipe.seed, group, place, self.recipe.dataset.samples)[0])

    def _damaged(self, unit: Unit, position: int, what: str) -> None:
        sample = self._sample(unit.view, position)
        place = f"view {unit.view}, position {position}, sample {sample}"
        raise DataError(f"{self.objects.location}, {place} {what}: the shard is damaged")

    def _rows(self, view: int, parts: list[_Chunk]) -> Rows:
        """One batch out of neighbouring pieces."""
        # Norms and probes share memory with what is kept: a caller's in-place change must not.
        norm = torch.cat([part.norm for part in parts])
        probes = torch.cat([part.probes for part in parts])
        specs = self.codec.arrays
        code = {n: _join([part.code[n] for part in parts], specs[n].axis) for n in specs}
        start = parts[0].start
        teacher = LogitBatch(norm, code, self.codec, self.statistics)
        positions = _probe_positions(start, start + len(norm))
        return Rows(view, start, teacher, positions, probes)


def _probe_index(position: int) -> int:
    """Probes at positions before this one."""
    return -(-position // PROBE_EVERY)


def _probe_positions(start: int, stop: int) -> Tensor:
    return torch.arange(_probe_index(start), _probe_index(stop)) * PROBE_EVERY


def _join(parts: list[Tensor], axis: int) -> Tensor:
    """Neighbouring rows in one, laid out as they are stored."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts) if axis == 0 else torch.cat([part.T for part in parts], dim=1).T
