"""What is asked of the pixels, batch by batch, and whose logits a batch's rows are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import tee

from torch import Tensor

from skd_cache.codec import NotFiniteError
from skd_cache.dataset.images import ImageSet
from skd_cache.errors import DataError
from skd_cache.pixels import Backend
from skd_cache.replay import Request


def batches_of(whole: Request, batch_size: int) -> Iterator[Request]:
    """A request cut into batches; the last may be short."""
    for start in range(0, len(whole), batch_size):
        yield whole.rows(start, start + batch_size)


def sights(
    backends: Sequence[Backend], requests: Iterator[Request]
) -> Iterator[tuple[Tensor, ...]]:
    """The pixels of requests, ``[B, S, S, 3]`` uint8 of every backend: the same views at its size.

    Args:
        backends: of the same images, one a size.
        requests: pulled once, a few ahead.
    """
    # The first backend pulls first, so it is the one to raise what ends the requests.
    copies = tee(requests, len(backends))
    pairs = zip(backends, copies, strict=True)
    return zip(*(backend.stream(copy) for backend, copy in pairs), strict=True)


@contextmanager
def samples_named(images: ImageSet, view: int, request: Request) -> Iterator[None]:
    """Say of which sample the logits are that a codec refuses.

    Raises:
        DataError: in place of :class:`NotFiniteError`.
    """
    try:
        yield
    except NotFiniteError as error:
        sample = int(request.samples[error.row])
        raise DataError(
            f"the teacher's logits of sample {sample} ({images.describe(sample)}) in view "
            f"{view} {error.what}: check its weights, or use --precision float32"
        ) from error
