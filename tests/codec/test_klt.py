"""The klt codec: decoded logits are the same bits everywhere, close, and at their exact norms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skd_cache.codec import (
    KltSettings,
    NotFiniteError,
    complete,
    fit,
    from_settings,
    parse_codec,
    resolve,
)
from skd_cache.codec.klt_reconstruction import Reconstruction
from skd_cache.errors import DataError, InputError
from tests.codec.realistic import realistic_logits

CLASSES = 100
LEVELS = ["klt:small", "klt", "klt:fine", "klt:step=0.3,refine=none", "klt:step=2,refine=5/16"]


def make(text="klt", classes=CLASSES, rows=3000):
    batches = np.array_split(realistic_logits(rows, classes), 10)
    return fit(parse_codec(text, classes), batches, None)


@pytest.fixture(scope="module")
def codecs():
    return {text: make(text) for text in LEVELS}


@pytest.fixture(scope="module")
def codec(codecs):
    return codecs["klt"]


def tensors(encoded):
    return {name: torch.from_numpy(rows) for name, rows in encoded.code.items()}


def decoded(codec, encoded):
    return codec.decode(tensors(encoded), torch.from_numpy(encoded.norm))


def roundtrip(codec, logits):
    return decoded(codec, codec.encode(logits)).numpy()


def centred(logits):
    wide = logits.astype(np.float64)
    return wide - wide.mean(axis=1, keepdims=True)


def one_minus_cosine(logits, back):
    wanted, got = centred(logits), back.astype(np.float64)
    lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1)
    return 1 - (wanted * got).sum(axis=1) / lengths


def same_bits(ours, theirs):
    return ours.numpy().tobytes() == theirs.numpy().tobytes()


@pytest.mark.parametrize("text", LEVELS)
def test_logits_of_other_samples_come_back_close_and_at_their_norm(codecs, text):
    logits = realistic_logits(500, CLASSES, seed=1)
    back = roundtrip(codecs[text], logits)
    norm = np.linalg.norm(centred(logits), axis=1)
    np.testing.assert_allclose(np.linalg.norm(back.astype("f8"), axis=1), norm, rtol=1e-6)
    np.testing.assert_allclose(back.astype("f8").mean(axis=1), 0, atol=1e-5)
    step = codecs[text].chosen.step
    # A step of s loses at most about s²/12 per class, dead zones a few times that.
    assert one_minus_cosine(logits, back).mean() < 0.5 * step**2 * CLASSES / np.square(norm).mean()


def test_finer_levels_are_closer(codecs):
    logits = realistic_logits(500, CLASSES, seed=1)
    errors = [one_minus_cosine(logits, roundtrip(codecs[t], logits)).mean() for t in LEVELS[:3]]
    assert errors == sorted(errors, reverse=True)


def test_refined_classes_are_within_half_their_step(codec):
    logits = realistic_logits(300, CLASSES, seed=2)
    gap = np.abs(roundtrip(codec, logits) - centred(logits))
    top = np.argsort(-centred(logits), axis=1)[:, 0]
    fine = codec.chosen.step / codec.chosen.divisors[0]
    # The largest class is nearly always among the refined; norm and centring are in the rest.
    assert np.quantile(gap[np.arange(300), top], 0.9) <= fine / 2 + 1e-5


@pytest.mark.parametrize("text", LEVELS)
def test_codes_are_the_same_however_the_rows_are_batched(codecs, text):
    logits = realistic_logits(64, CLASSES, seed=3)
    whole = codecs[text].encode(logits)
    for cuts in ([1], [7, 20, 21], list(range(1, 64))):
        parts = [codecs[text].encode(rows) for rows in np.split(logits, cuts)]
        for name, rows in whole.code.items():
            assert (np.concatenate([part.code[name] for part in parts]) == rows).all()
        back = torch.cat([decoded(codecs[text], part) for part in parts])
        assert same_bits(back, decoded(codecs[text], whole))


def test_threads_do_not_change_a_bit(codec):
    logits = realistic_logits(300, CLASSES, seed=4)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            encoded = codec.encode(logits)
            found.append(
                (encoded.code["code"].tobytes(), decoded(codec, encoded).numpy().tobytes())
            )
    finally:
        torch.set_num_threads(before)
    assert len(set(found)) == 1


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_the_order_of_summation_does_not_change_a_bit(seed):
    """Components in another order, and summed in float64: partial sums are all exact."""
    codec = make_once()
    encoded = codec.encode(realistic_logits(20, CLASSES, seed=seed) * 3)
    order = np.random.default_rng(seed).permutation(codec.basis.shape[1])
    other = replace(codec, basis=codec.basis[:, order], threshold=codec.threshold[order])
    code = tensors(encoded)
    mixed = code | {"code": code["code"][:, torch.from_numpy(order)]}
    norm = torch.from_numpy(encoded.norm)
    assert same_bits(other.decode(mixed, norm), codec.decode(code, norm))
    q, basis = code["code"].double(), torch.from_numpy(codec.basis).double()
    exact = q @ basis.T + torch.from_numpy(codec.offset).double()
    single = torch.zeros(len(q), CLASSES)  # float32, one component after another
    for component in order:
        single += q[:, component, None].float() * torch.from_numpy(codec.basis)[:, component]
    assert (single + torch.from_numpy(codec.offset) == exact).all()


_ONCE = {}


def make_once():
    return _ONCE.setdefault("klt", make())


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_matmul_precision_and_autocast_do_not_change_a_bit(codec, precision):
    encoded = codec.encode(realistic_logits(100, CLASSES, seed=5))
    wanted = decoded(codec, encoded)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        assert same_bits(decoded(codec, encoded), wanted)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert same_bits(decoded(codec, encoded), wanted)
            again = codec.encode(realistic_logits(100, CLASSES, seed=5))
    finally:
        torch.set_float32_matmul_precision(before)
    assert all((again.code[name] == rows).all() for name, rows in encoded.code.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_a_gpu_decodes_the_same_bits(codec, precision):
    encoded = codec.encode(realistic_logits(300, CLASSES, seed=6))
    code = {name: rows.cuda() for name, rows in tensors(encoded).items()}
    torch.set_float32_matmul_precision(precision)
    back = codec.decode(code, torch.from_numpy(encoded.norm).cuda()).cpu()
    torch.set_float32_matmul_precision("highest")
    codec.settle()
    assert same_bits(back, decoded(codec, encoded))


def test_products_that_a_gpu_cuts_to_tf32_are_exact(codec):
    """TF32 keeps 11 significant bits: neither the basis nor a code loses any."""
    for values in (codec.basis, np.arange(-2047, 2048, dtype=np.float32)):
        bits = values.view(np.uint32)
        assert (bits & 0x1FFF == 0).all()


def test_a_basis_that_is_off_by_a_little_is_an_error_and_not_noise(codec):
    encoded = codec.encode(realistic_logits(256, CLASSES, seed=7))
    rough = torch.from_numpy(codec.basis).to(torch.bfloat16).float().numpy()
    wrong = replace(codec, basis=np.rint(rough * 2**13).astype("f4") / np.float32(2**13))
    with pytest.raises(DataError, match="decode to other classes"):
        decoded(wrong, encoded)


def test_swapped_codes_are_an_error(codec):
    encoded = codec.encode(realistic_logits(256, CLASSES, seed=8))
    code = tensors(encoded)
    code["code"] = code["code"].roll(1, dims=0)
    with pytest.raises(DataError, match="256 rows"):
        codec.decode(code, torch.from_numpy(encoded.norm))


finite = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1e6, -1e6, 1e-38])


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(CLASSES)), elements=finite))
@settings(deadline=None, max_examples=50)
def test_any_finite_logits_come_back_finite_at_their_norm(logits):
    codec = make_once()
    encoded = codec.encode(logits)
    back = decoded(codec, encoded)
    assert torch.isfinite(back).all()
    np.testing.assert_allclose(
        np.linalg.norm(back.numpy().astype("f8"), axis=1), encoded.norm, rtol=1e-5, atol=1e-37
    )


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e12, 1e30])
def test_rows_beyond_the_exact_range_keep_their_direction(codec, scale):
    logits = realistic_logits(50, CLASSES, seed=9)
    encoded = codec.encode(logits * np.float32(scale))
    assert (encoded.code["guard"] >> 2).max() > 0
    assert np.abs(encoded.code["code"]).max() < 2**11
    back = decoded(codec, encoded).numpy()
    assert one_minus_cosine(logits, (back / scale).astype("f4")).max() < 0.05


def test_rows_beyond_it_do_not_change_their_neighbours(codec):
    logits = realistic_logits(4, CLASSES, seed=10)
    far = np.concatenate([logits[:2], logits[2:3] * np.float32(1e6), logits[3:]])
    back = roundtrip(codec, far)
    assert (back[[0, 1, 3]] == roundtrip(codec, logits)[[0, 1, 3]]).all()


def test_constant_rows_become_zero(codec):
    logits = np.repeat(np.array([[0], [3.5], [-1e6]], np.float32), CLASSES, axis=1)
    assert (roundtrip(codec, logits) == 0).all()


def test_equal_reconstructions_are_ranked_by_class():
    base = torch.zeros(3, 70)
    base[0, 10:60] = 5
    base[1, ::2] = -(2.0**-13)
    base[2, 69] = 1023
    steps = torch.ones(5, dtype=torch.float64)
    ranks = Reconstruction(base, torch.ones(3, dtype=torch.float64), steps).ranks
    assert ranks.tolist() == [[10, 11, 12, 13, 14], [1, 3, 5, 7, 9], [69, 0, 1, 2, 3]]


def test_equal_logits_come_back_the_same_each_time(codec):
    logits = np.zeros((2, CLASSES), np.float32)
    logits[0, 10:60] = 5
    logits[1, 99] = 30
    encoded = codec.encode(logits)
    assert same_bits(decoded(codec, encoded), decoded(codec, encoded))
    assert decoded(codec, encoded)[1].argmax() == 99


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(codec, bad):
    logits = realistic_logits(5, CLASSES)
    logits[3, 7] = bad
    with pytest.raises(NotFiniteError, match="row 3"):
        codec.encode(logits)


@pytest.mark.parametrize("classes", [2, 3, 31, 32, 33, 70])
def test_any_number_of_classes_can_be_fitted(classes):
    codec = make("klt", classes, rows=200)
    assert codec.basis.shape[1] % 32 == 0
    logits = realistic_logits(1, classes, seed=11)
    back = roundtrip(codec, logits)
    assert back.shape == (1, classes)
    norm = np.linalg.norm(centred(logits), axis=1)
    np.testing.assert_allclose(np.linalg.norm(back.astype("f8"), axis=1), norm, rtol=1e-5)


def test_more_classes_than_dimensions_are_fitted_in_the_range_of_the_last_layer():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(400, 16)).astype(np.float32)
    logits = (rng.normal(size=(900, 16)) @ weight.T + rng.normal(size=400)).astype(np.float32)
    whole = fit(parse_codec("klt", 400), [logits], None)
    ranged = fit(parse_codec("klt", 400), [logits], weight)
    more = (rng.normal(size=(100, 16)) @ weight.T).astype(np.float32)
    errors = [one_minus_cosine(more, roundtrip(codec, more)).mean() for codec in (whole, ranged)]
    assert errors[1] == pytest.approx(errors[0], rel=0.1)
    assert ranged.basis.shape == (400, 32)


def test_teachers_without_variance_can_be_stored():
    logits = np.tile(np.arange(40, dtype=np.float32), (50, 1))
    codec = fit(parse_codec("klt", 40), [logits], None)
    np.testing.assert_allclose(roundtrip(codec, logits), centred(logits), atol=0.1)


def test_mean_logits_far_longer_than_the_step_are_refused_with_the_way_out():
    logits = realistic_logits(100, CLASSES) + np.linspace(0, 3000, CLASSES, dtype=np.float32)
    with pytest.raises(InputError, match=r"klt:step=\d"):
        fit(parse_codec("klt", CLASSES), [logits], None)


def test_few_samples_or_classes_fall_back_to_int8_with_a_reason():
    klt = parse_codec("klt", 1000)
    assert resolve(klt, 1000, 8192) == (klt, "")
    assert resolve(klt, 1000, 8191)[0].name == "int8"
    assert "8,192" in resolve(klt, 1000, 8191)[1]
    assert "32 classes" in resolve(klt, 31, 10**6)[1]
    plain = parse_codec("float16", 10)
    assert resolve(plain, 10, 5) == (plain, "")


@pytest.mark.parametrize("text", LEVELS)
def test_settings_and_arrays_lead_back_to_the_codec(codecs, text):
    codec = codecs[text]
    again = complete(from_settings(codec.settings, CLASSES), codec.side)
    assert again.settings == codec.settings
    assert parse_codec(codec.name, CLASSES) == codec.chosen
    logits = realistic_logits(20, CLASSES, seed=12)
    assert (roundtrip(again, logits) == roundtrip(codec, logits)).all()


@pytest.mark.parametrize("text", LEVELS)
def test_codes_have_the_shape_and_type_the_codec_announces(codecs, text):
    encoded = codecs[text].encode(realistic_logits(4, CLASSES))
    assert encoded.code.keys() == codecs[text].arrays.keys()
    for key, spec in codecs[text].arrays.items():
        assert encoded.code[key].shape == (4, *spec.row)
        assert encoded.code[key].dtype == spec.dtype


@pytest.mark.parametrize(
    "text",
    [
        "klt:tiny",
        "klt:step=",
        "klt:step=nan",
        "klt:step=-1",
        "klt:refine=8/3",
        "klt:refine=0/4",
        "klt:refine=300/2",
        "klt:refine=8",
        "klt:lagrange=2",
        "klt:,",
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(text):
    with pytest.raises(InputError, match="klt"):
        parse_codec(text, 1000)


def test_free_settings_start_from_the_default_level():
    assert parse_codec("klt:step=0.5", 1000) == KltSettings(
        0.5, parse_codec("klt", 1000).lagrange, parse_codec("klt", 1000).refine
    )


@pytest.mark.parametrize("name", ["basis", "offset", "threshold"])
def test_damaged_arrays_are_refused(codec, name):
    for value in (np.nan, np.inf, 0.3, 1e9):
        if name == "threshold" and np.isfinite(value):
            continue  # only encoding depends on it
        side = {key: array.copy() for key, array in codec.side.items()}
        side[name].flat[5] = value
        with pytest.raises(DataError, match="klt"):
            complete(codec.chosen, side)
