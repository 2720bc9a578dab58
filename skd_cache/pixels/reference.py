"""The pixels as torchvision makes them: the oracle, and what serves where DALI is not."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from skd_cache.dataset.images import ImageSet
from skd_cache.pixels.backend import Ahead, deliver
from skd_cache.pixels.decode import decode
from skd_cache.replay import Policy, Request

BATCHES_AHEAD = 2

Pixels = NDArray[np.uint8]
Job = Callable[[], Pixels]


class ReferenceBackend:
    """PIL decodes, torchvision's functional transforms do the rest, image by image in threads.

    On PIL images torchvision's resize is Pillow's, whose arithmetic is integer and so the same
    everywhere.
    """

    name = "reference"

    def __init__(
        self, images: ImageSet, size: int, policy: Policy, threads: int, device: str
    ) -> None:
        self.fallbacks = 0  # nothing is PIL's instead of DALI's where there is no DALI
        self._images, self._size, self._threads, self._device = images, size, threads, device
        self._interpolation = InterpolationMode(policy.interpolation)

    def stream(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """See :meth:`skd_cache.pixels.backend.Backend.stream`."""
        return self._in_order(
            [
                partial(self._augmented, int(sample), box.tolist(), bool(flip))
                for sample, box, flip in zip(
                    request.samples, request.params.box, request.params.flip, strict=True
                )
            ]
            for request in requests
        )

    def stream_eval(self, batches: Iterable[NDArray[np.int64]], resize: int) -> Iterator[Tensor]:
        """See :meth:`skd_cache.pixels.backend.Backend.stream_eval`."""
        return self._in_order(
            [partial(self._evaluated, int(sample), resize) for sample in samples]
            for samples in batches
        )

    def _augmented(self, sample: int, box: list[int], flip: bool) -> Pixels:
        image = decode(self._images, sample)
        cut = F.resized_crop(image, *box, [self._size, self._size], self._interpolation)
        return np.asarray(F.horizontal_flip(cut) if flip else cut)  # [S, S, 3]

    def _evaluated(self, sample: int, resize: int) -> Pixels:
        image = F.resize(decode(self._images, sample), [resize], self._interpolation)
        return np.asarray(F.center_crop(image, [self._size, self._size]))  # [S, S, 3]

    def _in_order(self, batches: Iterable[list[Job]]) -> Iterator[Tensor]:
        ahead = Ahead(batches)
        pool = ThreadPoolExecutor(self._threads)
        under_way: deque[list[Future[Pixels]]] = deque()
        try:
            for jobs in ahead:
                under_way.append([pool.submit(job) for job in jobs])
                if len(under_way) > BATCHES_AHEAD:
                    yield self._collect(under_way.popleft())
            while under_way:
                yield self._collect(under_way.popleft())
            ahead.finish()
        finally:
            pool.shutdown(cancel_futures=True)

    def _collect(self, futures: list[Future[Pixels]]) -> Tensor:
        batch = np.stack([future.result() for future in futures])  # [B, S, S, 3]
        return deliver(torch.from_numpy(batch), self._device)
