"""Codecs that keep every class: float32 as it is, float16 and int8 as directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skd_cache.batch import centred, unit_rows
from skd_cache.codec.codec import BYTES, ZSTD, ArraySpec, Encoded, Rows, centre

CODE = "code"
INT8_PEAK = 127.0


class Unfitted:
    """What codecs have in common that need nothing but their settings."""

    @property
    def side(self) -> Mapping[str, Rows]:
        """Nothing."""
        return {}

    def settle(self) -> None:
        """Nothing is left to be checked."""


@dataclass(frozen=True)
class Float32(Unfitted):
    """Keeps the teacher's logits bit for bit."""

    classes: int
    name: str = "float32"

    @property
    def settings(self) -> dict[str, Any]:
        """As it stands in a recipe."""
        return {"name": self.name}

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """One array of logits, ``[N, C]`` float32."""
        return {CODE: ArraySpec("float32", (self.classes,))}

    def encode(self, logits: Rows) -> Encoded:
        """The logits ``[B, C]`` themselves, and the norms of their centred rows."""
        _, norm = centre(logits)
        return Encoded(norm, {CODE: np.ascontiguousarray(logits, np.float32)})

    def decode(self, code: Mapping[str, Tensor], norm: Tensor) -> Tensor:  # noqa: ARG002
        """The stored logits ``[B, C]``; their norms are in them already."""
        return code[CODE]


@dataclass(frozen=True)
class Direction(Unfitted):
    """Keeps each centred row at a fixed scale and puts its norm back when read.

    The scale is of no consequence, so none is stored and none can overflow: float16 holds the
    unit row times sqrt(C), int8 the row scaled to a largest entry of 127.
    """

    classes: int
    name: str  # "float16" or "int8"

    @property
    def settings(self) -> dict[str, Any]:
        """As it stands in a recipe."""
        return {"name": self.name}

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """One array of codes, ``[N, C]``; int8 is worth compressing."""
        codecs = (BYTES, ZSTD) if self.name == "int8" else (BYTES,)
        return {CODE: ArraySpec(self.name, (self.classes,), codecs=codecs)}

    def encode(self, logits: Rows) -> Encoded:
        """The scaled rows of logits ``[B, C]`` and their norms."""
        rows, norm = centre(logits)  # [B, C] float64
        peak = np.abs(rows).max(axis=1, keepdims=True)
        rows /= np.where(peak > 0, peak, 1.0)  # before squaring: tiny rows would vanish
        if self.name == "int8":
            return Encoded(norm, {CODE: np.rint(rows * INT8_PEAK).astype(np.int8)})
        length = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
        rows *= np.sqrt(self.classes) / np.where(length > 0, length, 1.0)
        return Encoded(norm, {CODE: rows.astype(np.float16)})

    def decode(self, code: Mapping[str, Tensor], norm: Tensor) -> Tensor:
        """The centred logits ``[B, C]`` float32, each row at its stored norm."""
        return unit_rows(centred(code[CODE].to(torch.float32))) * norm[:, None]
