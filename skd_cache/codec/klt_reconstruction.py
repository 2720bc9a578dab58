"""What klt codes stand for, row by row: ranks, refined values, the norm put back.

Shape legend: B rows, C classes, K refined ranks.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

FRACTION_BITS = 13
"""Basis, offset and what they reconstruct are multiples of ``2**-13``."""
_TINY = 2.0**-200


@dataclass(frozen=True)
class Reconstruction:
    """Rows as their codes give them, in steps, and what follows from that alone.

    Sums of ``base`` and its squares are exact, so their order does not matter; everything else
    is elementwise.
    """

    base: Tensor  # [B, C] float32, multiples of 2^-13
    norm: Tensor  # [B] float64, the stored norms in steps
    fineness: Tensor  # [K] float64, steps of the refined ranks

    @cached_property
    def ranks(self) -> Tensor:
        """The K largest classes, ``[B, K]`` int64, largest first, the lower of equals first."""
        classes = self.base.shape[1]
        place = torch.arange(classes, device=self.base.device)
        # One number of value and class, exact in float64, and no two are equal.
        key = self.base.double().mul_(2.0 ** (FRACTION_BITS + classes.bit_length())).sub_(place)
        ranks: Tensor = key.topk(len(self.fineness), dim=1).indices
        return ranks

    def hash(self, bits: int) -> Tensor:
        """So many bits that depend on each of the ranks, ``[B]`` int64."""
        odd = 2 * torch.arange(len(self.fineness), device=self.base.device) + 1
        mixed = ((self.ranks + 1) * odd * 0x9E3779B1) & 0xFFFFFFFF
        found: Tensor = (mixed.sum(dim=1) >> (32 - bits)) & (2**bits - 1)
        return found

    @cached_property
    def _sum(self) -> Tensor:
        return self.base.sum(dim=1, dtype=torch.float64)

    @cached_property
    def _energy(self) -> Tensor:
        return energy(self.base)

    @cached_property
    def _mean(self) -> Tensor:
        return self._sum / self.base.shape[1]

    @cached_property
    def _gain(self) -> Tensor:
        """What brings a centred base to the stored norm, ``[B]``; 0 where there is nothing."""
        length = self._energy - self._sum * self._mean
        return torch.where(length > 0, self.norm / length.clamp(min=_TINY).sqrt(), 0.0)

    def gathered(self, rows: Tensor) -> Tensor:
        """What the refined classes have in rows ``[B, C]``: ``[B, K]`` float64."""
        return rows.gather(1, self.ranks).double()

    def top(self) -> Tensor:
        """The refined classes before they are refined, at the stored norm: ``[B, K]`` float64."""
        return self._gain[:, None] * (self.gathered(self.base) - self._mean[:, None])

    def refined(self, refine: Tensor | None, unit: Tensor) -> Tensor:
        """The rows in logits: refined, centred and at the stored norm, ``[B, C]`` float32.

        The norm is put back by stretching the classes that are not refined.

        Args:
            refine: ``[B, K]`` in steps of ``fineness``, or None where nothing is refined.
            unit: ``[B]`` float64, the steps in logits.
        """
        if refine is None:
            return self._line(self._gain, self._mean, torch.zeros_like(unit), unit)
        extra = refine.double() * self.fineness  # [B, K]
        chosen = self.gathered(self.base)
        gain, mean, ranks = self._gain, self._mean, len(self.fineness)
        chosen_sum, chosen_energy = chosen.sum(dim=1), chosen.square().sum(dim=1)
        extra_sum, mixed_sum = extra.sum(dim=1), (chosen * extra).sum(dim=1)
        # Sum and energy of the refined values, from exact sums.
        total = gain * (chosen_sum - mean * ranks) + extra_sum
        spread = chosen_energy - 2 * mean * chosen_sum + mean * mean * ranks
        top_energy = gain * gain * spread + 2 * gain * (mixed_sum - mean * extra_sum)
        top_energy = top_energy + extra.square().sum(dim=1)
        others = self.base.shape[1] - ranks
        other_mean, new_mean = (self._sum - chosen_sum) / others, -total / others
        left = self.norm.square() - top_energy - new_mean.square() * others
        have = (self._energy - chosen_energy) - (self._sum - chosen_sum) * other_mean
        can = (left > 0) & (have > 0)
        stretch = torch.where(can, (left / have.clamp(min=_TINY)).clamp(min=0).sqrt(), 0.0)
        # Where the refined classes alone are longer than the norm, everything is shortened.
        length = (top_energy + new_mean.square() * others).clamp(min=_TINY).sqrt()
        unit = unit * torch.where(can, 1.0, self.norm / length)
        rows = self._line(stretch, other_mean, new_mean, unit)
        top = (self.top() + extra) * unit[:, None]
        return rows.scatter_(1, self.ranks, top.to(torch.float32))

    def _line(self, slope: Tensor, around: Tensor, level: Tensor, unit: Tensor) -> Tensor:
        """``(slope · (base - around) + level) · unit``, ``[B, C]`` float32."""
        shift = (level - slope * around) * unit
        rows = self.base * (slope * unit).to(torch.float32)[:, None]
        return rows.add_(shift.to(torch.float32)[:, None])


def energy(base: Tensor) -> Tensor:
    """Sums of squares of rows ``[B, C]`` of multiples of 2^-13, ``[B]`` float64."""
    wide = base.double()
    squares: Tensor = torch.linalg.vecdot(wide, wide)
    return squares
