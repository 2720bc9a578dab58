"""Which sample stands at which position of a view: a keyed permutation without a table.

A Feistel network over the smallest even number of bits that hold the count, with cycle walking
(Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002): values that fall
outside ``[0, count)`` are sent through again until they fall inside. Both directions cost O(1)
memory per position, besides the round tables of at most 2**16 words.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from skd_cache.seed.philox import draw

ORDER_PURPOSE = 0
ROUNDS = 8

Index = NDArray[np.int64]


def _half_bits(count: int) -> int:
    """Bits of each half of the Feistel network over ``[0, count)``."""
    return max(1, (max(count - 1, 1).bit_length() + 1) // 2)


@lru_cache(maxsize=8)
def _round_tables(seed: int, group: int, half_bits: int) -> Index:
    """What each round adds to one half for every value of the other, ``[ROUNDS, 2**half_bits]``."""
    halves = np.arange(1 << half_bits)
    mask = (1 << half_bits) - 1
    rows = [draw(seed, halves, group, ORDER_PURPOSE, index)[0] & mask for index in range(ROUNDS)]
    return np.stack(rows).astype(np.int64)


def _forward(values: Index, tables: Index, half_bits: int) -> Index:
    left, right = values >> half_bits, values & ((1 << half_bits) - 1)
    for table in tables:
        left, right = right, left ^ table[right]
    return (left << half_bits) | right


def _backward(values: Index, tables: Index, half_bits: int) -> Index:
    left, right = values >> half_bits, values & ((1 << half_bits) - 1)
    for table in tables[::-1]:
        left, right = right ^ table[left], left
    return (left << half_bits) | right


def _walk(values: Index, seed: int, group: int, count: int, *, inverse: bool) -> Index:
    values = np.array(values, np.int64)
    if values.size and (values.min() < 0 or values.max() >= count):
        raise ValueError(f"positions and samples lie in [0, {count})")
    half_bits = _half_bits(count)
    tables = _round_tables(seed, group, half_bits)
    step = _backward if inverse else _forward
    values = step(values, tables, half_bits)
    while (outside := values >= count).any():
        values[outside] = step(values[outside], tables, half_bits)
    return values


def samples_at(seed: int, group: int, positions: Index, count: int) -> Index:
    """The samples at these positions of a view.

    Args:
        seed: the cache's 64-bit seed.
        group: ``view // views_per_decode``; the views of one group share their order.
        positions: ``[n]`` int64 in ``[0, count)``.
        count: samples in the dataset, at most 2**32.

    Returns:
        ``[n]`` int64 in ``[0, count)``; all positions together are a permutation.

    Raises:
        ValueError: if a position lies outside ``[0, count)``.
    """
    return _walk(positions, seed, group, count, inverse=False)


def positions_of(seed: int, group: int, samples: Index, count: int) -> Index:
    """The positions at which these samples stand in a view: the inverse of :func:`samples_at`."""
    return _walk(samples, seed, group, count, inverse=True)
