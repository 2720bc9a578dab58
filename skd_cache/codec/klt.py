"""Logits as a few coarse Karhunen-Loeve coefficients, the largest classes refined.

A row is kept as integers ``q`` on a basis fitted to the teacher's own logits. What they
reconstruct, ``b = basis @ q + offset``, is *exact*: basis and offset are multiples of 2^-13, the
basis and the codes have 11 significant bits (as many as TF32 keeps), and a row whose partial sums
could need more than the 24 bits of a float32 is kept at a coarser step. So the order of ``b`` is
the same on every machine, and the K largest classes can be refined without storing which they
are. All that follows is float64 on exact sums: decoded logits are the same bits everywhere.
docs/format.md has the steps one by one.

Shape legend: B rows, C classes, R components, K refined ranks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skd_cache.codec.codec import PCODEC, ArraySpec, Encoded, Rows, centre
from skd_cache.codec.klt_reconstruction import FRACTION_BITS, Reconstruction, energy
from skd_cache.codec.klt_settings import KltSettings
from skd_cache.codec.watch import DecodeWatch
from skd_cache.errors import DataError

SIGNIFICANT_BITS = 11
LARGEST_SUM = 2.0 ** (24 - FRACTION_BITS)
LARGEST_CODE = 2**SIGNIFICANT_BITS - 1
LARGEST_ENERGY = 2.0 ** (52 - 2 * FRACTION_BITS)
"""Of reconstructed rows, so that float64 sums their squares exactly."""
LARGEST_INPUT = 2.0**11
LARGEST_OFFSET = 2.0**9
BLOCK = 32
REFINED_BLOCK = 8
CODE, REFINE, GUARD = "code", "refine", "guard"
BASIS, OFFSET, THRESHOLD = "basis", "offset", "threshold"
_HASH_BITS = 2
_INT16 = 2**15 - 1


@dataclass(frozen=True, eq=False)
class Klt:
    """A fitted basis, and how rows are written on it.

    Args:
        chosen: step, refinement, trade-off.
        basis: ``[C, R]`` float32, R a multiple of 32; a column is a component times the gain
            that makes a code the best guess of its coefficient.
        offset: ``[C]`` float32, the mean logits in steps.
        threshold: ``[R, 2]`` float32, in codes: the magnitude from which a coefficient is coded
            as one, and how far beyond the half it is rounded up to two and more.

    Raises:
        DataError: if these arrays cannot be a basis.
    """

    chosen: KltSettings
    basis: NDArray[np.float32]
    offset: NDArray[np.float32]
    threshold: NDArray[np.float32]
    _placed: dict[torch.device, "_Placed"] = field(default_factory=dict, init=False, repr=False)
    _watch: DecodeWatch = field(default_factory=DecodeWatch, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, array in self.side.items():
            if not np.isfinite(array).all():
                raise DataError(f"the klt codec's {name} holds a NaN or an infinity")
        for name in (BASIS, OFFSET):
            grid = self.side[name].astype(np.float64) * 2.0**FRACTION_BITS
            if (grid != np.rint(grid)).any():
                raise DataError(f"the klt codec's {name} is not in multiples of 2^-{FRACTION_BITS}")
        if (significant(self.basis) != self.basis).any():
            raise DataError(f"the klt codec's basis has over {SIGNIFICANT_BITS} significant bits")
        if np.linalg.norm(self.offset) > LARGEST_OFFSET:
            raise DataError(f"the klt codec's offset is over {LARGEST_OFFSET:g} steps long")

    @property
    def name(self) -> str:
        """The name it is asked for by."""
        return self.chosen.name

    @property
    def settings(self) -> dict[str, Any]:
        """As it stands in a recipe."""
        return self.chosen.settings

    @property
    def classes(self) -> int:
        """C."""
        return len(self.basis)

    @property
    def side(self) -> Mapping[str, NDArray[np.float32]]:
        """The fitted arrays, kept once per cache."""
        return {BASIS: self.basis, OFFSET: self.offset, THRESHOLD: self.threshold}

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """Codes ``[R, N]`` by component, refinements ``[K, N]`` by rank, guards ``[N]``."""
        return klt_arrays(self.chosen, *self.basis.shape)

    @cached_property
    def _fineness(self) -> Tensor:
        """The step of each refined rank in units of the codec's, ``[K]`` float64."""
        divisors = refined_divisors(self.chosen, self.classes)
        return 1.0 / torch.tensor(divisors, dtype=torch.float64)

    @cached_property
    def _peak(self) -> float:
        return float(np.abs(self.offset).max())

    @cached_property
    def _longest(self) -> float:
        """The longest row of the basis."""
        return float(np.sqrt(np.square(self.basis.astype(np.float64)).sum(axis=1).max()))

    @cached_property
    def _thresholds(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For each component ``[R]``: what the offset has of it, its squared length, thresholds."""
        basis = self.basis.astype(np.float64)
        squared = np.square(basis).sum(axis=0)
        # A column of zeros stands for no component: its coefficient is then zero.
        squared = np.where(squared > 0, squared, np.inf)
        first, later = torch.from_numpy(self.threshold).unbind(1)
        shift = torch.from_numpy(self.offset.astype(np.float64) @ basis)
        return shift, torch.from_numpy(squared), first, 0.5 - later

    def encode(self, logits: Rows) -> Encoded:
        """Norms and codes of logits ``[B, C]``; the same whatever the batches and threads."""
        centred, norm = centre(logits)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            arrays = self._encode(torch.from_numpy(centred), torch.from_numpy(norm))
        return Encoded(norm, {name: arrays[name].numpy() for name in self.arrays})

    def _encode(self, rows: Tensor, norms: Tensor) -> dict[str, Tensor]:
        times = norms.double() / (self.chosen.step * LARGEST_INPUT)
        escape = (torch.frexp(times).exponent.clamp(min=0).to(torch.int64) + 1) // 2  # [B]
        code, scaled, base = self._project(rows, escape)
        while len(todo := torch.nonzero(~self._fits(code, base))[:, 0]):
            escape[todo] += 1
            code[todo], scaled[todo], base[todo] = self._project(rows[todo], escape[todo])
        found = Reconstruction(base, norms / self._unit(escape)[:, 0], self._fineness)
        refine = ((found.gathered(scaled) - found.top()) / self._fineness).round_()
        guard = (escape << _HASH_BITS | found.hash(_HASH_BITS)).to(torch.int16)
        refine = refine.clamp_(-_INT16, _INT16).to(torch.int16)
        return {CODE: code.to(torch.int16), REFINE: refine, GUARD: guard}

    def decode(self, code: Mapping[str, Tensor], norm: Tensor) -> Tensor:
        """The centred logits ``[B, C]`` float32, each row at its stored norm.

        Raises:
            DataError: if other classes came out largest than when the rows were encoded; on a
                GPU, which is not waited for, some batches later or at :meth:`settle`.
        """
        with torch.no_grad(), torch.autocast(norm.device.type, enabled=False):
            guard = code[GUARD].to(torch.int64)
            unit = self._unit(guard >> _HASH_BITS)  # [B, 1]
            base, fineness = self._multiply(code[CODE]), self._at(norm.device).fineness
            found = Reconstruction(base, norm / unit[:, 0], fineness)
            self._watch.see(found.hash(_HASH_BITS) != guard & (2**_HASH_BITS - 1))
            return found.refined(code.get(REFINE), unit[:, 0])

    def settle(self) -> None:
        """Wait until all that was decoded on a GPU is compared.

        Raises:
            DataError: as :meth:`decode`.
        """
        self._watch.settle()

    def _unit(self, escape: Tensor) -> Tensor:
        """The step of rows that were escaped so many times, ``[B, 1]`` float64."""
        return self._at(escape.device).units[escape][:, None]

    def _project(self, rows: Tensor, escape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes ``[B, R]`` float32, rows in steps and what the codes reconstruct, ``[B, C]``.

        Rows are rounded so far that float32 projects them exactly: to a 16th of a step where the
        row is up to 64 steps long, which moves a coefficient by a fiftieth of a step.
        """
        scaled = rows / self._unit(escape)
        shift, squared, first, later = self._thresholds
        length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        grid = _GRIDS[torch.frexp(length).exponent.clamp(min=0)]  # gains are below 2
        rounded = (scaled * grid).round_().div_(grid)
        projected = self._product(rounded, transposed=False)
        coefficient = projected.double().sub_(shift).div_(squared).to(torch.float32)
        size = coefficient.abs()
        code = (size + later).floor_().clamp_(min=1).mul_(size >= first).copysign_(coefficient)
        return code, scaled, self._multiply(code)

    def _multiply(self, code: Tensor) -> Tensor:
        """``basis @ code + offset`` for codes ``[B, R]``, exactly: ``[B, C]`` float32."""
        return self._product(code, transposed=True) + self._at(code.device).offset

    def _product(self, rows: Tensor, *, transposed: bool) -> Tensor:
        """Rows times the basis, ``[B, R]``, or times its transpose, ``[B, C]``; float32."""
        here = self._at(rows.device)
        basis = here.wide if _may_cut_products(rows.device) else here.basis
        return (rows.to(basis.dtype) @ (basis.T if transposed else basis)).to(torch.float32)

    def _fits(self, code: Tensor, base: Tensor) -> Tensor:
        """Which rows ``[B]`` are computed exactly by float32 products and float64 sums."""
        length = torch.linalg.vector_norm(code, dim=1, dtype=torch.float64)
        longest = self._longest * length + self._peak
        fits: Tensor = code.abs().amax(dim=1) <= LARGEST_CODE
        fits &= longest < LARGEST_SUM
        return fits.logical_and_(energy(base) < LARGEST_ENERGY)

    def _at(self, device: torch.device) -> "_Placed":
        if device not in self._placed:
            basis = torch.from_numpy(self.basis).to(device)
            self._placed[device] = _Placed(
                basis=basis,
                wide=basis.double() if device.type == "cpu" else basis,
                offset=torch.from_numpy(self.offset).to(device),
                units=torch.tensor(
                    [self.chosen.step * 4.0**times for times in range(64)],
                    dtype=torch.float64,
                    device=device,
                ),
                fineness=self._fineness.to(device),
            )
        return self._placed[device]


@dataclass(frozen=True)
class _Placed:
    """What decoding needs, on one device: copied once, so no step waits for it."""

    basis: Tensor  # [C, R] float32
    wide: Tensor  # [C, R] float64 on a CPU
    offset: Tensor  # [C] float32
    units: Tensor  # [64] float64, by how often a row was escaped
    fineness: Tensor  # [K] float64


def klt_arrays(chosen: KltSettings, classes: int, components: int) -> dict[str, ArraySpec]:
    """Codes ``[R, N]`` by component, refinements ``[K, N]`` by rank, guards ``[N]``."""
    specs = {CODE: ArraySpec("int16", (components,), 1, (BLOCK,), (PCODEC,))}
    if ranks := len(refined_divisors(chosen, classes)):
        specs[REFINE] = ArraySpec("int16", (ranks,), 1, (REFINED_BLOCK,), (PCODEC,))
    return specs | {GUARD: ArraySpec("int16", (), codecs=(PCODEC,))}


def refined_divisors(chosen: KltSettings, classes: int) -> list[int]:
    """The divisor of the step of each refined rank; at most half of the classes are refined."""
    return chosen.divisors[: classes // 2]


def _may_cut_products(device: torch.device) -> bool:
    """Whether float32 factors may be cut to bfloat16, which holds neither codes nor basis.

    A GPU cuts them to TF32 at most, which holds both.
    """
    if device.type != "cpu":
        return False
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    precision = getattr(matmul, "fp32_precision", torch.get_float32_matmul_precision())
    return precision in {"bf16", "medium"}


_GRIDS = torch.tensor([2.0 ** (SIGNIFICANT_BITS - 1 - n) for n in range(16)], dtype=torch.float64)
"""What rows up to ``2**n`` steps long are rounded to multiples of: one over this."""


def significant(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Float32 values rounded to 11 significant bits."""
    fraction, exponent = np.frexp(values)
    scale = np.float32(2**SIGNIFICANT_BITS)
    return np.ldexp(np.rint(fraction * scale) / scale, exponent).astype(np.float32)
