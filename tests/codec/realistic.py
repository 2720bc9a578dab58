"""Logits as a trained network gives them: correlated classes, one or a few far above the rest."""

import numpy as np


def realistic_logits(rows, classes, seed=0, scale=1.0):
    """[rows, classes] float32, of features of 24 dimensions shared by all seeds."""
    weight = np.random.default_rng(classes).normal(size=(24, classes))
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 24)) * np.geomspace(2, 0.1, 24)
    likely = weight[:, rng.integers(0, classes, rows)].T
    features += 0.5 * likely
    noise = rng.normal(size=(rows, classes)) * 0.2
    return ((features @ weight + noise) * scale).astype(np.float32)
