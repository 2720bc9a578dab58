import math

import numpy as np
import pytest
import torch

from skd_cache.batch import HISTOGRAM_BINS, LogitBatch, Statistics, judge
from skd_cache.codec import parse_codec


def batch_of(logits, codec="float32"):
    codec = parse_codec(codec, logits.shape[1])
    encoded = codec.encode(np.asarray(logits, np.float32))
    code = {name: torch.from_numpy(rows) for name, rows in encoded.code.items()}
    return LogitBatch(torch.from_numpy(encoded.norm), code, codec)


def test_probabilities_are_a_softmax_at_the_temperature():
    logits = torch.randn(5, 10)
    expected = torch.softmax(logits / 4, dim=1)
    torch.testing.assert_close(batch_of(logits.numpy()).probabilities(4), expected)


def test_direction_is_the_centred_row_at_length_one():
    logits = torch.randn(5, 10) + 3
    centred = logits - logits.mean(1, keepdim=True)
    expected = centred / centred.norm(dim=1, keepdim=True)
    torch.testing.assert_close(batch_of(logits.numpy()).direction(), expected)


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_direction_of_a_constant_row_is_zero(codec):
    batch = batch_of(np.full((2, 1000), 0.1), codec)
    assert not batch.direction().any()
    assert not batch.norm.any()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_direction_neither_over_nor_underflows(scale):
    logits = np.array([[1, -1, 0, 0]]) * scale
    direction = batch_of(logits).direction()
    torch.testing.assert_close(direction, torch.tensor([[0.5**0.5, -(0.5**0.5), 0, 0]]))


def test_a_batch_moves_with_everything_it_holds():
    moved = batch_of(np.eye(3), "int8").to("cpu")
    assert len(moved) == 3
    assert moved.norm.device.type == "cpu"


def test_logits_do_not_depend_on_autocast():
    batch = batch_of(np.random.default_rng(0).normal(size=(4, 100)), "int8")
    plain = batch.logits()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(batch.logits(), plain)


def test_judge_knows_hits_and_confidence():
    logits = np.array([[0, math.log(3)], [0, 0]], np.float32)
    judgement = judge(logits, np.array([0, 0], np.int32))
    assert judgement.hit.tolist() == [False, True]
    np.testing.assert_allclose(judgement.top, [0.75, 0.5], rtol=1e-6)
    np.testing.assert_allclose(judgement.true, [0.25, 0.5], rtol=1e-6)


def test_statistics_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(500, 10)).astype("f4"), rng.integers(0, 10, 500)
    norm = rng.lognormal(size=500).astype("f4")
    order = rng.permutation(500)
    forward = Statistics.of(norm, judge(logits, labels))
    assert forward == Statistics.of(norm[order], judge(logits[order], labels[order]))


def test_statistics_add_up():
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(90, 5)).astype("f4"), rng.integers(0, 5, 90)
    norm = rng.lognormal(size=90).astype("f4")
    whole = Statistics.of(norm, judge(logits, labels))
    parts = [slice(0, 30), slice(30, 90)]
    first, second = (Statistics.of(norm[p], judge(logits[p], labels[p])) for p in parts)
    total = Statistics() + first + second
    assert total.count == 90
    assert total.norm_histogram == whole.norm_histogram
    assert total.accuracy == whole.accuracy == (logits.argmax(1) == labels).mean()
    assert total.mean_norm == pytest.approx(norm.mean())
    assert total.norm_deviation == pytest.approx(norm.std(), rel=1e-5)
    assert total.median_norm == pytest.approx(np.median(norm), rel=0.2)
    assert 0 < total.mean_true_confidence <= total.mean_top_confidence < 1


def test_every_norm_falls_into_the_histogram():
    norm = np.array([0, 1e-30, 0.0625, 3584, 1e30], np.float32)
    logits = np.zeros((5, 2), np.float32)
    histogram = Statistics.of(norm, judge(logits, np.zeros(5, np.int64))).norm_histogram
    assert len(histogram) == HISTOGRAM_BINS
    assert (histogram[0], histogram[1], histogram[-1]) == (2, 1, 2)


def test_statistics_of_nothing_have_no_means():
    assert math.isnan(Statistics().accuracy)
    assert math.isnan(Statistics().median_norm)
