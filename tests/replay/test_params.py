import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skd_cache.replay import Policy, digest, draw_params, load_policy

SIDE = st.integers(1, 5000)


def sizes(count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(count, height, np.int32), np.full(count, width, np.int32)


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        ("rrc-flip", "bc935c41bc141c7fea6345adccd13f306f05d0252d6600b159e61bf90f4c8c33"),
        ("pad-crop-flip", "5118c9d1ac8848f4c592aeba8e935bb6fa9762fb5c7700677a459eec286a4da5"),
        ("none", "0ef053ab8b09abaf6b1833a415ac51215f474456995aa2ea23788fafd1e364a4"),
    ],
)
def test_parameters_of_ten_thousand_pairs_are_pinned(name, pinned):
    """100 views of 100 samples of many shapes: whatever changes this changes every cache."""
    samples = np.arange(100) * 12_347
    heights = (75 + samples % 577).astype(np.int32)
    widths = (60 + samples % 743).astype(np.int32)
    digests = "".join(
        digest(draw_params(load_policy(name), 2**40 + 7, view, samples, heights, widths))
        for view in range(100)
    )
    assert hashlib.sha256(digests.encode()).hexdigest() == pinned


@pytest.mark.parametrize("name", ["rrc-flip", "pad-crop-flip", "none"])
@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), SIDE, SIDE), min_size=1, max_size=20))
def test_a_sample_is_drawn_alike_alone_and_in_a_batch(name, rows):
    samples, heights, widths = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    heights, widths = heights.astype(np.int32), widths.astype(np.int32)
    together = draw_params(load_policy(name), 9, 4, samples, heights, widths)
    for i in range(len(rows)):
        one = slice(i, i + 1)
        alone = draw_params(load_policy(name), 9, 4, samples[one], heights[one], widths[one])
        assert (alone.box == together.box[one]).all()
        assert (alone.flip == together.flip[one]).all()


@given(SIDE, SIDE, st.integers(0, 2**32))
def test_a_random_resized_box_lies_inside_the_image(height, width, view):
    params = draw_params(
        load_policy("rrc-flip"), 0, view % 2**32, np.arange(50), *sizes(50, height, width)
    )
    top, left, h, w = params.box.T
    assert (h > 0).all()
    assert (w > 0).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


def test_random_resized_boxes_are_distributed_as_torchvisions():
    """Means of area, aspect and place against a million draws of torchvision's own formula."""
    count = 20_000
    params = draw_params(load_policy("rrc-flip"), 0, 0, np.arange(count), *sizes(count, 375, 500))
    top, left, h, w = params.box.T.astype(np.float64)
    rng = np.random.default_rng(0)
    expected = [torchvision_box(rng, 375, 500) for _ in range(count)]
    theirs = np.array(expected, np.float64).T
    for ours, other in zip((top, left, h, w, h * w, w / h), _with_shape(theirs), strict=True):
        spread = np.sqrt(ours.var() / count + other.var() / count)
        assert abs(ours.mean() - other.mean()) < 4.5 * spread
    assert abs(params.flip.mean() - 0.5) < 0.02


def _with_shape(box: np.ndarray) -> tuple[np.ndarray, ...]:
    top, left, h, w = box
    return top, left, h, w, h * w, w / h


def torchvision_box(rng: np.random.Generator, height: int, width: int) -> tuple[int, ...]:
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1.0)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            return (int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w)
    return (0, (width - height) // 2, height, min(width, round(height * 4 / 3)))


def test_an_image_no_box_fits_falls_back_to_its_centre():
    params = draw_params(load_policy("rrc-flip"), 0, 0, np.arange(200), *sizes(200, 3, 900))
    fallback = params.box[(params.box == [0, 448, 3, 4]).all(axis=1)]
    assert len(fallback) > 0


def test_a_padded_box_moves_by_at_most_the_padding():
    policy = Policy("pad", True, padding=3)
    params = draw_params(policy, 0, 0, np.arange(5000), *sizes(5000, 28, 28))
    assert set(params.box[:, 0]) == set(params.box[:, 1]) == set(range(-3, 4))
    assert (params.box[:, 2:] == 28).all()


def test_without_a_policy_every_view_is_the_centred_square():
    params = draw_params(load_policy("none"), 0, 5, np.arange(3), *sizes(3, 30, 41))
    assert (params.box == [0, 5, 30, 30]).all()
    assert not params.flip.any()


def test_views_differ():
    policy = load_policy("rrc-flip")
    first, second = (
        draw_params(policy, 0, view, np.arange(100), *sizes(100, 300, 300)) for view in (0, 1)
    )
    assert digest(first) != digest(second)
