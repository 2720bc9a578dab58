"""Images joined with what the teacher said about them, in the order of a view.

Shape legend: B batch, S side in pixels, C classes.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.batch import LogitBatch, Statistics
from skd_cache.distill.online import Look, look_online
from skd_cache.distill.probing import ProbeWatch, comparable
from skd_cache.distill.views import Pixels, Seat, batch_bounds, probe_positions
from skd_cache.pixels import Backend, tolerance
from skd_cache.replay import Views
from skd_cache.store import Cache, Rows
from skd_cache.store.recipe import PROBE_EVERY

Item = TypeVar("Item")


@dataclass(frozen=True)
class Batch:
    """Some positions of a view: pixels, labels, and what the teacher said."""

    images: Tensor  # [B, S, S, 3] uint8 RGB, not normalised
    labels: Tensor  # [B] int64
    teacher: LogitBatch | None
    samples: NDArray[np.int64]  # [B]
    view: int
    start: int  # position of the first image
    whole: int  # images of the batch that all ranks read together

    def __len__(self) -> int:
        return len(self.labels)

    def cut(self, start: int, stop: int) -> "Batch":
        """The images ``[start, stop)`` of it, sharing memory."""
        return replace(
            self,
            images=self.images[start:stop],
            labels=self.labels[start:stop],
            teacher=None if self.teacher is None else cut(self.teacher, start, stop),
            samples=self.samples[start:stop],
            start=self.start + start,
        )

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; copies to a GPU do not wait."""
        if device.type == "cpu":
            return self
        teacher = None if self.teacher is None else _pinned(self.teacher).to(device)
        images = self.images if self.images.is_cuda else self.images.pin_memory()
        labels = self.labels.pin_memory().to(device, non_blocking=True)
        images = images.to(device, non_blocking=True)
        return replace(self, images=images, labels=labels, teacher=teacher)


@dataclass(frozen=True)
class Waits:
    """Seconds spent waiting for data since the start."""

    images: float = 0.0
    logits: float = 0.0

    def __add__(self, other: "Waits") -> "Waits":
        return Waits(self.images + other.images, self.logits + other.logits)

    def __sub__(self, other: "Waits") -> "Waits":
        return Waits(self.images - other.images, self.logits - other.logits)


class Loader:
    """Batches of a view at one size, from any batch on: images, labels and teacher in step.

    Args:
        views: which sample stands where, and what happens to it.
        size: S, pixels.
        batch_size: of all ranks together.
        pixels: how files become pixels here.
        cache: where the teacher's logits lie, or None for none.
        statistics: those that logits are accompanied by; None for the cache's.
        look: a teacher that is asked now, instead of the cache's logits.
        seat: which part of each batch is wanted.
    """

    def __init__(
        self,
        views: Views,
        size: int,
        batch_size: int,
        pixels: Pixels,
        *,
        cache: Cache | None = None,
        statistics: Statistics | None = None,
        look: Look | None = None,
        seat: Seat | None = None,
    ) -> None:
        self._views, self._size, self._batch_size = views, size, batch_size
        self._seat = seat or Seat()
        self._cache, self._look = cache, look
        self._backend = pixels.open(views.images, views.policy, size)
        self.waits = Waits()
        if cache is None:
            return
        self._codec, self._statistics = cache.codec, statistics or cache.statistics
        recipe, built = cache.recipe, cache.recipe.sizes[0]
        self._probe_backend = self._backend
        self._teacher_backends = [
            self._backend if side == size else pixels.open(views.images, views.policy, side)
            for side in (() if look is None else recipe.sizes)
        ]
        probed = size
        if not comparable(size, built):  # then what has a thumbnail is made again as it was built
            probed, self._probe_backend = built, pixels.open(views.images, views.policy, built)
        ours = self._backend.name, pixels.decoder, probed
        allowed = tolerance(ours, (recipe.pixels.backend, recipe.pixels.decoder, built))
        self._watch = ProbeWatch(allowed, views.images.describe)

    @property
    def fallbacks(self) -> int:
        """Images so far that DALI refused and PIL decoded."""
        return self._backend.fallbacks

    def epoch(self, view: int, first_batch: int = 0, then: int | None = None) -> Iterator[Batch]:
        """The batches of a view from ``first_batch`` on; nothing before it is read.

        ``then`` is the next epoch's view, which a cache that is read from afar may fetch already.

        A rank that has no part in a short last batch gets one without images.

        Raises:
            DataError: the pixels are not those the teacher saw, or the cache is damaged.
            InputError: an image cannot be decoded, or the view is not built.
        """
        count = len(self._views.images)
        wholes = batch_bounds(count, self._batch_size, first_batch)
        if not wholes:
            return
        parts = [(*self._seat.part(*whole), whole[1] - whole[0]) for whole in wholes]
        ours = [(start, stop) for start, stop, _ in parts if start < stop]
        with ExitStack() as streams:
            enter = streams.enter_context
            pixels = enter(self._seen(self._backend, view, (np.arange(*part) for part in ours)))
            batches = (self._batch(view, *part, pixels) for part in parts)
            if self._cache is None:
                yield from batches
                return
            stored = self._cache.stream(view, wholes[0][0], count, self._batch_size, then=then)
            rows = enter(self._timed(_for_logits, stored))
            probed = filter(len, (probe_positions(*part) for part in ours))
            probes = None
            if self._probe_backend is not self._backend:
                probes = enter(self._seen(self._probe_backend, view, probed))
            joined = self._joined(batches, rows, probes)
            if self._look is None:
                yield from joined
            else:
                asked = [
                    enter(self._seen(backend, view, (np.arange(*part) for part in ours)))
                    for backend in self._teacher_backends
                ]
                yield from self._asked(self._look, joined, asked)
            self._watch.settle()
            self._codec.settle()

    def _joined(
        self, batches: Iterator[Batch], rows: Iterator[Rows], probes: Iterator[Tensor] | None
    ) -> Iterator[Batch]:
        """Batches with what the teacher said, their pixels checked against its thumbnails."""
        for batch, row in zip(batches, rows, strict=True):
            start, stop = batch.start - row.start, batch.start - row.start + len(batch)
            teacher = replace(cut(row.teacher, start, stop), statistics=self._statistics)
            positions = probe_positions(batch.start, batch.start + len(batch))
            if len(positions):
                # Slices: indexing would start torch's threads beside those that decode.
                first, skip = positions[0] - batch.start, positions[0] - row.probe_positions[0]
                here = slice(int(first), None, PROBE_EVERY)
                seen = batch.images[here] if probes is None else next(probes)
                stored = row.probes[int(skip) // PROBE_EVERY :][: len(positions)]
                self._watch.see(seen, stored, batch.samples[here], batch.view)
            yield replace(batch, teacher=teacher)

    def _asked(
        self, look: Look, batches: Iterator[Batch], seen: Sequence[Iterator[Tensor]]
    ) -> Iterator[Batch]:
        """The same batches with what the teacher says now in place of what it said."""
        for batch in batches:
            if not len(batch):
                yield batch
                continue
            images = [
                batch.images if backend is self._backend else next(stream)
                for backend, stream in zip(self._teacher_backends, seen, strict=True)
            ]
            teacher = look_online(look, images, self._codec, self._statistics)
            yield replace(batch, teacher=teacher)

    def _seen(
        self, backend: Backend, view: int, positions: Iterable[NDArray[np.int64]]
    ) -> "closing[Generator[Tensor, None, None]]":
        """Pixels of positions of a view, batch by batch; a context that closes their stream."""
        requests = (self._views.request(view, some) for some in positions)
        return self._timed(_for_images, backend.stream(requests))

    def _batch(
        self, view: int, start: int, stop: int, whole: int, pixels: Iterator[Tensor]
    ) -> Batch:
        size = self._size
        images = next(pixels) if start < stop else torch.empty(0, size, size, 3, dtype=torch.uint8)
        samples = self._views.samples(view, np.arange(start, stop))
        labels = torch.from_numpy(self._views.images.labels[samples].astype(np.int64))
        return Batch(images, labels, None, samples, view, start, whole)

    def _timed(
        self, waited: Callable[[float], Waits], items: Iterable[Item]
    ) -> "closing[Generator[Item, None, None]]":
        """The same items; the time until each is there is put down as a wait."""
        return closing(self._waiting(waited, items))

    def _waiting(
        self, waited: Callable[[float], Waits], items: Iterable[Item]
    ) -> Generator[Item, None, None]:
        source = iter(items)
        while True:
            began = time.perf_counter()
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self.waits += waited(time.perf_counter() - began)
            yield item


def cut(teacher: LogitBatch, start: int, stop: int) -> LogitBatch:
    """The rows ``[start, stop)`` of a batch, sharing memory."""
    code = {name: rows[start:stop] for name, rows in teacher.code.items()}
    return replace(teacher, norm=teacher.norm[start:stop], code=code)


def _pinned(teacher: LogitBatch) -> LogitBatch:
    """The same batch in memory that a GPU copies from without waiting."""
    code = {name: compact(rows).pin_memory() for name, rows in teacher.code.items()}
    return replace(teacher, norm=teacher.norm.pin_memory(), code=code)


def compact(rows: Tensor) -> Tensor:
    """The same rows without the memory between them that belongs to others.

    Codes by component are a transposed cut of a chunk; so they stay, and are copied as one piece.
    """
    return rows.T.contiguous().T if rows.dim() == 2 and rows.stride(0) == 1 else rows.contiguous()


def _for_images(seconds: float) -> Waits:
    return Waits(images=seconds)


def _for_logits(seconds: float) -> Waits:
    return Waits(logits=seconds)
