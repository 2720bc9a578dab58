import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd_cache.seed import positions_of, samples_at

SEED = st.integers(0, 2**64 - 1)


@given(SEED, st.integers(0, 1000), st.integers(1, 3000))
def test_a_view_visits_every_sample_once(seed, group, count):
    positions = np.arange(count)
    samples = samples_at(seed, group, positions, count)
    assert (np.sort(samples) == positions).all()
    assert (positions_of(seed, group, samples, count) == positions).all()


@given(SEED, st.integers(1, 2**32), st.data())
def test_any_part_of_an_order_is_found_alone(seed, count, data):
    position = data.draw(st.integers(0, count - 1))
    sample = samples_at(seed, 0, np.array([position]), count)
    assert positions_of(seed, 0, sample, count) == position


def test_orders_differ_between_seeds_and_groups():
    positions = np.arange(1000)
    orders = [samples_at(s, g, positions, 1000) for s, g in ((0, 0), (0, 1), (1, 0), (2**32, 0))]
    for i, order in enumerate(orders):
        for other in orders[:i]:
            assert (order == other).mean() < 0.02


def test_positions_are_spread_evenly_over_the_dataset():
    count, bins = 100_000, 50
    samples = samples_at(3, 7, np.arange(10_000), count)
    hits = np.bincount(samples * bins // count, minlength=bins)
    chi_square = float(((hits - 200) ** 2 / 200).sum())
    assert chi_square < 100  # 49 degrees of freedom: 99.998 % lie below


def test_the_order_is_pinned():
    samples = samples_at(0, 0, np.arange(1_281_167), 1_281_167)
    pinned = "17bec330f66cccf3a6c775269bed3f97f94405332a9523c510e5766b37a3e6e0"
    assert hashlib.sha256(samples.astype("<i8").tobytes()).hexdigest() == pinned


@pytest.mark.parametrize("outside", [-1, 10])
def test_a_position_outside_the_dataset_is_refused(outside):
    with pytest.raises(ValueError, match="lie in"):
        samples_at(0, 0, np.array([outside]), 10)
