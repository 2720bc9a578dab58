import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skd_cache.codec import NotFiniteError, from_settings, names, parse_codec
from skd_cache.errors import DataError, InputError

SMALLEST = np.finfo(np.float32).tiny  # below it float32 has fewer digits than 1e-5 needs
PLAIN = ["float32", "float16", "int8"]
finite = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1e6, -1e6, 1e-38])
shapes = st.tuples(st.integers(1, 6), st.integers(2, 40))
logit_rows = hnp.arrays(np.float32, shapes, elements=finite)


def roundtrip(codec, logits):
    encoded = codec.encode(logits)
    code = {name: torch.from_numpy(rows) for name, rows in encoded.code.items()}
    return encoded, codec.decode(code, torch.from_numpy(encoded.norm)).numpy()


def centred(logits):
    wide = logits.astype(np.float64)
    return wide - wide.mean(axis=1, keepdims=True)


@given(logit_rows)
@settings(deadline=None)
def test_float32_gives_the_logits_back_bit_for_bit(logits):
    _, back = roundtrip(parse_codec("float32", logits.shape[1]), logits)
    assert back.tobytes() == logits.tobytes()


@given(logit_rows)
@settings(deadline=None)
@pytest.mark.parametrize(("name", "share"), [("float16", 1e-3), ("int8", 0.5 / 127)])
def test_every_entry_is_within_the_step_of_its_row(name, share, logits):
    """int8 rounds to half a step; re-centring and the norm add at most as much again each."""
    encoded, back = roundtrip(parse_codec(name, logits.shape[1]), logits)
    wanted = centred(logits)
    norm = np.sqrt((wanted**2).sum(axis=1))
    classes = logits.shape[1]
    peak = np.abs(wanted).max(axis=1, keepdims=True)
    # A step of the peak per entry moves the row's length by at most sqrt(C) steps.
    bound = peak * share * (2 + np.sqrt(classes)) + 1e-5 * norm[:, None]
    noise = np.abs(logits).max(axis=1, keepdims=True) * 1e-6 + SMALLEST
    assert (np.abs(back - wanted) <= bound + noise).all()
    np.testing.assert_allclose(encoded.norm, norm, rtol=1e-5, atol=float(noise.max()))


@given(logit_rows)
@settings(deadline=None)
@pytest.mark.parametrize("name", ["float16", "int8"])
def test_the_stored_norm_is_the_norm_of_what_is_read(name, logits):
    encoded, back = roundtrip(parse_codec(name, logits.shape[1]), logits)
    norm = np.sqrt((back.astype(np.float64) ** 2).sum(axis=1))
    np.testing.assert_allclose(norm, encoded.norm, rtol=1e-5, atol=SMALLEST)


@given(logit_rows)
@settings(deadline=None)
@pytest.mark.parametrize("name", PLAIN)
def test_a_row_is_coded_alone(name, logits):
    codec = parse_codec(name, logits.shape[1])
    together = codec.encode(logits)
    for index in range(len(logits)):
        alone = codec.encode(logits[index : index + 1])
        assert alone.norm[0] == together.norm[index]
        assert (alone.code["code"][0] == together.code["code"][index]).all()


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e6])
def test_a_constant_row_has_no_norm_and_reads_as_zero(name, value):
    logits = np.full((3, 1000), value, np.float32)
    encoded, back = roundtrip(parse_codec(name, 1000), logits)
    assert not encoded.norm.any()
    assert name == "float32" or not back.any()


@pytest.mark.parametrize("name", PLAIN)
def test_ties_stay_ties(name):
    logits = np.array([[5, 5, 1, 1, 1]], np.float32)
    _, back = roundtrip(parse_codec(name, 5), logits)
    assert back[0, 0] == back[0, 1] > back[0, 2] == back[0, 3] == back[0, 4]


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused_with_its_row(name, bad):
    logits = np.zeros((4, 3), np.float32)
    logits[2, 1] = bad
    with pytest.raises(NotFiniteError, match="row 2") as caught:
        parse_codec(name, 3).encode(logits)
    assert caught.value.row == 2
    assert isinstance(caught.value, DataError)


def test_a_norm_beyond_float32_is_refused():
    logits = np.array([[0, 0], [3e38, -3e38]], np.float32)
    with pytest.raises(NotFiniteError, match="row 1"):
        parse_codec("float32", 2).encode(logits)


@pytest.mark.parametrize("name", PLAIN)
def test_codes_have_the_shape_and_type_the_codec_announces(name):
    codec = parse_codec(name, 11)
    encoded = codec.encode(np.random.default_rng(0).normal(size=(4, 11)).astype("f4"))
    assert encoded.code.keys() == codec.arrays.keys()
    for key, spec in codec.arrays.items():
        assert encoded.code[key].shape == (4, *spec.row)
        assert encoded.code[key].dtype == spec.dtype


@pytest.mark.parametrize("name", PLAIN)
def test_settings_lead_back_to_the_codec(name):
    codec = parse_codec(name, 10)
    assert from_settings(codec.settings, 10) == codec


def test_an_unknown_codec_is_refused_with_near_names():
    with pytest.raises(InputError, match="int8"):
        parse_codec("int9", 10)
    with pytest.raises(InputError, match="float32"):
        parse_codec("zzz", 10)


def test_an_unknown_setting_is_refused():
    with pytest.raises(InputError, match="step"):
        from_settings({"name": "int8", "step": 2}, 10)


def test_all_names_are_codecs():
    assert set(PLAIN) < set(names())
    assert [parse_codec(name, 4).name for name in PLAIN] == PLAIN


@pytest.mark.parametrize("name", PLAIN)
def test_a_codec_without_settings_takes_none(name):
    with pytest.raises(InputError, match="takes no setting"):
        parse_codec(f"{name}:2", 4)


def test_the_error_on_realistic_logits_is_small():
    logits = np.random.default_rng(3).normal(size=(64, 1000)).astype(np.float32) * 3
    wanted = centred(logits)
    for name, worst in (("float16", 1e-7), ("int8", 2e-4)):
        back = roundtrip(parse_codec(name, 1000), logits)[1].astype(np.float64)
        lengths = np.linalg.norm(back, axis=1) * np.linalg.norm(wanted, axis=1)
        assert (1 - (back * wanted).sum(axis=1) / lengths < worst).all()
