"""The losses against their formulas, and what must hold for all of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from skd_cache import losses
from skd_cache.batch import LogitBatch, Statistics, judge
from skd_cache.errors import InputError

# A teacher's last layer, for the loss that looks at it.
WEIGHTS = {
    classes: torch.randn(classes, 7, generator=torch.Generator().manual_seed(classes))
    for classes in (2, 3, 5, 10, 100, 1000)
}

# Every loss as a plain tensor may be its teacher.
TEXTS = [
    "ce",
    "ce:smoothing=0.1",
    "kd",
    "kd:temperature=1,alpha=0.5",
    "spherical:scale=2.5",
    "spherical:scale=12,unit=norm,temperature=2",
    "spherical:scale=sample",
    "dist",
    "dist:tau=4,beta=1,gamma=3",
    "dkd",
    "dkd:temperature=1,alpha=2,beta=0.5",
    "logit-std",
    "logit-std:temperature=3,alpha=0.5,weight=2",
    "logit-std:base=dkd",
    "nkd",
    "nkd:temperature=3,gamma=3.5",
    "ttm",
    "ttm:temperature=0.7,beta=2",
    "wttm",
    "wttm:temperature=4,beta=0.5",
    "soft-ce",
    "soft-ce:k=1",
    "soft-ce:k=3,tail=renormalised",
    "ls:smoothing=0.2",
    "kd-pt",
    "kd-pt:temperature=3,alpha=0.4",
    "kd-sim:tau=0.3",
    "kd-sim:tau=2,temperature=2,alpha=0.4",
    "kd-topk",
    "kd-topk:k=1,temperature=2,alpha=0.4",
]
CACHED_TEXTS = [*TEXTS, "spherical", "ls", "kd-sim"]  # those that look at a cache's statistics, too
WITH_TRUE_CLASS = ("dkd", "logit-std:base=dkd", "nkd", "kd-pt", "kd-sim")
TEACHER_TEXTS = [text for text in TEXTS if not text.startswith(("ce", "ls"))]
SOFT_TEXTS = [text for text in TEXTS if not text.startswith(WITH_TRUE_CLASS)]
MATCHING = [  # whose minimum is the teacher itself
    text for text in TEXTS if text.startswith(("kd:", "spherical", "dist", "dkd", "logit-std"))
]


def build(text, classes=10):
    loss = losses.parse(text)
    losses.give_class_weight(loss, WEIGHTS[classes])
    return loss


class AsTheyAre:
    """The decoder of a cache that stores logits as they are."""

    def decode(self, code, norm):  # noqa: ARG002
        return code["logits"]


def stored(logits):
    """The logits as a cache gives them back."""
    rows = logits.numpy().astype(np.float32)
    norm = np.linalg.norm(rows - rows.mean(1, keepdims=True), axis=1)
    statistics = Statistics.of(norm, judge(rows, np.zeros(len(rows), np.int32)))
    return LogitBatch(torch.tensor(norm), {"logits": torch.tensor(rows)}, AsTheyAre(), statistics)


def draw(seed=0, batch=6, classes=10, spread=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    z, t = (
        spread * torch.randn(batch, classes, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    labels = torch.randint(classes, (batch,), generator=generator)
    return z.to(dtype), t.to(dtype), labels


def gradient(loss, z, t, labels):
    z = z.clone().requires_grad_()
    value = loss(z, t, labels)
    (slope,) = torch.autograd.grad(value, z)
    return value.detach(), slope


# The formulas once more, in numpy and float64.


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy(z, y):
    return -np.mean(np.log(softmax(z)[np.arange(len(y)), y]))


def kl(p, q):
    return np.mean(np.sum(p * np.log(p / q), axis=1))


def kd(z, t, y, temperature=4.0, alpha=0.9):
    soft = kl(softmax(t / temperature), softmax(z / temperature))
    return (1 - alpha) * cross_entropy(z, y) + alpha * temperature**2 * soft


def sphere(x):
    x = x - x.mean(1, keepdims=True)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def spherical(z, t, y, m, temperature=4.0, alpha=0.9):
    return kd(m * sphere(z), m * sphere(t), y, temperature, alpha)


def dist(z, t, y, tau=1.0, beta=2.0, gamma=2.0):
    p, q = softmax(z / tau), softmax(t / tau)
    inter = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return cross_entropy(z, y) + tau**2 * (beta * inter + gamma * intra)


def test_ce_is_the_mean_negative_log_probability_of_the_label():
    z, _, y = draw()
    value = losses.make("ce")(z, None, y)
    assert value.item() == pytest.approx(cross_entropy(z.numpy(), y.numpy()), rel=1e-12)


def test_ce_smoothing_mixes_the_label_with_the_uniform_distribution():
    z, _, y = draw()
    soft = 0.9 * F.one_hot(y, 10).double() + 0.1 / 10
    value = losses.make("ce", smoothing=0.1)(z, None, y)
    torch.testing.assert_close(value, losses.make("ce")(z, None, soft))


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "alpha": 0.5}])
def test_kd_is_its_formula(options):
    z, t, y = draw(1)
    expected = kd(z.numpy(), t.numpy(), y.numpy(), **options)
    assert losses.make("kd", **options)(z, t, y).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"tau": 4.0, "beta": 1.0, "gamma": 3.0}])
def test_dist_is_its_formula(options):
    z, t, y = draw(2)
    expected = dist(z.numpy(), t.numpy(), y.numpy(), **options)
    assert losses.make("dist", **options)(z, t, y).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "norm"),
    [
        ({"scale": 2.5}, 2.5 * math.sqrt(10)),
        ({"scale": 2.5, "unit": "std", "alpha": 0.5}, 2.5 * math.sqrt(10)),
        ({"scale": 7.0, "unit": "norm", "temperature": 2.0}, 7.0),
    ],
)
def test_spherical_with_a_number_is_its_formula(options, norm):
    z, t, y = draw(3)
    rest = {key: value for key, value in options.items() if key in ("alpha", "temperature")}
    expected = spherical(z.numpy(), t.numpy(), y.numpy(), norm, **rest)
    value = losses.make("spherical", **options)(z, t, y).item()
    assert value == pytest.approx(expected, rel=1e-12)


def test_spherical_std_scale_gives_rows_of_that_population_standard_deviation():
    z, t, _ = draw(3)
    m = losses.make("spherical", scale=2.5).multiplier(t, z)
    assert np.std(m * sphere(z.numpy()), axis=1) == pytest.approx(2.5, rel=1e-12)


def test_spherical_sample_leaves_the_teacher_as_it_is():
    z, t, y = draw(4)
    norms = np.linalg.norm(t - t.mean(1, keepdim=True), axis=1)[:, None]
    expected = kd(norms * sphere(z.numpy()), t.numpy(), y.numpy())
    value = losses.make("spherical", scale="sample")(z, t, y).item()
    assert value == pytest.approx(expected, rel=1e-12)


def test_spherical_mean_uses_the_mean_norm_of_the_whole_cache():
    z, t, y = draw(5)
    _, others, _ = draw(6, batch=50, spread=8.0)
    batch = stored(t)
    batch = LogitBatch(batch.norm, batch.code, batch.decoder, stored(others).statistics)
    norm = np.linalg.norm(others - others.mean(1, keepdim=True), axis=1).mean()
    expected = spherical(z.numpy(), t.numpy(), y.numpy(), norm)
    assert losses.make("spherical")(z, batch, y).item() == pytest.approx(expected, rel=1e-6)


def test_spherical_mean_refuses_a_plain_tensor_and_says_what_to_give():
    z, t, y = draw()
    with pytest.raises(InputError, match="give a number as scale"):
        losses.make("spherical")(z, t, y)


def test_spherical_mean_refuses_statistics_of_nothing():
    z, t, y = draw()
    batch = stored(t)
    empty = LogitBatch(batch.norm, batch.code, batch.decoder)
    with pytest.raises(InputError, match="statistics"):
        losses.make("spherical")(z, empty, y)


@pytest.mark.parametrize("text", TEACHER_TEXTS)
def test_a_stored_teacher_and_its_logits_give_the_same(text):
    z, t, y = draw(7, dtype=torch.float32)
    torch.testing.assert_close(build(text)(z, stored(t), y), build(text)(z, t, y))


@pytest.mark.parametrize("text", TEACHER_TEXTS)
def test_a_loss_that_needs_a_teacher_says_so(text):
    z, _, y = draw()
    with pytest.raises(InputError, match="teacher"):
        build(text)(z, None, y)


@pytest.mark.parametrize("text", TEXTS)
def test_gradcheck(text):
    z, t, y = draw(8, batch=4, classes=5)
    loss = build(text, 5)
    assert torch.autograd.gradcheck(lambda x: loss(x, t, y), z.requires_grad_())


@pytest.mark.parametrize("text", TEXTS)
def test_float32_gradient_is_that_of_float64(text):
    z, t, y = draw(9, batch=32, classes=100)
    _, exact = gradient(build(text, 100), z, t, y)
    _, ours = gradient(build(text, 100), z.float(), t.float(), y)
    assert torch.linalg.norm(ours - exact) <= 1e-6 * torch.linalg.norm(exact)


@pytest.mark.parametrize("text", TEXTS)
def test_no_gradient_reaches_the_teacher(text):
    z, t, y = draw()
    t.requires_grad_()
    build(text)(z.requires_grad_(), t, y).backward()
    assert t.grad is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("text", TEXTS)
def test_arithmetic_is_float32_under_autocast_and_for_half_inputs(text, dtype):
    z, t, y = draw(10, dtype=dtype)
    loss = build(text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(z, t, y)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(z.float(), t.float(), y), rtol=1e-6, atol=0)


@pytest.mark.parametrize("text", SOFT_TEXTS)
def test_soft_labels_of_one_class_are_hard_labels(text):
    z, t, y = draw(11)
    hard = build(text)(z, t, y)
    torch.testing.assert_close(build(text)(z, t, F.one_hot(y, 10).double()), hard)


@pytest.mark.parametrize("text", sorted(set(TEXTS) - set(SOFT_TEXTS)))
def test_soft_labels_are_refused_where_one_class_must_be_the_true_one(text):
    z, t, y = draw(11)
    loss = build(text)
    for one in (loss, losses.combine([loss, losses.make("ce")])):
        with pytest.raises(InputError, match="true class of every sample"):
            one(z, t, F.one_hot(y, 10).double())


@pytest.mark.parametrize("text", ["kd", "ttm", "soft-ce", "ls:smoothing=0.2", "kd-topk"])
def test_soft_labels_count_in_proportion(text):
    z, t, y = draw(11)
    other, loss = (y + 1) % 10, build(text)
    mixed = 0.3 * F.one_hot(y, 10).double() + 0.7 * F.one_hot(other, 10).double()
    expected = 0.3 * loss(z, t, y) + 0.7 * loss(z, t, other)
    torch.testing.assert_close(loss(z, t, mixed), expected)


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (((0, 5), (0, 5), (0,)), "Student logits must be"),
        (((4,), (4,), (4,)), "Student logits must be"),
        (((4, 5), (1, 5), (4,)), "Teacher logits must be"),
        (((4, 5), (4, 6), (4,)), "Teacher logits must be"),
        (((4, 5), (4, 5), (1,)), "Labels must be"),
        (((4, 5), (4, 5), (4, 1)), "Labels must be"),
    ],
)
def test_what_is_not_of_the_same_samples_and_classes_is_refused(shapes, says):
    z, t, y = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(InputError, match=says):
        losses.make("kd")(z, t, y.long())


def test_a_stored_teacher_of_other_samples_is_refused():
    z, t, y = draw()
    with pytest.raises(InputError, match="speaks of 5 samples, not 6"):
        losses.make("kd")(z, stored(t[:5]), y)


def test_kd_sim_says_what_it_lacks():
    z, t, y = draw()
    with pytest.raises(InputError, match="last-layer weights"):
        losses.make("kd-sim", tau=0.1)(z, t, y)
    with pytest.raises(InputError, match="this cache has none"):
        losses.give_class_weight(losses.make("kd-sim"), None)
    with pytest.raises(InputError, match="100 classes, the logits have 10"):
        build("kd-sim:tau=0.1", 100)(z, t, y)
    with pytest.raises(InputError, match="give a number as tau"):
        build("kd-sim")(z, t, y)


def test_ls_needs_a_cache_or_a_number():
    z, t, y = draw()
    with pytest.raises(InputError, match="give a number as smoothing"):
        losses.make("ls")(z, t, y)


def test_ls_is_label_smoothing_by_what_the_teacher_leaves():
    z, t, y = draw()
    teacher = stored(t)
    epsilon = 1 - teacher.statistics.mean_true_confidence
    expected = F.cross_entropy(z, y, label_smoothing=epsilon)
    torch.testing.assert_close(losses.make("ls")(z, teacher, y), expected)


@pytest.mark.parametrize(
    "text", ["ttm:temperature=1", "wttm:temperature=1", "soft-ce", "kd-topk:k=10,temperature=2"]
)
def test_a_student_that_is_the_teacher_gets_no_pull_from_it(text):
    z, _, y = draw(12)
    _, slope = gradient(build(text).teacher_term, z, z, y)
    assert slope.abs().max() < 1e-13


def test_nkd_pulls_among_the_others_only_until_they_are_the_teachers():
    z, _, y = draw(12)
    far = z.scatter_add(1, y[:, None], torch.ones(6, 1, dtype=z.dtype))  # another target logit
    calm = losses.make("nkd", temperature=2.0)
    _, slope = gradient(lambda *one: calm.terms(*one)[1], far, z, y)
    _, target = gradient(losses.make("nkd", temperature=2.0, gamma=0).teacher_term, far, z, y)
    torch.testing.assert_close(slope, target)


@pytest.mark.parametrize("text", MATCHING)
def test_equal_inputs_give_a_zero_teacher_term(text):
    z, _, y = draw(12)
    value, slope = gradient(build(text).teacher_term, z, z, y)
    assert abs(value) < 1e-13
    assert slope.abs().max() < 1e-13


numbers = st.floats(-50, 50, allow_nan=False)


@pytest.mark.parametrize("text", TEXTS)
@given(shift_z=numbers, shift_t=numbers, seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_a_constant_added_to_any_row_changes_nothing(text, shift_z, shift_t, seed):
    z, t, y = draw(seed)
    shifts_z, shifts_t = torch.zeros(2, 6, 1, dtype=torch.float64)
    shifts_z[seed % 6], shifts_t[(seed + 1) % 6] = shift_z, shift_t
    loss = build(text)
    before, slope_before = gradient(loss, z, t, y)
    after, slope_after = gradient(loss, z + shifts_z, t + shifts_t, y)
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope_after, slope_before, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("text", [text for text in TEXTS if not text.startswith("kd-sim")])
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_classes_and_of_the_samples_does_not_matter(text, seed):
    z, t, y = draw(seed)
    generator = torch.Generator().manual_seed(seed)
    classes, rows = torch.randperm(10, generator=generator), torch.randperm(6, generator=generator)
    loss = build(text)
    before, slope_before = gradient(loss, z, t, y)
    moved = classes.argsort()[y]
    after, slope_after = gradient(loss, z[:, classes][rows], t[:, classes][rows], moved[rows])
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope_after, slope_before[:, classes][rows], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("base", ["kd", "dkd"])
@given(power=st.floats(-1, 3), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_logit_std_ignores_the_size_of_both_sides(base, power, seed):
    z, t, y = draw(seed)
    loss = losses.make("logit-std", base=base)
    before = loss.teacher_term(z, t, y)
    for scaled_z, scaled_t in ((10**power * z, t), (z, 10**power * t)):
        # 1e-7 is added to the deviation: that much depends on the size.
        after = loss.teacher_term(scaled_z, scaled_t, y)
        torch.testing.assert_close(after, before, rtol=1e-5, atol=0)


@given(power=st.floats(-3, 3), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_spherical_at_a_number_ignores_the_size_of_both_sides(power, seed):
    z, t, y = draw(seed)
    factor = 10.0**power
    loss = losses.make("spherical", scale=2.0)
    before, slope_before = gradient(loss, z, t, y)
    for scaled_z, scaled_t in ((factor * z, t), (z, factor * t)):
        after, slope_after = gradient(loss, scaled_z, scaled_t, y)
        torch.testing.assert_close(after, before, rtol=1e-10, atol=0)
        cosine = F.cosine_similarity(slope_after.flatten(), slope_before.flatten(), dim=0)
        assert cosine.item() == pytest.approx(1, abs=1e-10)


@given(power=st.floats(-3, 3), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_spherical_sample_ignores_the_size_of_the_student_only(power, seed):
    z, t, y = draw(seed)
    factor = 10.0**power
    loss = losses.make("spherical", scale="sample")
    before = loss(z, t, y)
    torch.testing.assert_close(loss(factor * z, t, y), before, rtol=1e-10, atol=0)
    if abs(power) > 0.1:
        assert abs(loss(z, factor * t, y) - before) > 1e-3 * before


def test_rows_without_direction_get_no_gradient_from_the_z_score():
    _, t, y = draw(14)
    flat = torch.full((6, 10), 0.1, dtype=torch.float32)
    for base in ("kd", "dkd"):
        _, slope = gradient(losses.make("logit-std", base=base).teacher_term, flat, t, y)
        assert (slope == 0).all()


HOSTILE = {
    "one dominant class": lambda g: (
        torch.randn(4, 10, generator=g) + 60 * F.one_hot(torch.arange(4), 10)
    ),
    "huge": lambda g: 1e4 * torch.randn(4, 10, generator=g),
    "opposed": lambda g: 1e4 * (2 * torch.randint(2, (4, 10), generator=g) - 1.0),
    "one-hot": lambda g: 1e4 * F.one_hot(torch.randint(10, (4,), generator=g), 10).float(),
    "equal": lambda g: torch.randn(4, 1, generator=g).expand(4, 10),
    "equal and large": lambda g: 1e4 * torch.rand(4, 1, generator=g).expand(4, 10),
    "zero": lambda _: torch.zeros(4, 10),
    "tiny": lambda g: 1e-30 * torch.randn(4, 10, generator=g),
    "two classes": lambda g: torch.randn(4, 2, generator=g),
    "one sample": lambda g: torch.randn(1, 10, generator=g),
    "one sample, two classes": lambda g: 1e4 * torch.randn(1, 2, generator=g),
    "many classes": lambda g: 30 * torch.randn(4, 1000, generator=g),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("text", CACHED_TEXTS)
def test_hostile_logits_give_finite_loss_and_gradient(text, kind):
    generator = torch.Generator().manual_seed(13)
    hostile = HOSTILE[kind](generator)
    harmless = torch.randn(hostile.shape, generator=generator)
    labels = torch.randint(hostile.shape[1], (len(hostile),), generator=generator)
    for z, t in ((hostile, hostile), (hostile, harmless), (harmless, hostile)):
        value, slope = gradient(build(text, hostile.shape[1]), z, stored(t), labels)
        assert torch.isfinite(value)
        assert torch.isfinite(slope).all()


def test_rows_without_direction_get_no_gradient_from_the_sphere():
    _, t, y = draw(14)
    flat = torch.full((6, 10), 0.1, dtype=torch.float32)
    _, slope = gradient(losses.make("spherical", scale=2.0), flat, t, y)
    assert (slope == 0).all()


def test_dist_with_one_sample_has_no_intra_class_term():
    z, t, y = draw(15, batch=1)
    with_intra = losses.make("dist", gamma=5.0)(z, t, y)
    torch.testing.assert_close(with_intra, losses.make("dist", gamma=0.0)(z, t, y))


@pytest.mark.parametrize(
    "text", ["kd", "spherical", "dist", "logit-std:base=dkd", "nkd", "kd-topk"]
)
def test_dynamo_sees_one_graph_of_every_shape(text):
    torch.compiler.reset()
    loss = build(text)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for batch, classes in ((6, 10), (3, 7), (1, 2), (5, 100)):
        z, t, y = draw(16, batch, classes, dtype=torch.float32)
        value, slope = gradient(compiled, z, stored(t), y)
        expected, expected_slope = gradient(loss, z, stored(t), y)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(slope, expected_slope)


@pytest.mark.parametrize("text", CACHED_TEXTS)
def test_dynamo_sees_one_graph(text):
    z, t, y = draw(16, dtype=torch.float32)
    teacher = stored(t)
    loss = build(text)
    torch.compiler.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    value, slope = gradient(compiled, z, teacher, y)
    expected, expected_slope = gradient(loss, z, teacher, y)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(slope, expected_slope)
