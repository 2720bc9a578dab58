"""Settings and schedules: plain functions of the step."""

import pytest

from skd_cache.distill.schedules import learning_rate, size_at
from skd_cache.distill.settings import parse_sizes
from skd_cache.errors import InputError
from tests.distill.workshop import make_settings


def test_sizes_are_read_and_hold_from_their_epoch_on():
    assert parse_sizes("224") == ((0, 224),)
    sizes = parse_sizes("128@0,160@30,224@80")
    assert [size_at(sizes, epoch) for epoch in (0, 29, 30, 79, 80, 99)] == [
        *(128, 128, 160, 160, 224, 224),
    ]


@pytest.mark.parametrize("text", ["", "big", "128@5", "128@0,160", "128@0,160@0", "4", "9999999"])
def test_sizes_of_another_form_are_refused(text):
    with pytest.raises(InputError, match="--size"):
        parse_sizes(text)


def test_cosine_climbs_through_the_warm_up_and_falls_to_zero(dataset, cache):
    settings = make_settings(dataset, cache, epochs=10, warmup_epochs=2, lr=0.4)
    rates = [learning_rate(settings, step, 5) for step in range(50)]
    assert rates[:10] == pytest.approx([0.04 * step for step in range(1, 11)])
    assert rates[10] == 0.4
    assert rates[30] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


def test_steps_fall_at_their_milestones(dataset, cache):
    settings = make_settings(dataset, cache, schedule="step", milestones=(2, 3), lr=1.0)
    assert [learning_rate(settings, step, 5) for step in (0, 9, 10, 14, 15, 19)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_what_is_not_chosen_comes_from_the_dataset(dataset, cache):
    settings = make_settings(dataset, cache, epochs=None, size=32)
    assert settings.epochs == 4
    assert settings.eval_resize == 32
    assert settings.view_seed == cache.recipe.seed


def test_a_policy_against_the_cache_s_is_refused(dataset, cache):
    with pytest.raises(InputError, match="another policy"):
        make_settings(dataset, cache, policy="rrc-flip")


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": -1.0}, "lr must be greater than 0"),
        ({"ema": 1.0}, "ema must be between 0 and 1"),
        ({"warmup_epochs": 4}, "fewer than the 4 epochs"),
        ({"losses": ("kid",)}, "No loss is called 'kid'"),
        ({"losses": ()}, "one or more"),
        ({"teacher_fixes": ("swop",)}, "nearest: swap"),
        ({"losses": ("ce",), "teacher_fixes": ("swap",)}, "--loss ce has none"),
        ({"loss_schedules": ("alpha=2@0",)}, "alpha must be a number from 0 to 1"),
        ({"loss_schedules": ("beta=1@0",)}, "has no option 'beta'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(dataset, cache, chosen, complaint):
    with pytest.raises(InputError, match=complaint):
        make_settings(dataset, cache, **chosen)
