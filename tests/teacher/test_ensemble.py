"""Several teachers that answer as one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from skd_cache import models
from skd_cache.codec import fit, parse_codec
from skd_cache.errors import InputError
from skd_cache.teacher import Ensemble, Teacher, load_ensemble, preflight_all
from skd_cache.teacher.ensemble import joint
from tests.teacher.conftest import MEAN, STD

DATASET = {"classes": 10, "mean": MEAN, "std": STD, "default_size": 16}


@pytest.fixture
def others(tmp_path):
    """The state_dict of a wrn_16_2 in a file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        torch.save(models.create("wrn_16_2", num_classes=10).state_dict(), tmp_path / "wrn.pt")
    return tmp_path / "wrn.pt"


@pytest.fixture
def pair(weights, others, load):
    """Two teachers of different sizes and normalisations."""
    second = load("wrn_16_2", others, size=24, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    return Ensemble((load("resnet20", weights), second))


def noise(size, count=5):
    generator = torch.Generator().manual_seed(size)
    return torch.randint(256, (count, size, size, 3), generator=generator, dtype=torch.uint8)


def test_the_logits_are_the_mean_of_the_centred_ones(pair):
    small, large = noise(16), noise(24)
    answers = [pair.members[0].logits(small), pair.members[1].logits(large)]
    wanted = sum(a.double() - a.double().mean(1, keepdim=True) for a in answers) / 2
    found = pair.logits(small, large)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted.float())


def test_the_logits_of_a_lone_teacher_are_untouched(weights, images, load):
    teacher = load("resnet20", weights)
    assert torch.equal(Ensemble((teacher,)).logits(images), teacher.logits(images))


def test_teachers_of_one_size_share_their_images(pair):
    second = replace(pair.members[1], size=16)
    both = Ensemble((pair.members[0], second))
    assert both.sizes == (16,)
    assert both.logits(noise(16)).shape == (5, 10)
    assert Ensemble((*pair.members, second)).sizes == (16, 24)


def test_a_constant_of_a_row_does_not_count():
    answers = [torch.randn(4, 10), torch.randn(4, 10)]
    moved = [answers[0] + torch.arange(4)[:, None], answers[1] - 3]
    torch.testing.assert_close(joint(moved), joint(answers), rtol=0, atol=1e-6)


def test_their_order_changes_no_answer(pair):
    swapped = Ensemble(pair.members[::-1])
    assert swapped.sizes == (24, 16)
    torch.testing.assert_close(
        swapped.logits(noise(24), noise(16)), pair.logits(noise(16), noise(24)), rtol=1e-6, atol=0
    )


def test_the_class_weight_spans_what_they_can_say_together(pair):
    weight = pair.class_weight
    assert weight.dtype == np.float32
    assert weight.shape == (10, 64 + 128)
    logits = pair.logits(noise(16), noise(24)).double().numpy()
    differences = logits - logits[0]  # biases are gone
    frame = np.linalg.qr((weight - weight.mean(0)).astype(np.float64))[0]
    np.testing.assert_allclose(differences @ frame @ frame.T, differences, atol=1e-6)


def test_the_class_weight_is_none_where_one_of_them_has_none(pair):
    first = replace(pair.members[0], class_weight=None)
    assert Ensemble((first, pair.members[1])).class_weight is None
    assert Ensemble((first,)).class_weight is None


def test_the_class_weight_of_a_lone_teacher_is_its_own(pair):
    assert Ensemble(pair.members[:1]).class_weight is pair.members[0].class_weight


def test_klt_lies_in_the_range_of_an_ensemble_with_fewer_features_than_classes():
    rng = np.random.default_rng(4)
    weights = [rng.normal(size=(64, width)).astype(np.float32) for width in (8, 12)]
    answers = [torch.from_numpy(rng.normal(size=(500, w.shape[1])).astype("f4") @ w.T * 4)
               for w in weights]  # fmt: skip
    one = Teacher("a", "0" * 64, nn.Identity(), 64, 16, MEAN, STD, "float32", torch.device("cpu"))
    members = tuple(replace(one, class_weight=weight) for weight in weights)
    logits = joint(answers).numpy()
    codec = fit(parse_codec("klt:fine", 64), [logits], Ensemble(members).class_weight)
    assert codec.side["basis"].shape == (64, 32)  # 20 components, filled up
    encoded = codec.encode(logits)
    code = {name: torch.from_numpy(rows) for name, rows in encoded.code.items()}
    found = codec.decode(code, torch.from_numpy(encoded.norm))
    assert torch.cosine_similarity(found, torch.from_numpy(logits)).min() > 0.99


def test_weights_are_chosen_for_each_in_order(weights, others):
    loaded = load_ensemble(["wrn_16_2", "resnet20"], [str(others), str(weights)], **DATASET)
    assert [one.architecture for one in loaded.members] == ["wrn_16_2", "resnet20"]
    default = load_ensemble(["wrn_16_2"], ["default"], **DATASET)
    assert default.members[0].published_dataset == "fashion-mnist"


def test_weights_for_some_of_them_are_refused(weights):
    with pytest.raises(InputError, match="2 --teacher and 1 --teacher-weights"):
        load_ensemble(["resnet20", "wrn_16_2"], [str(weights)], **DATASET)


def test_the_same_teacher_twice_is_refused(weights):
    with pytest.raises(InputError, match=r"resnet20 with the weights .* is 2 of the teachers"):
        load_ensemble(["resnet20"] * 2, [str(weights)] * 2, **DATASET)
    loaded = load_ensemble(["resnet20"] * 2, [str(weights)] * 2, **DATASET | {"size": [16, 24]})
    assert loaded.sizes == (16, 24)


def test_seventeen_teachers_are_refused():
    with pytest.raises(InputError, match="17 teachers are more than the 16"):
        load_ensemble(["resnet20"] * 17, **DATASET)


def test_the_preflight_tells_of_all_together_and_of_each(pair):
    right = replace(pair.members[0], published_top1=0.9, published_dataset="CIFAR-10")
    both = Ensemble((right, pair.members[1]))
    small, large = noise(16, 64), noise(24, 64)
    labels = right.logits(small).argmax(1)
    found = preflight_all(both, [([small, large], labels)])
    together = float((both.logits(small, large).argmax(1) == labels).float().mean())
    assert found[0].top1 == pytest.approx(together)
    assert found[1].top1 == 1.0
    assert str(found[0]).startswith("ensemble of 2 top-1 ")
    assert str(found[1]) == (
        "teacher resnet20 top-1 100.0% on 64 validation images (published: 90.0% on CIFAR-10)"
    )
    assert "teacher wrn_16_2" in found[2].warning
