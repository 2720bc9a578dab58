"""Images joined with what the teacher said about them, in the order of a view.

Shape legend: B batch, S side in pixels, C classes.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.batch import LogitBatch, Statistics
from skd_cache.distill.online import Look, look_online
from skd_cache.distill.probing import ProbeWatch
from skd_cache.distill.views import Bounds, Pixels, Seat, Views, batch_bounds
from skd_cache.pixels import Backend, Request, tolerance
from skd_cache.store import Cache, Rows

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

    def __len__(self) -> int:
        return len(self.labels)

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
        self._views, self._batch_size, self._seat = views, batch_size, seat or Seat()
        self._cache, self._look = cache, look
        self._backend = pixels.open(views.images, views.policy, size)
        self.waits = Waits()
        if cache is None:
            return
        self._codec, self._statistics = cache.codec, statistics or cache.statistics
        built = cache.recipe.pixels.backend, cache.recipe.pixels.decoder, cache.recipe.teacher.size
        allowed = tolerance((self._backend.name, pixels.decoder, size), built)
        self._watch = ProbeWatch(allowed, views.images.describe)
        self._teacher_backend: Backend | None = None
        if look is not None and size != cache.recipe.teacher.size:
            self._teacher_backend = pixels.open(
                views.images, views.policy, cache.recipe.teacher.size
            )

    @property
    def fallbacks(self) -> int:
        """Images so far that DALI refused and PIL decoded."""
        return self._backend.fallbacks

    def epoch(self, view: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of a view from ``first_batch`` on; nothing before it is read.

        Raises:
            DataError: the pixels are not those the teacher saw, or the cache is damaged.
            InputError: an image cannot be decoded, or the view is not built.
        """
        count = len(self._views.images)
        wholes = batch_bounds(count, self._batch_size, first_batch)
        if not wholes:
            return
        seen = self._backend.stream(self._requests(view, wholes))
        with closing(self._timed(_for_images, seen)) as pixels:
            if self._cache is None:
                for whole, images in zip(wholes, pixels, strict=True):
                    yield self._batch(view, whole, images)
                return
            stored = self._cache.stream(view, wholes[0][0], count, self._batch_size)
            with closing(self._timed(_for_logits, stored)) as rows:
                batches = self._joined(view, wholes, pixels, rows)
                if self._look is not None:
                    batches = self._asked(self._look, view, wholes, batches)
                yield from batches
            self._watch.settle()

    def _joined(
        self, view: int, wholes: Bounds, pixels: Iterator[Tensor], rows: Iterator[Rows]
    ) -> Iterator[Batch]:
        """Pixels and stored logits in step, the ones checked against the others' thumbnails."""
        for whole, images, row in zip(wholes, pixels, rows, strict=True):
            start, stop = self._seat.part(*whole)
            teacher = cut(row.teacher, start - row.start, stop - row.start)
            teacher = replace(teacher, statistics=self._statistics)
            batch = replace(self._batch(view, whole, images), teacher=teacher)
            ours = (row.probe_positions >= start) & (row.probe_positions < stop)
            places = row.probe_positions[ours] - start  # rows of this batch that have a thumbnail
            seen = images[places.to(images.device)]
            self._watch.see(seen, row.probes[ours], batch.samples[places.numpy()], view)
            yield batch

    def _asked(
        self, look: Look, view: int, wholes: Bounds, batches: Iterator[Batch]
    ) -> Iterator[Batch]:
        """The same batches with what the teacher says now in place of what it said."""
        seen: Iterator[Tensor] | None = None
        if self._teacher_backend is not None:  # the student's pixels are of another size
            requests = self._requests(view, wholes)
            seen = self._timed(_for_images, self._teacher_backend.stream(requests))
        for batch in batches:
            images = batch.images if seen is None else next(seen)
            teacher = look_online(look, images, self._codec, self._statistics)
            yield replace(batch, teacher=teacher)

    def _requests(self, view: int, wholes: Bounds) -> Iterator[Request]:
        return (self._views.request(view, *self._seat.part(*whole)) for whole in wholes)

    def _batch(self, view: int, whole: tuple[int, int], images: Tensor) -> Batch:
        start, stop = self._seat.part(*whole)
        samples = self._views.samples(view, start, stop)
        labels = torch.from_numpy(self._views.images.labels[samples].astype(np.int64))
        return Batch(images, labels, None, samples, view, start)

    def _timed(
        self, waited: Callable[[float], Waits], items: Iterable[Item]
    ) -> Generator[Item, None, None]:
        """The same items; the time until each is there is put down as a wait."""
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
    code = {name: rows.pin_memory() for name, rows in teacher.code.items()}
    return replace(teacher, norm=teacher.norm.pin_memory(), code=code)


def _for_images(seconds: float) -> Waits:
    return Waits(images=seconds)


def _for_logits(seconds: float) -> Waits:
    return Waits(logits=seconds)
