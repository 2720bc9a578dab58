"""What goes into a DALI pipeline: batches of cuts with their encoded images, in step."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skd_cache.pixels.backend import Ahead

Encoded = list[NDArray[np.uint8]]
Numbers = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True)
class Cut:
    """A batch as the pipeline takes it.

    Attributes:
        samples: ``[B]`` indices into the dataset.
        anchor: ``[B, 2]`` top and left of what is cut out.
        shape: ``[B, 2]`` height and width of that; for validation, of the resized image.
        flip: ``[B]`` 1 where the result is mirrored.
    """

    samples: NDArray[np.int64]
    anchor: NDArray[np.int32]
    shape: NDArray[np.int32]
    flip: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.samples)

    def one_by_one(self) -> Iterator["Cut"]:
        """Its images as batches of one."""
        for i in range(len(self)):
            row = slice(i, i + 1)
            yield Cut(self.samples[row], self.anchor[row], self.shape[row], self.flip[row])


Loaded = tuple[Cut, Encoded]


class Feed:
    """The two inputs of one pipeline, which asks for them in any order and in step.

    A pipeline takes batches up to the size of its first. A larger one ends the feed and waits
    in ``larger`` for the next pipeline. ``under_way`` are the cuts whose pixels are not out yet.
    """

    def __init__(self, first: Loaded, rest: Ahead[Loaded]) -> None:
        self.size = len(first[0])
        self.larger: Loaded | None = None
        self.under_way: deque[Cut] = deque()
        self._rest = rest
        self._encoded: deque[Encoded] = deque()
        self._numbers: deque[Numbers] = deque()
        self._take(first)

    def encoded(self) -> Encoded:
        """The next batch's encoded images, or their paths."""
        if not self._encoded:
            self._pull()
        return self._encoded.popleft()

    def numbers(self) -> Numbers:
        """The next batch's anchors, shapes and flips."""
        if not self._numbers:
            self._pull()
        return self._numbers.popleft()

    def _pull(self) -> None:
        if self.larger is not None:
            raise StopIteration
        loaded = next(self._rest)
        if len(loaded[0]) > self.size:
            self.larger = loaded
            raise StopIteration
        self._take(loaded)

    def _take(self, loaded: Loaded) -> None:
        cut, encoded = loaded
        self.under_way.append(cut)
        self._encoded.append(encoded)
        self._numbers.append((cut.anchor, cut.shape, cut.flip))
