"""Losses that compare a student with a teacher, one file each, and how they are named."""

from skd_cache.losses.combined import Combined, combine
from skd_cache.losses.fix import Fixed, fix_teacher, parse_fix
from skd_cache.losses.loss import Loss
from skd_cache.losses.registry import give_class_weight, make, names, needs_class_weight, parse
from skd_cache.losses.schedule import Schedule, parse_schedule

__all__ = [
    "Combined",
    "Fixed",
    "Loss",
    "Schedule",
    "combine",
    "fix_teacher",
    "give_class_weight",
    "make",
    "names",
    "needs_class_weight",
    "parse",
    "parse_fix",
    "parse_schedule",
]
