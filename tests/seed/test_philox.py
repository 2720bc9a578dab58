import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skd_cache.seed import below, draw, unit
from skd_cache.seed.philox import philox4x32

WORD = st.integers(0, 2**32 - 1)
ONES = 0xFFFFFFFF


def hexadecimal(words: np.ndarray) -> list[str]:
    return [f"{word:08x}" for word in words.ravel()]


def test_known_answers_of_random123():
    """kat_vectors of Random123, rows ``philox4x32 10``."""
    zeros = philox4x32((0, 0, 0, 0), (0, 0))
    ones = philox4x32((ONES, ONES, ONES, ONES), (ONES, ONES))
    pi = philox4x32((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))
    assert hexadecimal(zeros) == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    assert hexadecimal(ones) == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]
    assert hexadecimal(pi) == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]


@given(st.integers(0, 2**64 - 1), st.lists(WORD, min_size=1, max_size=8), WORD, WORD, WORD)
def test_a_draw_depends_on_its_own_sample_alone(seed, samples, view, purpose, index):
    together = draw(seed, np.array(samples), view, purpose, index)
    alone = [draw(seed, sample, view, purpose, index)[:, 0] for sample in samples]
    assert (together == np.stack(alone, axis=1)).all()


def test_every_part_of_the_address_matters():
    base = draw(5, 1, 2, 3, 4)
    others = [
        draw(6, 1, 2, 3, 4),
        draw(5 + 2**32, 1, 2, 3, 4),
        draw(5, 2, 2, 3, 4),
        draw(5, 1, 3, 3, 4),
        draw(5, 1, 2, 4, 4),
        draw(5, 1, 2, 3, 5),
    ]
    assert all((other != base).any() for other in others)


@given(st.lists(WORD, min_size=1), st.integers(1, 2**31))
def test_words_become_integers_below_a_bound_and_fractions_below_one(words, bound):
    array = np.array(words, np.uint32)
    assert below(array, bound).tolist() == [word * bound >> 32 for word in words]
    assert unit(array).tolist() == [word / 2**32 for word in words]
