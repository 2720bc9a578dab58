"""What is wanted of a dataset at the positions of a view: samples, and what happens to each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skd_cache.dataset.images import ImageSet
from skd_cache.replay.params import Params, draw_params
from skd_cache.replay.policy import Policy
from skd_cache.seed import samples_at


@dataclass(frozen=True)
class Request:
    """Images that are wanted: which samples, and what happens to each.

    Attributes:
        samples: ``[B]`` int64 indices into the dataset.
        params: what happens to them, row by row.
    """

    samples: NDArray[np.int64]
    params: Params

    def __len__(self) -> int:
        return len(self.samples)

    def rows(self, start: int, stop: int) -> "Request":
        """The rows ``[start, stop)``, sharing memory."""
        params = Params(self.params.box[start:stop], self.params.flip[start:stop])
        return Request(self.samples[start:stop], params)


@dataclass(frozen=True)
class Views:
    """Which sample stands where in each view of a dataset, and what happens to it there."""

    images: ImageSet
    policy: Policy
    seed: int
    views_per_decode: int = 1

    def samples(self, view: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples at these positions of a view."""
        group = view // self.views_per_decode
        return samples_at(self.seed, group, positions, len(self.images))

    def request(self, view: int, positions: NDArray[np.int64]) -> Request:
        """What is wanted at these positions of a view."""
        samples = self.samples(view, positions)
        heights, widths = self.images.heights[samples], self.images.widths[samples]
        return Request(samples, draw_params(self.policy, self.seed, view, samples, heights, widths))
