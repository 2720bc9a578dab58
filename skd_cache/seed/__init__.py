"""Draws and orders that are pure functions of (seed, view, sample)."""

from skd_cache.seed.order import positions_of, samples_at
from skd_cache.seed.philox import below, draw, unit

__all__ = ["below", "draw", "positions_of", "samples_at", "unit"]
