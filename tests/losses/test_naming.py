"""Losses and schedules as the command line writes them."""

import re

import pytest
import torch

from skd_cache import losses
from skd_cache.errors import InputError


def test_names_are_those_that_make_knows():
    assert losses.names() == [
        *("ce", "kd", "spherical", "dist", "dkd", "logit-std", "nkd", "ttm", "wttm", "soft-ce"),
        *("ls", "kd-pt", "kd-sim", "kd-topk"),
    ]
    for name in losses.names():
        assert losses.make(name).name == name


def test_a_name_alone_takes_the_published_defaults():
    kd, dist = losses.parse("kd"), losses.parse("dist")
    assert (kd.temperature, kd.alpha, kd.weight) == (4, 0.9, 1)
    assert (dist.beta, dist.gamma, dist.tau) == (2, 2, 1)
    assert losses.parse("spherical").scale == "mean"


def test_options_follow_a_colon():
    loss = losses.parse("spherical:temperature=2, scale=2.5,unit=std")
    assert (loss.temperature, loss.scale, loss.unit, loss.alpha) == (2, 2.5, "std", 0.9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kdd", "nearest: kd"),
        ("sperical", "nearest: spherical"),
        ("banana", "there are: ce, kd, spherical, dist"),
        ("dkdd", "nearest: dkd"),
        ("logit-standard", "nearest: logit-std"),
        ("soft_ce", "nearest: soft-ce"),
        ("kd-top", "nearest: kd-topk"),
        ("dkd:bet=2", "nearest: beta"),
        ("logit-std:base=dist", "base must be kd or dkd, not 'dist'"),
        ("logit-std:alpha=9", "alpha must be a number from 0 to 1, not 9"),
        ("soft-ce:k=0", "k must be a whole number from 1 on, not '0.0'"),
        ("soft-ce:k=2.5", "k must be a whole number"),
        ("soft-ce:k=many", "k must be a whole number"),
        ("soft-ce:k=5,tail=cut", "tail must be spread or renormalised, not 'cut'"),
        ("ls:smoothing=average", "smoothing must be mean or a number from 0 to 1, not 'average'"),
        ("kd-sim:tau=0", "tau must be confidence or a number from 0.001"),
        ("kd-sim:class_weight=3", "a matrix [C, D] of finite numbers"),
        ("kd:temprature=4", "nearest: temperature"),
        ("kd:T=4", "there are: temperature, alpha, weight"),
        ("kd:alpha=high", "alpha must be a number from 0 to 1, not 'high'"),
        ("kd:alpha=1.5", "alpha must be a number from 0 to 1, not 1.5"),
        ("kd:alpha=nan", "not 'nan'"),
        ("kd:temperature=0", "temperature must be a number from 0.01"),
        ("kd:temperature=inf", "not 'inf'"),
        ("kd:alpha", "NAME"),
        ("kd:", "NAME"),
        ("kd:alpha=0.5,alpha=0.6", "each key once"),
        ("spherical:scale=average", "scale must be mean, sample or a number"),
        ("spherical:scale=-2", "scale must be mean, sample or a number"),
        ("spherical:unit=deviation", "unit must be std or norm, not 'deviation'"),
        ("spherical:unit=2", "unit must be std or norm"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_sentence(text, says):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        losses.parse(text)
    assert "\n" not in str(caught.value)


def test_weight_multiplies_the_teacher_term_only():
    z, t, y = torch.randn(4, 5), torch.randn(4, 5), torch.arange(4)
    once, thrice = losses.make("dist"), losses.make("dist", weight=3)
    teacher_term = once.teacher_term(z, t, y)
    torch.testing.assert_close(thrice(z, t, y), once(z, t, y) + 2 * teacher_term)


def test_one_loss_stays_itself():
    loss = losses.make("kd")
    assert losses.combine([loss]) is loss


def test_teacher_terms_add_up_and_ce_counts_once():
    z, t, y = torch.randn(4, 5), torch.randn(4, 5), torch.arange(4)
    kd, dist, ce = (losses.parse(text) for text in ("kd:weight=2", "dist", "ce:smoothing=0.1"))
    terms = 2 * kd.teacher_term(z, t, y) + dist.teacher_term(z, t, y)
    torch.testing.assert_close(losses.combine([kd, dist])(z, t, y), kd.label_term(z, t, y) + terms)
    torch.testing.assert_close(losses.combine([kd, ce, dist])(z, t, y), ce(z, None, y) + terms)


def test_the_label_term_is_that_of_the_first_loss_which_has_one():
    z, t, y = torch.randn(4, 5), torch.randn(4, 5), torch.arange(4)
    soft, kd = losses.make("soft-ce"), losses.make("kd")
    expected = kd(z, t, y) + soft.teacher_term(z, t, y)
    torch.testing.assert_close(losses.combine([soft, kd])(z, t, y), expected)
    expected = 2 * soft.teacher_term(z, t, y)
    torch.testing.assert_close(losses.combine([soft, soft])(z, t, y), expected)


def test_defaults_are_the_published_ones():
    dkd, nkd, wttm = (losses.make(name) for name in ("dkd", "nkd", "wttm"))
    assert (dkd.temperature, dkd.alpha, dkd.beta) == (4, 1, 8)
    assert (nkd.temperature, nkd.gamma) == (1, 1.5)
    assert (1 / wttm.temperature, wttm.beta) == (0.8, 1.6)
    for base, alpha in (("kd", 0.9), ("dkd", 1.0)):
        loss = losses.make("logit-std", base=base)
        assert (loss.temperature, loss.alpha, loss.weight) == (2, alpha, 9)


def test_a_loss_shows_its_options():
    shown = repr(losses.parse("spherical:scale=sample"))
    assert "temperature=4, alpha=0.9, scale=sample, unit=std, weight=1" in shown
    assert "tau=confidence" in repr(losses.make("kd-sim"))


def test_a_combination_needs_a_teacher_when_one_of_its_losses_does():
    assert losses.combine([losses.make("ce"), losses.make("kd")]).needs_teacher
    assert not losses.make("ce").needs_teacher


def test_half_logits_are_combined_in_float32():
    z, t, y = torch.randn(4, 5).half(), torch.randn(4, 5), torch.arange(4)
    assert losses.combine([losses.make("kd"), losses.make("dist")])(z, t, y).dtype == torch.float32


def test_a_schedule_holds_each_value_from_its_epoch_on():
    schedule = losses.parse_schedule("alpha=0.9@0,0.5@60,0.1@80")
    assert [schedule.at(epoch) for epoch in (0, 59, 60, 79, 80, 500)] == [
        *(0.9, 0.9, 0.5, 0.5, 0.1, 0.1)
    ]


def test_a_schedule_sets_the_option_of_every_loss_that_has_it():
    kd, spherical, dist = (losses.make(name) for name in ("kd", "spherical", "dist"))
    combined = losses.combine([kd, dist, spherical])
    schedule = losses.parse_schedule("alpha=0.9@0,0.25@3")
    schedule.check(combined)
    schedule.apply(combined, 3)
    assert (kd.alpha, spherical.alpha) == (0.25, 0.25)
    assert not hasattr(dist, "alpha")


def test_a_scheduled_value_reaches_a_compiled_loss():
    z, t, y = torch.randn(4, 5), torch.randn(4, 5), torch.arange(4)
    loss = losses.make("kd")
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    schedule = losses.parse_schedule("alpha=0.9@0,0.5@1,0.1@2")
    for epoch in range(3):
        schedule.apply(loss, epoch)
        expected = losses.make("kd", alpha=schedule.at(epoch))(z, t, y)
        torch.testing.assert_close(compiled(z, t, y), expected)


def test_two_dots_climb_evenly_to_the_next_value():
    schedule = losses.parse_schedule("weight=0.05@0..1@19,0.5@30")
    warm_up = [schedule.at(epoch) for epoch in range(20)]
    assert warm_up == pytest.approx([min((epoch + 1) / 20, 1) for epoch in range(20)])
    assert [schedule.at(epoch) for epoch in (20, 29, 30, 99)] == [1, 1, 0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("weight=0@0..", "not of the form"),
        ("weight=0@0..1@0", "ascend"),
        ("alpha", "not of the form"),
        ("alpha=0.9", "not of the form"),
        ("=0.9@0", "not of the form"),
        ("alpha=0.9@0,", "not of the form"),
        ("alpha=x@0", "not of the form"),
        ("alpha=0.9@1.5", "not of the form"),
        ("alpha=0.9@10", "start at 0"),
        ("alpha=0.9@0,0.5@60,0.1@40", "ascend"),
        ("alpha=0.9@0,0.5@0", "ascend"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        losses.parse_schedule(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alfa=0.9@0", r"'kd' has no option 'alfa' \(it has: alpha\)"),
        ("beta=2@0", r"it has: alpha, temperature, weight"),
        ("alpha=0.9@0,1.2@5", "alpha must be a number from 0 to 1, not 1.2"),
        ("alpha=nan@0", "alpha must be a number"),
    ],
)
def test_a_schedule_the_loss_cannot_follow_is_refused_at_the_start(text, says):
    with pytest.raises(InputError, match=says):
        losses.parse_schedule(text).check(losses.make("kd"))
