"""All that determines the logits of a cache, and the name that follows from it."""

import hashlib
import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from skd_cache.codec import Planned, from_settings
from skd_cache.store.document import HEX64, Document, canonical_json

MAX_TEACHERS = 16

PROBE_EVERY = 64
"""A view keeps a thumbnail of every position that this divides."""

MAX_SHARDS = 100_000
"""Of a view: names of commits have five digits."""

MAX_CHUNK_BYTES = 256 * 1024 * 1024

Text = Annotated[str, Field(min_length=1, max_length=200)]
Sha256 = Annotated[str, Field(pattern=HEX64)]
Colour = Annotated[list[float], Field(min_length=1, max_length=4)]


class TeacherRecipe(Document):
    """Who looked: the network, its weights, and how images reach it."""

    architecture: Text
    weights: Sha256  # over name, dtype, shape and bytes of the sorted tensors
    size: int = Field(ge=1, le=8192)  # pixels
    mean: Colour
    std: Colour


class DatasetRecipe(Document):
    """What was looked at."""

    fingerprint: Sha256  # over relative path, byte length and label of every sample
    samples: int = Field(ge=1, le=2**31)
    classes: int = Field(ge=2, le=2**20)


class PixelRecipe(Document):
    """Who turned files into pixels."""

    backend: Text
    decoder: Literal["cpu", "gpu"]


class Recipe(Document):
    """Everything that determines a logit of a cache; its hash names the cache.

    ``shard`` and ``chunk`` count positions: a shard is the unit of work, a chunk of it the least
    that can be read. ``shard`` must be a multiple of ``chunk`` and of 64. The logits are
    those of the only teacher, or the mean of several's centred ones; thumbnails are of what the
    first saw.
    """

    format: Literal[1] = 1
    teachers: list[TeacherRecipe] = Field(min_length=1, max_length=MAX_TEACHERS)
    precision: Literal["float32", "bfloat16", "float16"]
    dataset: DatasetRecipe
    policy: dict[str, JsonValue]
    seed: int = Field(ge=0, lt=2**64)
    pixels: PixelRecipe
    codec: dict[str, JsonValue]
    shard: int = Field(default=16384, ge=PROBE_EVERY, le=2**20)
    chunk: int = Field(default=1024, ge=1, le=2**20)
    views_per_decode: Literal[1] = 1
    variant: int = Field(default=0, ge=0, le=9999)
    """Tells caches apart that were created apart, see ``build --new``; left out where it is 0."""

    @model_serializer(mode="wrap")
    def _leave_out_the_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = dump(self)
        if not self.variant:
            del told["variant"]
        return told

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.shard % self.chunk or self.shard % PROBE_EVERY:
            raise ValueError(f"shard must be a multiple of chunk and of {PROBE_EVERY}")
        if self.chunk * self.dataset.classes * 4 > MAX_CHUNK_BYTES:
            raise ValueError("chunk times classes is larger than any reader should hold")
        if self.shards > MAX_SHARDS:
            raise ValueError(f"samples make more than {MAX_SHARDS:,} shards")
        return self

    @property
    def cache_id(self) -> str:
        """The cache's name: the first 16 hex digits of the recipe's sha256."""
        return self.digest()[:16]

    @property
    def kin(self) -> str:
        """The same for caches that differ in decoder, precision, codec, variant only, 16 hex."""
        rest = self.model_dump(mode="json")
        del rest["codec"], rest["pixels"]["decoder"], rest["precision"]
        rest.pop("variant", None)
        return hashlib.sha256(canonical_json(rest)).hexdigest()[:16]

    @property
    def sizes(self) -> list[int]:
        """The sizes in pixels at which teachers look, each once, the first teacher's first."""
        return list(dict.fromkeys(teacher.size for teacher in self.teachers))

    @property
    def shards(self) -> int:
        """Shards of a view; the last may be short."""
        return math.ceil(self.dataset.samples / self.shard)

    def planned_codec(self) -> Planned:
        """The codec these logits are stored with, without what is fitted to them.

        Raises:
            InputError: if this version does not know it.
        """
        return from_settings(self.codec, self.dataset.classes)
