"""Fits a codec to the teacher, before the first unit is built."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.build.requests import batches_of, samples_named, sights
from skd_cache.codec import Codec, fit
from skd_cache.codec.codec import centre
from skd_cache.dataset.images import ImageSet
from skd_cache.pixels import Backend
from skd_cache.progress import Bar
from skd_cache.replay import Policy, Views
from skd_cache.store import Recipe


def fit_codec(
    recipe: Recipe,
    images: ImageSet,
    backend: Backend,
    logits_of: Callable[..., Tensor],
    class_weight: NDArray[np.float32] | None,
    *,
    batch_size: int,
    bar: Bar,
    others: Sequence[Backend] = (),
) -> Codec:
    """The recipe's codec, fitted to view 0, shard 0: always those, so that builders agree.

    Args:
        recipe: of the cache.
        images: the dataset.
        backend: its pixels at the first of the recipe's sizes.
        logits_of: the teacher: uint8 ``[B, S, S, 3]``, at each of those sizes in turn, to float32
            ``[B, C]``.
        class_weight: ``[C, D]`` float32, the teacher's last linear layer, if it ends in one.
        batch_size: images per step.
        bar: told of every image.
        others: the pixels at the recipe's other sizes.

    Raises:
        DataError: the teacher gave a NaN or an infinity; the message names the sample.
        InputError: an image cannot be decoded, or the logits are nothing for this codec.
    """
    views = Views(images, Policy.from_dict(recipe.policy), recipe.seed, recipe.views_per_decode)
    stop = min(recipe.shard, recipe.dataset.samples)

    def logits() -> Iterator[NDArray[np.float32]]:
        requests = list(batches_of(views.request(0, np.arange(stop)), batch_size))
        seen = sights([backend, *others], iter(requests))
        for request, pixels in zip(requests, seen, strict=True):
            rows = logits_of(*pixels).cpu().numpy()
            with samples_named(images, 0, request):
                centre(rows)
            bar.advance(len(rows))
            yield rows

    return fit(recipe.planned_codec(), logits(), class_weight)
