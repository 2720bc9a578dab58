"""Random words addressed by a counter: the same on every machine, in any order.

Philox-4x32-10 of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint32]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
ROUNDS = 10


def philox4x32(
    counter: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike], key: tuple[int, int]
) -> Words:
    """Four random 32-bit words for every counter.

    Args:
        counter: four arrays of 32-bit words that broadcast to one shape ``[n]``.
        key: two 32-bit words.

    Returns:
        ``[4, n]`` uint32, Random123's ``philox4x32`` with 10 rounds.
    """
    # 32-bit words ride in uint64 so that one multiplication holds both halves of the product.
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word, np.uint64) for word in counter))
    k0, k1 = key
    for _ in range(ROUNDS):
        p0 = c0 * _MULTIPLIERS[0]
        p1 = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> _HALF) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _HALF) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def draw(seed: int, sample: ArrayLike, view: int, purpose: int, index: int) -> Words:
    """Four random words of each sample in a view, ``[4, n]`` uint32.

    The 64-bit ``seed`` is the key, ``(sample, view, purpose, index)`` the counter; ``purpose``
    keeps draws for different uses apart, ``index`` numbers the draws of one use.
    """
    key = (seed & 0xFFFFFFFF, seed >> 32)
    return philox4x32((np.atleast_1d(sample), view, purpose, index), key)


def unit(words: Words) -> NDArray[np.float64]:
    """Words as float64 in ``[0, 1)``: the word over 2**32, exactly."""
    return words.astype(np.float64) * 2.0**-32


def below(words: Words, bound: ArrayLike) -> NDArray[np.int64]:
    """Words as integers in ``[0, bound)``, ``bound <= 2**31``: the high half of the product."""
    product = words.astype(np.uint64) * np.asarray(bound, np.uint64)
    return (product >> _HALF).astype(np.int64)
