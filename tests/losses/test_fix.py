"""Corrections of the teacher in front of a loss."""

import numpy as np
import pytest
import torch

from skd_cache import losses
from skd_cache.batch import LogitBatch, Statistics, judge
from skd_cache.errors import InputError

FIXES = ("swap", "topk:3", "smooth:0.1")


class AsTheyAre:
    def decode(self, code, norm):  # noqa: ARG002
        return code["logits"]


def stored(t):
    norm = np.linalg.norm(t - t.mean(1, keepdims=True), axis=1).astype(np.float32)
    statistics = Statistics.of(norm, judge(t.numpy(), np.zeros(len(t), np.int32)))
    return LogitBatch(torch.tensor(norm), {"logits": t}, AsTheyAre(), statistics)


def draw(seed=0, batch=6, classes=8):
    generator = torch.Generator().manual_seed(seed)
    z, t = (3 * torch.randn(batch, classes, generator=generator) for _ in range(2))
    return z, t, torch.randint(classes, (batch,), generator=generator)


def fixed(text, *fixes):
    return losses.fix_teacher(losses.parse(text), [losses.parse_fix(one) for one in fixes])


def test_swap_exchanges_the_top_logit_and_the_true_one_where_they_differ():
    t = torch.tensor([[1.0, 5.0, 2.0], [4.0, 3.0, 0.0]])
    corrected = losses.parse_fix("swap")(t, torch.tensor([2, 0]))
    assert corrected.tolist() == [[1, 2, 5], [4, 3, 0]]
    assert t.tolist() == [[1, 5, 2], [4, 3, 0]]


def test_swap_makes_the_teacher_right_and_keeps_its_numbers():
    _, t, y = draw(1, batch=50)
    corrected = losses.parse_fix("swap")(t, y)
    assert (corrected.argmax(1) == y).all()
    assert torch.equal(corrected.sort(1).values, t.sort(1).values)


def test_swap_refuses_soft_labels():
    z, t, y = draw()
    with pytest.raises(InputError, match="true class"):
        fixed("kd", "swap")(z, t, torch.nn.functional.one_hot(y, 8).float())


def test_topk_keeps_the_largest_probabilities_and_spreads_the_rest():
    _, t, y = draw(2)
    p, before = losses.parse_fix("topk:3")(t, y).softmax(1), t.softmax(1)
    top = before.topk(3).indices
    torch.testing.assert_close(p.gather(1, top), before.gather(1, top))
    others = p.scatter(1, top, torch.nan)
    others = others[~others.isnan()].view(6, 5)
    torch.testing.assert_close(others, others[:, :1].expand(6, 5))


def test_topk_of_all_classes_changes_nothing():
    _, t, y = draw(2)
    torch.testing.assert_close(losses.parse_fix("topk:99")(t, y).softmax(1), t.softmax(1))


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.9])
def test_smooth_mixes_the_probabilities_with_the_uniform_ones(epsilon):
    _, t, y = draw(3)
    p = losses.parse_fix(f"smooth:{epsilon}")(t, y).softmax(1)
    torch.testing.assert_close(p, (1 - epsilon) * t.softmax(1) + epsilon / 8)


@pytest.mark.parametrize("fix", FIXES)
@pytest.mark.parametrize("size", [1e4, 0.0])
def test_corrected_logits_are_finite(fix, size):
    _, t, y = draw(4)
    assert torch.isfinite(losses.parse_fix(fix)(size * t, y)).all()


@pytest.mark.parametrize("fix", FIXES)
@pytest.mark.parametrize("text", ["kd", "spherical:scale=2", "spherical:scale=sample", "dkd"])
def test_a_loss_sees_the_corrected_teacher(text, fix):
    z, t, y = draw(5)
    expected = losses.parse(text)(z, losses.parse_fix(fix)(t, y), y)
    torch.testing.assert_close(fixed(text, fix)(z, t, y), expected)
    torch.testing.assert_close(fixed(text, fix)(z, stored(t), y), expected)


def test_corrections_follow_each_other_in_order():
    z, t, y = draw(6)
    swapped = losses.parse_fix("swap")(t, y)
    expected = losses.make("kd")(z, losses.parse_fix("smooth:0.2")(swapped, y), y)
    torch.testing.assert_close(fixed("kd", "swap", "smooth:0.2")(z, t, y), expected)


@pytest.mark.parametrize("text", ["spherical", "ls"])
def test_the_statistics_of_the_cache_stay_as_they_are(text):
    z, t, y = draw(7)
    teacher = stored(t)
    corrected = fixed(text, "swap").corrected(teacher, y)
    assert corrected.statistics is teacher.statistics
    assert torch.isfinite(fixed(text, "swap")(z, teacher, y))


@pytest.mark.parametrize("fix", FIXES)
def test_dynamo_sees_one_graph_through_a_correction(fix):
    z, t, y = draw(8)
    loss = fixed("spherical", fix)
    torch.compiler.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(z, stored(t), y), loss(z, stored(t), y))


def test_a_schedule_reaches_a_loss_behind_a_correction():
    loss = fixed("kd", "swap")
    schedule = losses.parse_schedule("alpha=0.5@0")
    schedule.check(loss)
    schedule.apply(loss, 0)
    assert loss.loss.alpha == 0.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("swop", "nearest: swap"),
        ("swap:1", "not of the form"),
        ("top:5", "nearest: topk"),
        ("banana", "there are: swap, topk, smooth"),
        ("topk", "whole number"),
        ("topk:0", "whole number"),
        ("topk:1.5", "whole number"),
        ("smooth", "smooth needs"),
        ("smooth:1", "smooth needs"),
        ("smooth:-0.1", "smooth needs"),
        ("smooth:nan", "smooth needs"),
    ],
)
def test_a_correction_that_cannot_be_read_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        losses.parse_fix(text)


def test_a_loss_without_a_teacher_has_nothing_to_correct():
    with pytest.raises(InputError, match="--loss ce has none"):
        fixed("ce", "swap")
