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
            "teacher": {
                "architecture": "benchmark",
                "weights": "0" * 64,
                "size": 224,
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "precision": "float32",
            },
            "dataset": {"fingerprint": "0" * 64, "samples": samples, "classes": codec.classes},
            "policy": {"crop": "none", "flip": False},
            "seed": 0,
            "pixels": {"backend": "reference", "decoder": "cpu"},
            "codec": codec.settings,
            "shard": even * parts,
            "chunk": even,
        }
    )


def store(folder: Path, codec: Codec, logits: NDArray[np.float32], views: int = 1) -> Cache:
    """A cache in which position p of every view has the logits of row p ``[N, C]``.

    Probes are noise, which is what they cost: they are not compressed.
    """
    recipe = recipe_for(codec, len(logits))
    count = recipe.dataset.samples
    cache = create_cache(
        folder / recipe.cache_id,
        recipe,
        labels=np.zeros(count, np.int32),
        contents=np.arange(count, dtype=np.uint64),
        class_weight=None,
        provenance={},
        codec=codec,
    )
    with cache.claim_builder():
        for unit in cache.missing(range(views)):
            start, stop = cache.unit_range(unit.shard)
            rows = logits[start:stop]
            encoded = [
                codec.encode(rows[at : at + ENCODED_AT_ONCE])
                for at in range(0, len(rows), ENCODED_AT_ONCE)
            ]
            norm = np.concatenate([part.norm for part in encoded])
            names = encoded[0].code
            code = {name: np.concatenate([part.code[name] for part in encoded]) for name in names}
            labels = np.zeros(len(rows), np.int32)
            shape = (-(-len(rows) // PROBE_EVERY), 8, 8, 3)
            noise = np.random.default_rng(unit.shard).integers(0, 256, shape, dtype=np.uint8)
            sums = Statistics.of(norm, judge(rows, labels))
            cache.write_unit(unit, norm, code, noise, "0" * 64, sums)
    return cache
