"""What is left of a row of logits when only its K largest probabilities are kept."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skd_cache.codec import NotFiniteError, from_settings, names, parse_codec
from skd_cache.errors import DataError, InputError

finite = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, -0.0, 1e6, -1e6, 1.0, 2.0])
shapes = st.tuples(st.integers(1, 6), st.integers(2, 40))


@st.composite
def rows_and_k(draw):
    logits = draw(hnp.arrays(np.float32, draw(shapes), elements=finite))
    return logits, draw(st.integers(1, logits.shape[1] - 1))


def codec_of(k, classes):
    return parse_codec(f"topk:{k}", classes)


def decoded(codec, encoded):
    code = {name: torch.from_numpy(rows) for name, rows in encoded.code.items()}
    return codec.decode(code, torch.from_numpy(encoded.norm))


def roundtrip(k, logits):
    codec = codec_of(k, logits.shape[1])
    encoded = codec.encode(logits)
    return encoded, decoded(codec, encoded).numpy()


def softmax(logits):
    wide = logits.astype(np.float64)
    weights = np.exp(wide - wide.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@given(rows_and_k())
@settings(deadline=None)
def test_the_largest_logits_are_kept_and_the_lower_class_of_equals(case):
    logits, k = case
    encoded, _ = roundtrip(k, logits)
    for row, kept in zip(logits, encoded.code["index"], strict=True):
        ranked = sorted(range(len(row)), key=lambda c: (-row[c], c))
        assert kept.tolist() == ranked[:k]


@given(rows_and_k())
@settings(deadline=None)
def test_what_is_kept_are_probabilities_as_float16_holds_them(case):
    logits, k = case
    encoded, _ = roundtrip(k, logits)
    wanted = np.take_along_axis(softmax(logits), encoded.code["index"].astype(int), axis=1)
    np.testing.assert_allclose(encoded.code["code"], wanted, rtol=2**-11, atol=2**-25)
    assert (np.diff(encoded.code["code"].astype(np.float64), axis=1) <= 0).all()


@given(rows_and_k())
@settings(deadline=None)
def test_what_is_read_is_finite_and_keeps_the_order(case):
    """Also where a probability is 0 as float16, or their sum is above 1."""
    logits, k = case
    encoded, back = roundtrip(k, logits)
    assert back.dtype == np.float32
    assert np.isfinite(back).all()
    kept = np.take_along_axis(back, encoded.code["index"].astype(int), axis=1)
    assert (np.diff(kept, axis=1) <= 0).all()
    others = back.copy()
    np.put_along_axis(others, encoded.code["index"].astype(int), -np.inf, axis=1)
    assert (others.max(axis=1) <= kept[:, -1]).all(), "none of the tail is above what was kept"
    flat = np.where(np.isfinite(others), others, others.max(axis=1, keepdims=True))
    assert (flat == flat[:, :1]).all(), "the tail is even"


@given(rows_and_k())
@settings(deadline=None)
def test_what_is_read_sums_to_one_as_nearly_as_float16_allows(case):
    logits, k = case
    classes = logits.shape[1]
    _, back = roundtrip(k, logits)
    total = np.exp(back.astype(np.float64)).sum(axis=1)
    # Each number is rounded by 2^-11 of itself; where the rest was rounded away the floors add.
    assert (np.abs(total - 1) <= 2.0**-11 + classes * 2.0**-25 + 1e-6).all()


@given(rows_and_k(), st.integers(1, 6))
@settings(deadline=None)
def test_no_batch_differs_from_another(case, size):
    logits, k = case
    codec = codec_of(k, logits.shape[1])
    whole = codec.encode(logits)
    together = decoded(codec, whole)
    for start in range(0, len(logits), size):
        part = codec.encode(logits[start : start + size])
        for name, rows in part.code.items():
            assert rows.tobytes() == whole.code[name][start : start + size].tobytes()
        assert torch.equal(decoded(codec, part), together[start : start + size])


def test_no_large_batch_differs_from_another():
    logits = np.random.default_rng(1).normal(size=(700, 1000)).astype(np.float32) * 3
    codec = codec_of(100, 1000)
    whole = decoded(codec, codec.encode(logits))
    for size in (1, 7, 256):
        parts = [logits[start : start + size] for start in range(0, 700, size)]
        assert torch.equal(torch.cat([decoded(codec, codec.encode(p)) for p in parts]), whole)


@pytest.mark.parametrize("value", [0.0, -3.3, 1e6])
def test_a_constant_row_keeps_the_lowest_classes_and_reads_as_even(value):
    encoded, back = roundtrip(5, np.full((3, 1000), value, np.float32))
    assert (encoded.code["index"] == np.arange(5)).all()
    assert not encoded.norm.any()
    np.testing.assert_allclose(np.exp(back), 1e-3, rtol=1e-3)


def test_the_norm_is_the_teachers_and_not_that_of_what_is_read():
    logits = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32) * 5
    encoded, back = roundtrip(3, logits)
    centred = logits - logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(encoded.norm, np.linalg.norm(centred, axis=1), rtol=1e-5)
    index = encoded.code["index"].astype(int)
    kept = np.take_along_axis(back, index, axis=1)
    np.testing.assert_allclose(
        np.exp(kept), np.take_along_axis(softmax(logits), index, axis=1), rtol=2**-11 + 1e-6
    )


def test_two_classes_and_one_kept():
    encoded, back = roundtrip(1, np.array([[0, 1], [1e6, -1e6]], np.float32))
    assert encoded.code["index"].tolist() == [[1], [0]]
    np.testing.assert_allclose(np.exp(back[0]), softmax(np.array([[0.0, 1.0]]))[0], rtol=1e-3)
    assert back[1, 0] == 0
    assert -20 < back[1, 1] < -17


def test_a_tail_that_float16_cannot_hold_is_below_all_it_can():
    logits = np.array([[0, -10, -40, -41, -42, -43]], np.float32)
    encoded, back = roundtrip(3, logits)
    assert encoded.code["code"][0, 2] == 0
    assert np.isfinite(back).all()
    assert back[0, 0] > back[0, 1] > back[0, 2] >= back[0, 3]


def test_classes_are_stored_as_narrow_as_they_fit():
    for classes, dtype in ((2**15, "int16"), (2**15 + 1, "int32")):
        codec = codec_of(2, classes)
        logits = np.zeros((2, classes), np.float32)
        logits[:, -1] = 5
        encoded = codec.encode(logits)
        assert encoded.code["index"].dtype == dtype == codec.arrays["index"].dtype
        assert encoded.code["index"][:, 0].tolist() == [classes - 1] * 2
        assert decoded(codec, encoded).argmax(dim=1).tolist() == [classes - 1] * 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused_with_its_row(bad):
    logits = np.zeros((4, 3), np.float32)
    logits[2, 1] = bad
    with pytest.raises(NotFiniteError, match="row 2") as caught:
        codec_of(1, 3).encode(logits)
    assert caught.value.row == 2


@pytest.mark.parametrize(
    ("name", "value"), [("index", 3), ("index", -1), ("code", np.nan), ("code", -0.5), ("code", 2)]
)
def test_codes_that_are_none_are_refused(name, value):
    codec = codec_of(2, 3)
    encoded = codec.encode(np.zeros((4, 3), np.float32))
    encoded.code[name][1, 1] = value
    with pytest.raises(DataError, match="no probability or no class"):
        decoded(codec, encoded)


def test_codes_have_the_shape_and_type_the_codec_announces():
    codec = codec_of(3, 11)
    encoded = codec.encode(np.random.default_rng(0).normal(size=(4, 11)).astype("f4"))
    assert encoded.code.keys() == codec.arrays.keys()
    for key, spec in codec.arrays.items():
        assert encoded.code[key].shape == (4, *spec.row)
        assert encoded.code[key].dtype == spec.dtype


def test_settings_lead_back_to_the_codec():
    codec = codec_of(3, 10)
    assert codec.settings == {"name": "topk", "k": 3}
    assert codec.name == "topk:3"
    assert from_settings(codec.settings, 10) == codec
    assert "topk" in names()


@pytest.mark.parametrize("argument", ["", "0", "-1", "10", "99999999999", "1e1", "2.0", "x", " 2"])
def test_a_k_that_cannot_be_is_refused(argument):
    with pytest.raises(InputError, match="topk"):
        parse_codec(f"topk:{argument}", 10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "topk"},
        {"name": "topk", "k": "3"},
        {"name": "topk", "k": 3.0},
        {"name": "topk", "k": True},
        {"name": "topk", "k": 10},
        {"name": "topk", "k": 3, "step": 1},
        {"name": "topk:3"},
        {"name": "int8", "k": 3},
        {"name": "int8", "k": ""},
    ],
)
def test_settings_that_no_codec_has_are_refused(wrong):
    with pytest.raises(InputError):
        from_settings(wrong, 10)
