"""Teachers of several sizes see the same views."""

import numpy as np
import torch
from torch.nn import functional as F

from skd_cache.build import build_units, fit_codec
from skd_cache.codec import fit
from skd_cache.store import Recipe, create_cache
from tests.distill.workshop import PIXELS, POLICY, Silence, ToyTeacher, make_cache, make_images

SIZES = (16, 24)


def recipe_of(cache):
    """The cache's recipe with two teachers of different sizes."""
    told = cache.recipe.model_dump()
    (first,) = told["teachers"]
    return Recipe.model_validate(told | {"teachers": [{**first, "size": size} for size in SIZES]})


def shrunk(images):
    """Images [B, S, S, 3] uint8 at 16 pixels, float."""
    planes = images.permute(0, 3, 1, 2).float()
    return F.interpolate(planes, 16, mode="bilinear", antialias=True).permute(0, 2, 3, 1)


class Pair:
    """A teacher that keeps what it saw at two sizes, and answers with both."""

    def __init__(self):
        self.teacher, self.seen, self.said = ToyTeacher(), [], []

    def __call__(self, small, large):
        self.seen.append((small, large))
        logits = self.teacher(small) - self.teacher(shrunk(large).to(torch.uint8).contiguous()) / 2
        self.said.append(logits.numpy())
        return logits


def test_units_and_codec_come_of_the_same_views_at_every_size(tmp_path):
    images = make_images("toy")
    single = make_cache(tmp_path, images, views=1, codec="klt")
    recipe, pair = recipe_of(single), Pair()
    assert recipe.sizes == list(SIZES)
    backend, *others = (PIXELS.open(images, POLICY, size) for size in SIZES)
    given = {"batch_size": 32, "bar": Silence(), "others": others}
    codec = fit_codec(recipe, images, backend, pair, None, **given)
    wanted = fit(recipe.planned_codec(), pair.said, None)
    assert all(np.array_equal(codec.side[name], wanted.side[name]) for name in wanted.side)

    pair.seen.clear()
    sides = {"labels": images.labels, "contents": images.contents, "class_weight": None}
    place = tmp_path / recipe.cache_id
    cache = create_cache(place, recipe, provenance={}, codec=codec, **sides)
    with cache.claim_builder():
        build_units(cache, cache.missing(range(1)), images, backend, pair, **given)
    small, large = (torch.cat(batches) for batches in zip(*pair.seen, strict=True))
    assert small.shape[1:] == (16, 16, 3)
    assert large.shape[1:] == (24, 24, 3)
    apart = torch.cdist(shrunk(large).flatten(1), small.flatten(1).float())
    assert torch.equal(apart.argmin(1), torch.arange(len(images)))  # nearest is the same view
    probes = [one.read(0, 0, len(images)).probes for one in (single, cache)]
    assert torch.equal(*probes)
