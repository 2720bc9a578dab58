"""What says that data are there: a document per unit, and one for what lies beside the views."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from skd_cache.batch import HISTOGRAM_BINS, Statistics
from skd_cache.store.document import HEX64, Document
from skd_cache.store.objects import Print

Name = Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")]
Count = Annotated[int, Field(ge=0)]
Shape = Annotated[list[Annotated[int, Field(ge=1, le=2**20)]], Field(min_length=1, max_length=2)]
Sha256 = Annotated[str, Field(pattern=HEX64)]


class ObjectPrint(Document):
    """Size and sha256 of one stored object."""

    size: int = Field(ge=1, le=2**40)
    sha256: Sha256

    @classmethod
    def of(cls, found: Print) -> Self:
        """From what was measured."""
        return cls(size=found.size, sha256=found.sha256)

    @property
    def print(self) -> Print:
        """To compare with what is measured."""
        return Print(self.size, self.sha256)


class StatisticsRecord(Document):
    """:class:`skd_cache.batch.Statistics` as a document."""

    count: int = Field(ge=1)
    norm_sum: float = Field(ge=0)
    norm_square_sum: float = Field(ge=0)
    norm_histogram: list[Count] = Field(min_length=HISTOGRAM_BINS, max_length=HISTOGRAM_BINS)
    teacher_hits: Count
    top_confidence_sum: float = Field(ge=0)
    true_confidence_sum: float = Field(ge=0)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if sum(self.norm_histogram) != self.count or self.teacher_hits > self.count:
            raise ValueError("the counts do not add up")
        return self

    @classmethod
    def of(cls, statistics: Statistics) -> Self:
        """From sums in memory."""
        values = {name: getattr(statistics, name) for name in cls.model_fields}
        return cls(**values | {"norm_histogram": list(statistics.norm_histogram)})

    def statistics(self) -> Statistics:
        """To sums in memory."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return Statistics(**values | {"norm_histogram": tuple(self.norm_histogram)})


class Commit(Document):
    """One unit is complete: what it holds, no time, no host. Never rewritten."""

    format: Literal[1] = 1
    cache: str = Field(pattern=r"^[0-9a-f]{16}$")
    view: int = Field(ge=0, le=99_999)
    shard: int = Field(ge=0, le=99_999)
    objects: dict[Name, ObjectPrint] = Field(max_length=16)  # by array name
    side: Sha256  # of commit/cache.json, so of the basis these codes are on
    params: Sha256  # over the integer parameters of the unit's samples
    statistics: StatisticsRecord


class SideCommit(Document):
    """Everything beside the views is complete: labels, contents, basis, last layer."""

    format: Literal[1] = 1
    cache: str = Field(pattern=r"^[0-9a-f]{16}$")
    shapes: dict[Name, Shape] = Field(max_length=16)  # of those arrays the recipe leaves open
    objects: dict[Name, ObjectPrint] = Field(max_length=16)  # by array name


def view_digest(documents: Mapping[str, bytes] | Iterable[tuple[str, bytes]]) -> str:
    """The digest of a view: ``sha256:`` over its commits and the cache's, sorted by name.

    One line for each: the object's name, a blank, the sha256 of its bytes in hex, a newline.
    """
    lines = [
        f"{name} {hashlib.sha256(data).hexdigest()}\n"
        for name, data in sorted(dict(documents).items())
    ]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
