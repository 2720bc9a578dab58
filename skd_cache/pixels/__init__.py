"""Samples and parameters to pixels: two backends, the probes that check them, normalising."""

from skd_cache.pixels.backend import BACKENDS, DECODERS, Backend, cores, open_backend
from skd_cache.pixels.normalise import normalise
from skd_cache.pixels.probe import check, compare, thumbnails, tolerance

__all__ = [
    "BACKENDS",
    "DECODERS",
    "Backend",
    "check",
    "compare",
    "cores",
    "normalise",
    "open_backend",
    "thumbnails",
    "tolerance",
]
