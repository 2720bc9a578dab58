"""A small cache whose logits follow from the position, for the tests of the store.

Run as a program, ``python small_cache.py HOME VIEWS`` builds it, so that a test can kill it.
"""

import sys
from pathlib import Path

import numpy as np

from skd_cache.batch import Statistics, judge
from skd_cache.codec import fit, parse_codec
from skd_cache.seed import samples_at
from skd_cache.store import (
    Cache,
    DatasetRecipe,
    PixelRecipe,
    Recipe,
    TeacherRecipe,
    Unit,
    create_cache,
)

SAMPLES, CLASSES, SHARD, CHUNK = 300, 7, 128, 32


def make_recipe(samples=SAMPLES, classes=CLASSES, codec="float32", shard=SHARD, chunk=CHUNK):
    return Recipe(
        teachers=[
            TeacherRecipe(
                architecture="wrn_16_2", weights="a" * 64, size=28, mean=[0.2860], std=[0.3530]
            )
        ],
        precision="float32",
        dataset=DatasetRecipe(fingerprint="b" * 64, samples=samples, classes=classes),
        policy={"crop": "none", "flip": False},
        seed=7,
        pixels=PixelRecipe(backend="reference", decoder="cpu"),
        codec=parse_codec(codec, classes).settings,
        shard=shard,
        chunk=chunk,
    )


def logits_of(recipe, view, samples):
    """[n, C] float32, a different row for every view and sample."""
    rows = np.empty((len(samples), recipe.dataset.classes), np.float32)
    for row, sample in zip(rows, samples, strict=True):
        row[:] = np.random.default_rng([view, int(sample)]).normal(size=len(row)) * 4
    return rows


def probes_of(view, positions):
    """[p, 8, 8, 3] uint8, a different thumbnail for every view and position."""
    base = (view * 101 + np.asarray(positions) // 64)[:, None, None, None]
    return (base + np.arange(192).reshape(8, 8, 3)).astype(np.uint8)


def samples_of(recipe, view, start, stop):
    positions = np.arange(start, stop, dtype=np.int64)
    return samples_at(recipe.seed, view, positions, recipe.dataset.samples)


def side_arrays(recipe):
    count, classes = recipe.dataset.samples, recipe.dataset.classes
    return {
        "labels": (np.arange(count) % classes).astype(np.int32),
        "contents": np.arange(count, dtype=np.uint64) * np.uint64(2**40 + 1),
        "class_weight": np.arange(classes * 3, dtype=np.float32).reshape(classes, 3),
    }


def fitted(recipe):
    """The recipe's codec, fitted to view 0, shard 0 where it must be."""
    stop = min(recipe.shard, recipe.dataset.samples)
    first = logits_of(recipe, 0, samples_of(recipe, 0, 0, stop))
    return fit(recipe.planned_codec(), [first], None)


def create(home, recipe=None, **options) -> Cache:
    recipe = recipe or make_recipe()
    provenance = {"software": {"numpy": np.__version__}}
    where = Path(home) / recipe.cache_id
    given = side_arrays(recipe) | {"codec": fitted(recipe)} | options
    return create_cache(where, recipe, provenance=provenance, **given)


def write(cache, unit, noise=0.0):
    """Write a unit, its logits off by ``noise``; whether it is what counts."""
    start, stop = cache.unit_range(unit.shard)
    samples = samples_of(cache.recipe, unit.view, start, stop)
    logits = logits_of(cache.recipe, unit.view, samples)
    logits[:, 0] += np.float32(noise)
    encoded = cache.codec.encode(logits)
    labels = (samples % cache.recipe.dataset.classes).astype(np.int32)
    statistics = Statistics.of(encoded.norm, judge(logits, labels))
    probe = probes_of(unit.view, np.arange(start, stop, 64))
    return cache.write_unit(unit, encoded.norm, encoded.code, probe, "c" * 64, statistics)


def fill(cache, views=1) -> list[Unit]:
    """Write what is missing of the first views; which units that were."""
    cache.sweep()
    todo = cache.missing(range(views))
    for unit in todo:
        write(cache, unit)
    return todo


if __name__ == "__main__":
    fill(create(sys.argv[1]), int(sys.argv[2]))
