"""The pixels as DALI makes them: reading, decoding and cutting in its own threads.

On a GPU DALI resizes as well; on the CPU torch does, see :mod:`skd_cache.pixels.resize`.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from skd_cache.dataset.images import ImageSet
from skd_cache.errors import InputError, SkdCacheError
from skd_cache.pixels.backend import Ahead, deliver
from skd_cache.pixels.decode import as_ppm, decode, undecodable
from skd_cache.pixels.evaluation import centred_anchors, resized_shapes
from skd_cache.pixels.feed import Cut, Feed, Loaded
from skd_cache.pixels.graph import Kind, build_pipeline
from skd_cache.pixels.resize import Resizer
from skd_cache.replay import Policy, Request

Made = tuple[Cut, Any]  # with DALI's list of B images, TensorListCPU or TensorListGPU

BATCHES_AHEAD = 2


class DaliBackend:
    """DALI makes the pixels; images that it refuses it gets from PIL, decoded, as PPM."""

    name = "dali"

    def __init__(
        self,
        images: ImageSet,
        size: int,
        policy: Policy,
        decoder: str,
        threads: int,
        device: str,
    ) -> None:
        self.fallbacks = 0
        self._images, self._size, self._policy = images, size, policy
        self._threads, self._device = threads, device
        self._gpu = (torch.device(device).index or 0) if decoder == "gpu" else None
        any_fallback = bool(images.fallback.any())
        self._folder = b""
        if images.root is not None and not any_fallback:
            self._folder = os.fsencode(images.root.absolute()) + b"/"
        self._mapped = images.root is None and not any_fallback

    def stream(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """See :meth:`skd_cache.pixels.backend.Backend.stream`."""
        kind: Kind = "beyond" if self._policy.crop == "pad" else "inside"
        return self._in_order(kind, map(_cut, requests))

    def stream_eval(self, batches: Iterable[NDArray[np.int64]], resize: int) -> Iterator[Tensor]:
        """See :meth:`skd_cache.pixels.backend.Backend.stream_eval`."""
        return self._in_order("eval", (self._evaluated(samples, resize) for samples in batches))

    def _evaluated(self, samples: NDArray[np.int64], resize: int) -> Cut:
        heights, widths = self._images.heights[samples], self._images.widths[samples]
        shape = resized_shapes(heights, widths, resize)
        anchor = centred_anchors(shape, self._size)
        return Cut(samples, anchor, shape, np.zeros(len(samples), np.int32))

    def _in_order(self, kind: Kind, cuts: Iterable[Cut]) -> Iterator[Tensor]:
        resizer = Resizer(self._size, self._policy.interpolation, self._threads)
        try:
            with ThreadPoolExecutor(self._threads) as pool:
                ahead = Ahead(self._load(cuts, pool))
                first = next(ahead, None)
                while first is not None:  # each pipeline takes batches up to the size of its first
                    feed = Feed(first, ahead)
                    made = self._run(kind, feed, BATCHES_AHEAD)
                    try:
                        yield from self._finished(kind, made, resizer)
                    except RuntimeError as error:  # the pipeline is dead, and does not say by what
                        raise self._blame(kind, list(feed.under_way), error, pool) from error
                    first = feed.larger
            ahead.finish()
        finally:
            resizer.close()

    def _finished(self, kind: Kind, made: Iterable[Made], resizer: Resizer) -> Iterator[Tensor]:
        """What pipelines made, resized and where it is wanted; a batch is resized ahead."""
        if self._gpu is not None:
            for _, images in made:
                # The tensor shares DALI's memory, which the dynamic executor leaves to its holders.
                yield from_dlpack(images.as_tensor())  # [B, S, S, 3]
            return
        ahead = Ahead(made)
        under_way: deque[Callable[[], Tensor]] = deque()
        for cut, images in ahead:
            under_way.append(self._resize(kind, cut, images, resizer))
            if len(under_way) > 1:
                yield deliver(under_way.popleft()(), self._device)
        while under_way:
            yield deliver(under_way.popleft()(), self._device)
        ahead.finish()

    def _resize(self, kind: Kind, cut: Cut, images: Any, resizer: Resizer) -> Callable[[], Tensor]:
        crops = [np.asarray(image) for image in images]  # [h, w, 3], in DALI's memory
        if kind == "eval":
            return resizer.start(crops, cut.shape, cut.anchor)
        return resizer.start(crops, np.full_like(cut.shape, self._size), np.zeros_like(cut.anchor))

    def _run(self, kind: Kind, feed: Feed, depth: int) -> Iterator[Made]:
        pipeline = build_pipeline(
            kind,
            feed.encoded,
            feed.numbers,
            paths=bool(self._folder),
            mapped=self._mapped,
            size=self._size,
            interpolation=self._policy.interpolation,
            gpu=self._gpu,
            batch_size=feed.size,
            num_threads=self._threads,
            prefetch_queue_depth=depth,
        )
        pipeline.schedule_run()
        while feed.under_way:
            (images,) = pipeline.share_outputs()
            cut = feed.under_way.popleft()
            pipeline.release_outputs()
            pipeline.schedule_run()
            yield cut, images

    def _load(self, cuts: Iterable[Cut], pool: ThreadPoolExecutor) -> Iterator[Loaded]:
        for cut in cuts:
            samples = cut.samples.tolist()
            if self._folder:
                files = [self._folder + os.fsencode(self._images.path(i)) for i in samples]
                yield cut, [np.frombuffer(file, np.uint8) for file in files]
            elif self._mapped:
                yield cut, [self._images.read(sample) for sample in samples]
            else:
                self.fallbacks += int(self._images.fallback[cut.samples].sum())
                yield cut, list(pool.map(self._encoded, samples))

    def _encoded(self, sample: int) -> NDArray[np.uint8]:
        if self._images.fallback[sample]:
            return as_ppm(decode(self._images, sample))
        return self._images.read(sample)

    def _blame(
        self, kind: Kind, under_way: list[Cut], failure: RuntimeError, pool: ThreadPoolExecutor
    ) -> SkdCacheError:
        """The error that names the first bad image of these cuts, found one by one."""
        singles = [single for cut in under_way for single in cut.one_by_one()]
        ahead = Ahead(self._load(singles, pool))
        feed = Feed(next(ahead), ahead)
        good = 0
        try:
            for _ in self._run(kind, feed, 1):
                good += 1
        except RuntimeError as error:
            sample = int(singles[good].samples[0])
            try:
                decode(self._images, sample)
            except InputError as said_by_pil:  # PIL gives better reasons than DALI
                return said_by_pil
            return undecodable(self._images, sample, _said(error))
        return SkdCacheError(f"DALI failed on images that are fine one by one: {_said(failure)}")


def _cut(request: Request) -> Cut:
    box = request.params.box
    flip = request.params.flip.astype(np.int32)
    return Cut(request.samples, box[:, :2].copy(), box[:, 2:].copy(), flip)


def _said(error: RuntimeError) -> str:
    """The line of DALI's message that says what it met."""
    text = str(error)
    lines = text.partition("encountered:")[2].split("\n") or text.split("\n")
    return next((line.strip() for line in lines if line.strip()), text)
