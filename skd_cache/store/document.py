"""JSON documents of a cache: strict, bounded, and with one spelling only."""

import hashlib
import json
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from skd_cache.errors import DataError

MAX_BYTES = 64 * 1024
"""No document of a cache is larger, except the provenance (docs/format.md)."""

HEX64 = r"^[0-9a-f]{64}$"


class Document(BaseModel):
    """A frozen value with a canonical JSON form: sorted keys, no blanks, UTF-8."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def canonical(self) -> bytes:
        """The one spelling of this document, whose sha256 identifies it."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """The sha256 of the canonical form, 64 hex digits."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @classmethod
    def parse(cls, data: bytes, what: str) -> Self:
        """Read a document that nobody vouches for; ``what`` names it in messages.

        Raises:
            DataError: if it is not exactly the canonical form of a valid document.
        """
        if len(data) > MAX_BYTES:
            raise DataError(f"{what} is damaged: larger than {MAX_BYTES:,} bytes")
        try:
            value = cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{what} is damaged: {field} {first['msg']}".strip()) from error
        if value.canonical() != data:
            raise DataError(f"{what} is damaged: it is not in canonical form")
        return value


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and no blanks, as UTF-8; floats in their shortest exact form."""
    options = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": False}
    return json.dumps(value, allow_nan=False, **options).encode()  # type: ignore[arg-type]
