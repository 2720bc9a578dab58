"""Creates a cache once, however many builders begin it together."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skd_cache.codec import Codec
from skd_cache.store.cache import Cache, create_cache
from skd_cache.store.claim import Claims, Working
from skd_cache.store.layout import SIDE
from skd_cache.store.objects import Objects
from skd_cache.store.recipe import Recipe

CREATION = "cache"
POLL_SECONDS = 1.0


def begin_cache(
    location: str,
    recipe: Recipe,
    *,
    labels: NDArray[np.int32],
    contents: NDArray[np.uint64],
    class_weight: NDArray[np.float32] | None,
    provenance: Mapping[str, Any],
    fit: Callable[[], Codec] | None,
    waiting: Callable[[list[Working]], None],
) -> Cache:
    """Create a cache, or open it; of several builders one fits the codec, the others wait for it.

    Args:
        location: as all below, see :func:`create_cache`.
        recipe: all that determines the logits.
        labels: ``[N]`` int32.
        contents: ``[N]`` uint64.
        class_weight: ``[C, D]`` float32, if there is one.
        provenance: worth knowing later.
        fit: fits the recipe's codec to the teacher, where it must be; called at most once.
        waiting: told who is at it, when there is somebody to wait for.

    Raises:
        InputError: as :func:`create_cache`, and whatever ``fit`` raises.
    """
    objects = Objects(location, create=True)
    codec: Codec | None = None
    with Claims(objects) as claims:
        claims.sweep()
        objects.sweep()
        while objects.size(SIDE) is None:
            if claims.take(CREATION):
                if objects.size(SIDE) is None and fit is not None:
                    codec = fit()
                break
            waiting([one for one in claims.working() if one.what == CREATION])
            time.sleep(POLL_SECONDS)
        return create_cache(
            objects,
            recipe,
            labels=labels,
            contents=contents,
            class_weight=class_weight,
            provenance=provenance,
            codec=codec,
        )
