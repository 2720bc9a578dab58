"""Stage 1: the teacher looks once at every view of every sample."""

from skd_cache.build.fit import fit_codec
from skd_cache.build.plan import Plan, make_plan
from skd_cache.build.run import build_units

__all__ = ["Plan", "build_units", "fit_codec", "make_plan"]
