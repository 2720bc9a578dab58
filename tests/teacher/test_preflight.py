"""A look at the teacher's accuracy before it labels everything."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from skd_cache.errors import InputError
from skd_cache.teacher import Teacher, preflight


@pytest.fixture
def teacher():
    """A linear map of the pixels, which answers differently from image to image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 10, bias=False))
    grey = (0.5, 0.5, 0.5)
    return Teacher("linear", "0" * 64, model, 10, 16, grey, grey, "float32", torch.device("cpu"))


def batches(teacher, right, count=400, size=64):
    """Noise with labels of which the given share is what the teacher says."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (count, 16, 16, 3), generator=generator, dtype=torch.uint8)
    labels = teacher.logits(images).argmax(1).numpy().astype(np.int32)
    labels[round(right * count) :] += 1
    labels %= teacher.classes
    for start in range(0, count, size):
        yield images[start : start + size], labels[start : start + size]


def test_it_counts_the_answers_that_are_the_label(teacher):
    found = preflight(teacher, batches(teacher, 0.75))
    assert (found.top1, found.samples, found.warning) == (0.75, 400, None)
    assert str(found) == "teacher top-1 75.0% on 400 validation images (no published figure)"


def test_labels_may_be_tensors(teacher):
    pairs = ((images, torch.tensor(labels)) for images, labels in batches(teacher, 0.5))
    assert preflight(teacher, pairs).top1 == 0.5


@pytest.mark.parametrize(("right", "warns"), [(0.75, False), (0.70, False), (0.5, True), (1, True)])
def test_it_warns_when_far_from_the_published_figure(teacher, right, warns):
    known = replace(teacher, published_top1=0.76, published_dataset="ImageNet-1K")
    found = preflight(known, batches(teacher, right))
    assert bool(found.warning) == warns
    assert "(published: 76.0% on ImageNet-1K)" in str(found)


def test_the_warning_names_the_suspects(teacher):
    found = preflight(replace(teacher, published_top1=0.76), batches(teacher, 0.3))
    assert "30.0% is far from the published 76.0%" in found.warning
    assert "normalisation, the order of the classes, the resizing" in found.warning


def test_a_few_images_prove_little(teacher):
    known = replace(teacher, published_top1=0.76)
    assert preflight(known, batches(teacher, 0.6, count=20)).warning is None


def test_many_images_still_allow_two_points(teacher):
    known = replace(teacher, published_top1=0.999)
    assert preflight(known, batches(teacher, 0.985)).warning is None


def test_without_a_published_figure_it_warns_of_guessing(teacher):
    assert "no better than guessing" in preflight(teacher, batches(teacher, 0.1)).warning


def test_a_broken_normalisation_is_noticed(teacher):
    right = replace(teacher, published_top1=0.95)
    wrong = replace(right, mean=(1.0, 0.5, 0.0), std=(0.1, 0.5, 3.0))
    assert preflight(right, batches(teacher, 0.95)).warning is None
    assert "normalisation" in preflight(wrong, batches(teacher, 0.95)).warning


def test_an_empty_validation_set_is_refused(teacher):
    with pytest.raises(InputError, match="empty"):
        preflight(teacher, [])
