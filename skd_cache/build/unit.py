"""One unit of work: which samples stand at its positions, and what happens to them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skd_cache.dataset.images import ImageSet
from skd_cache.pixels import Request
from skd_cache.replay import Params, Policy, draw_params
from skd_cache.seed import samples_at
from skd_cache.store import Recipe, Unit


@dataclass(frozen=True)
class Work:
    """What there is to do in a unit.

    Attributes:
        unit: which view and shard.
        samples: ``[S]`` int64, in position order.
        params: what happens to each of them.
    """

    unit: Unit
    samples: NDArray[np.int64]
    params: Params

    def requests(self, batch_size: int) -> Iterator[Request]:
        """The unit cut into batches; the last may be short."""
        for start in range(0, len(self.samples), batch_size):
            rows = slice(start, start + batch_size)
            params = Params(self.params.box[rows], self.params.flip[rows])
            yield Request(self.samples[rows], params)


def work_of(unit: Unit, recipe: Recipe, images: ImageSet) -> Work:
    """Draw a unit's order and parameters: a pure function, called wherever it is needed."""
    start = unit.shard * recipe.shard
    positions = np.arange(start, min(start + recipe.shard, len(images)))
    group = unit.view // recipe.views_per_decode
    samples = samples_at(recipe.seed, group, positions, len(images))
    policy = Policy.from_dict(recipe.policy)
    heights, widths = images.heights[samples], images.widths[samples]
    params = draw_params(policy, recipe.seed, unit.view, samples, heights, widths)
    return Work(unit, samples, params)
