"""Caches of logits that lie in an array: no images, no teacher."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skd_cache.batch import Statistics, judge
from skd_cache.codec import Codec, Planned, fit
from skd_cache.store import Cache, Recipe, create_cache
from skd_cache.store.recipe import PROBE_EVERY

SHARD = 16384
ENCODED_AT_ONCE = 128


def fitted(
    planned: Planned, logits: NDArray[np.float32], class_weight: NDArray[np.float32] | None
) -> Codec:
    """A codec fitted to logits ``[n, C]``, whatever their number."""
    starts = range(0, len(logits), ENCODED_AT_ONCE)
    batches = (logits[start : start + ENCODED_AT_ONCE] for start in starts)
    return fit(planned, batches, class_weight)


def recipe_for(codec: Codec, samples: int) -> Recipe:
    """A recipe of a teacher nobody has."""
    chunk = 4096 if codec.settings["name"] == "klt" else 1024
    # Few samples are cut evenly: of a set of millions one chunk in hundreds is not full.
    parts = max(round(min(samples, SHARD) / chunk), 1)
    even = 64 * math.ceil(min(samples, SHARD) / parts / 64)
    return Recipe.model_validate(
        {
            "teachers": [
                {
                    "architecture": "benchmark",
                    "weights": "0" * 64,
                    "size": 224,
                    "mean": [0.485, 0.456, 0.406],
                    "std": [0.229, 0.224, 0.225],
                }
            ],
            "precision": "float32",
            "dataset": {"fingerprint": "0" * 64, "samples": samples, "classes": codec.classes},
            "policy": {"crop": "none", "flip": False},
            "seed": 0,
            "pixels": {"backend": "reference", "decoder": "cpu"},
            "codec": codec.settings,
            "shard": even * parts,
            "chunk": even,
        }
    )


def store(
    folder: Path, codec: Codec, logits: NDArray[np.float32], samples: int | None = None
) -> Cache:
    """A cache of one view in which position p has the logits of row p ``[n, C]``.

    More samples than rows are rows drawn again. Probes are noise, which is what they cost.
    """
    drawn = np.arange(len(logits))
    if samples is not None:
        drawn = np.random.default_rng(0).integers(0, len(logits), samples)
    recipe = recipe_for(codec, len(drawn))
    cache = create_cache(
        folder / recipe.cache_id,
        recipe,
        labels=np.zeros(len(drawn), np.int32),
        contents=np.arange(len(drawn), dtype=np.uint64),
        class_weight=None,
        provenance={},
        codec=codec,
    )
    starts = range(0, len(logits), ENCODED_AT_ONCE)
    encoded = [codec.encode(logits[start : start + ENCODED_AT_ONCE]) for start in starts]
    norm = np.concatenate([part.norm for part in encoded])
    names = encoded[0].code
    code = {name: np.concatenate([part.code[name] for part in encoded]) for name in names}
    for unit in cache.missing(range(1)):
        rows = drawn[slice(*cache.unit_range(unit.shard))]
        shape = (-(-len(rows) // PROBE_EVERY), 8, 8, 3)
        noise = np.random.default_rng(unit.shard).integers(0, 256, shape, dtype=np.uint8)
        judged = judge(logits[rows], np.zeros(len(rows), np.int32))
        sums = Statistics.of(norm[rows], judged)
        taken = {name: array[rows] for name, array in code.items()}
        cache.write_unit(unit, norm[rows], taken, noise, "0" * 64, sums)
    return cache
