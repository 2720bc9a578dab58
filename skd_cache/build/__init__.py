"""Stage 1: the teacher looks once at every view of every sample."""

from skd_cache.build.plan import Plan, make_plan
from skd_cache.build.run import build_units
from skd_cache.build.unit import Work, work_of

__all__ = ["Plan", "Work", "build_units", "make_plan", "work_of"]
