"""Compute units: pixels to logits to codes, one commit each."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.batch import Judgement, Statistics, judge
from skd_cache.build.requests import batches_of, samples_named, sights
from skd_cache.codec import Codec, Encoded
from skd_cache.dataset.images import ImageSet
from skd_cache.pixels import Backend, thumbnails
from skd_cache.progress import Bar
from skd_cache.replay import Policy, Request, Views, digest
from skd_cache.store import Cache, Unit, Work, Working
from skd_cache.store.begin import POLL_SECONDS
from skd_cache.store.recipe import PROBE_EVERY


def build_units(
    cache: Cache,
    views: range,
    images: ImageSet,
    backend: Backend,
    logits_of: Callable[..., Tensor],
    *,
    batch_size: int,
    bar: Bar,
    waiting: Callable[[list[Working]], None],
    others: Sequence[Backend] = (),
    committed: Callable[[Unit], None] = lambda _unit: None,
) -> int:
    """Compute the units of these views that are missing, beside whoever else does; all are there
    when it returns.

    Pixels are drawn ahead across units, so the teacher does not wait while a unit is written.

    Args:
        cache: where they are committed.
        views: which.
        images: the dataset the cache is of.
        backend: its pixels at the first of the recipe's sizes, which thumbnails are made of.
        logits_of: the teacher: uint8 ``[B, S, S, 3]``, at each of those sizes in turn, to float32
            ``[B, C]``.
        batch_size: divides the recipe's shard size, so that no batch spans two units.
        bar: told of every image, others' too, once their unit is committed.
        waiting: told who is at what is left, when nothing is free.
        others: the pixels at the recipe's other sizes.
        committed: told of every unit computed here, once it is committed.

    Returns:
        how many units were computed here.

    Raises:
        DataError: the teacher gave a NaN or an infinity; the message names the sample.
        InputError: an image cannot be decoded; what was committed stays.
    """
    policy, seed = Policy.from_dict(cache.recipe.policy), cache.recipe.seed
    drawn = Views(images, policy, seed, cache.recipe.views_per_decode)
    told, computed = set(cache.commits), 0

    def request_of(unit: Unit) -> Request:
        return drawn.request(unit.view, np.arange(*cache.unit_range(unit.shard)))

    def compute(work: Work) -> int:
        count = 0
        ahead: deque[Unit] = deque()  # claimed, their pixels asked for

        def requests() -> Iterator[Request]:
            for unit in work.free():
                ahead.append(unit)
                yield from batches_of(request_of(unit), batch_size)

        pixels = sights([backend, *others], requests())
        for first in pixels:
            unit = ahead.popleft()
            whole = request_of(unit)  # drawn again: cheaper than to keep what lies ahead in step
            rows = _Rows()
            for request in batches_of(whole, batch_size):
                batch = next(pixels) if rows.count else first  # [B, S, S, 3] at each size
                rows.probes.append(_probes(batch[0], first=rows.count))
                logits = logits_of(*batch).cpu().numpy()  # [B, C]
                _encode(cache.codec, logits, request, images, unit, rows)
                bar.advance(len(logits))
            encoded, probe, sums = rows.joined()
            cache.write_unit(unit, encoded.norm, encoded.code, probe, digest(whole.params), sums)
            work.done(unit)
            committed(unit)
            told.add(unit)
            _tell(cache, views, told, bar)
            count += 1
        return count

    with Work(cache, views) as work:
        while cache.missing(views):
            computed += compute(work)
            busy = work.busy()
            _tell(cache, views, told, bar)
            if busy:
                waiting(busy)
                time.sleep(POLL_SECONDS)
    _tell(cache, views, told, bar)
    return computed


def _tell(cache: Cache, views: range, told: set[Unit], bar: Bar) -> None:
    """Tell the bar of units that others committed."""
    for unit in cache.commits.keys() - told:
        if unit.view in views:
            start, stop = cache.unit_range(unit.shard)
            bar.advance(stop - start)
    told |= cache.commits.keys()


@dataclass
class _Rows:
    """The rows of a unit as they come, batch by batch."""

    count: int = 0
    encoded: list[Encoded] = field(default_factory=list)
    probes: list[NDArray[np.uint8]] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)

    def joined(self) -> tuple[Encoded, NDArray[np.uint8], Statistics]:
        """The unit's codes, its thumbnails, and the statistics of the whole of it."""
        names = self.encoded[0].code
        norm = np.concatenate([batch.norm for batch in self.encoded])
        code = {name: np.concatenate([b.code[name] for b in self.encoded]) for name in names}
        judgement = Judgement(
            hit=np.concatenate([batch.hit for batch in self.judgements]),
            top=np.concatenate([batch.top for batch in self.judgements]),
            true=np.concatenate([batch.true for batch in self.judgements]),
        )
        probe = np.concatenate(self.probes)
        return Encoded(norm, code), probe, Statistics.of(norm, judgement)


def _probes(batch: Tensor, first: int) -> NDArray[np.uint8]:
    """Thumbnails ``[P, 8, 8, 3]`` of the positions of a batch that are kept."""
    kept = batch[-first % PROBE_EVERY :: PROBE_EVERY]
    return thumbnails(kept).cpu().numpy()


def _encode(
    codec: Codec,
    logits: NDArray[np.float32],
    request: Request,
    images: ImageSet,
    unit: Unit,
    rows: _Rows,
) -> None:
    with samples_named(images, unit.view, request):
        rows.encoded.append(codec.encode(logits))
    rows.judgements.append(judge(logits, images.labels[request.samples]))
    rows.count += len(logits)
