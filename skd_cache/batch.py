"""What a teacher said about a batch of images, however it was stored, and sums of it over views."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HISTOGRAM_EDGES = tuple(
    (4 + quarter) * 2.0**octave for octave in range(-6, 10) for quarter in range(4)
)
"""Edges of the norm histogram, exact floats: four equal steps per octave, from 1/16 to 3584."""

HISTOGRAM_BINS = len(HISTOGRAM_EDGES) + 1


class Decoder(Protocol):
    """Turns what a codec stored back into logits."""

    def decode(self, code: Mapping[str, Tensor], norm: Tensor) -> Tensor:
        """The logits ``[B, C]`` float32 of these codes (rows first) and norms ``[B]``."""


@dataclass(frozen=True)
class Judgement:
    """How the teacher's answers compare with the labels, one entry per row."""

    hit: NDArray[np.bool_]  # [B] the largest logit is the label's
    top: NDArray[np.float64]  # [B] largest probability at temperature 1
    true: NDArray[np.float64]  # [B] the label's probability at temperature 1


def judge(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> Judgement:
    """Compare a teacher's logits ``[B, C]`` with the labels ``[B]``, row by row.

    Rows are independent, so the result does not depend on how they were batched. Of equal
    largest logits the lowest class counts.
    """
    rows = np.arange(len(logits))
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)  # [B, C]
    weights = np.exp(shifted)
    total = weights.sum(axis=1)
    hit = logits.argmax(axis=1) == labels
    return Judgement(hit, weights.max(axis=1) / total, weights[rows, labels] / total)


@dataclass(frozen=True)
class Statistics:
    """Sums over stored rows that can be added up: norms, teacher hits, confidence."""

    count: int = 0
    norm_sum: float = 0.0
    norm_square_sum: float = 0.0
    norm_histogram: tuple[int, ...] = (0,) * HISTOGRAM_BINS
    teacher_hits: int = 0
    top_confidence_sum: float = 0.0
    true_confidence_sum: float = 0.0

    @classmethod
    def of(cls, norm: NDArray[np.float32], judgement: Judgement) -> "Statistics":
        """The statistics of these rows, ``norm`` ``[B]``; the same whatever the order of the rows.

        Confidences are rounded to 1e-6 so that a last-bit difference of ``exp`` between two
        builds of numpy does not show.
        """
        norms = norm.astype(np.float64)
        bins = np.searchsorted(HISTOGRAM_EDGES, norms, side="right")
        histogram = np.bincount(bins, minlength=HISTOGRAM_BINS)
        return cls(
            count=len(norms),
            norm_sum=math.fsum(norms),
            norm_square_sum=math.fsum(norms * norms),
            norm_histogram=tuple(int(n) for n in histogram),
            teacher_hits=int(judgement.hit.sum()),
            top_confidence_sum=round(math.fsum(judgement.top), 6),
            true_confidence_sum=round(math.fsum(judgement.true), 6),
        )

    def __add__(self, other: "Statistics") -> "Statistics":
        pairs = zip(self.norm_histogram, other.norm_histogram, strict=True)
        return Statistics(
            self.count + other.count,
            self.norm_sum + other.norm_sum,
            self.norm_square_sum + other.norm_square_sum,
            tuple(ours + theirs for ours, theirs in pairs),
            self.teacher_hits + other.teacher_hits,
            self.top_confidence_sum + other.top_confidence_sum,
            self.true_confidence_sum + other.true_confidence_sum,
        )

    def _mean(self, total: float) -> float:
        return total / self.count if self.count else math.nan

    @property
    def mean_norm(self) -> float:
        """Mean L2 norm of the centred logits; NaN when nothing is stored."""
        return self._mean(self.norm_sum)

    @property
    def norm_deviation(self) -> float:
        """Standard deviation of the norms, over ``count`` rows."""
        return math.sqrt(max(0.0, self._mean(self.norm_square_sum) - self.mean_norm**2))

    @property
    def median_norm(self) -> float:
        """Median norm, interpolated inside its histogram bin; NaN when nothing is stored."""
        if not self.count:
            return math.nan
        before = np.cumsum((0, *self.norm_histogram))
        place = bisect_right(before.tolist(), self.count / 2) - 1
        place = min(place, HISTOGRAM_BINS - 1)
        edges = (0.0, *HISTOGRAM_EDGES, HISTOGRAM_EDGES[-1])
        inside = (self.count / 2 - before[place]) / max(self.norm_histogram[place], 1)
        return float(edges[place] + inside * (edges[place + 1] - edges[place]))

    @property
    def accuracy(self) -> float:
        """Share of rows where the teacher's first answer is the label."""
        return self._mean(self.teacher_hits)

    @property
    def mean_top_confidence(self) -> float:
        """Mean probability the teacher gives its own first answer, at temperature 1."""
        return self._mean(self.top_confidence_sum)

    @property
    def mean_true_confidence(self) -> float:
        """Mean probability the teacher gives the label, at temperature 1."""
        return self._mean(self.true_confidence_sum)


@dataclass(frozen=True)
class LogitBatch:
    """A teacher's logits for a batch: their norms and codes, decoded only when asked.

    ``norm`` is the L2 norm of each row of logits after subtracting its mean.
    """

    norm: Tensor  # [B] float32
    code: Mapping[str, Tensor]  # rows first
    decoder: Decoder
    statistics: Statistics = field(default_factory=Statistics)  # of the whole cache
    _decoded: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.norm)

    def to(self, device: torch.device | str) -> "LogitBatch":
        """The same batch on another device, copied without waiting where that is possible."""
        moved = {name: rows.to(device, non_blocking=True) for name, rows in self.code.items()}
        return replace(self, norm=self.norm.to(device, non_blocking=True), code=moved)

    def logits(self) -> Tensor:
        """The logits ``[B, C]`` float32; a constant per row may differ from the teacher's.

        They are decoded once and shared by all who ask: not to be changed in place.
        """
        if "logits" not in self._decoded:
            with torch.no_grad(), torch.autocast(self.norm.device.type, enabled=False):
                self._decoded["logits"] = self.decoder.decode(self.code, self.norm)
        return self._decoded["logits"]

    def direction(self) -> Tensor:
        """The centred logits divided by their norm, ``[B, C]`` float32; zero rows stay zero."""
        return unit_rows(centred(self.logits()))

    def probabilities(self, temperature: float = 1.0) -> Tensor:
        """``softmax(logits / temperature)``, ``[B, C]`` float32."""
        return torch.softmax(self.logits() / temperature, dim=1)


def centred(rows: Tensor) -> Tensor:
    """Rows ``[B, C]`` minus their own mean; rows of equal numbers become exactly zero."""
    shifted = rows - rows[:, :1]
    return shifted - shifted.mean(dim=1, keepdim=True)


def unit_rows(rows: Tensor) -> Tensor:
    """Rows ``[B, C]`` at length one; zero rows stay zero, and none over- or underflows."""
    peak = rows.abs().amax(dim=1, keepdim=True)
    rows = rows / torch.where(peak > 0, peak, 1.0)
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0)
