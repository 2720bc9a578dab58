"""Losses that compare a student with a teacher, one file each, and how they are named."""

from skd_cache.losses.combined import Combined, combine
from skd_cache.losses.loss import Loss
from skd_cache.losses.registry import make, names, parse
from skd_cache.losses.schedule import Schedule, parse_schedule

__all__ = ["Combined", "Loss", "Schedule", "combine", "make", "names", "parse", "parse_schedule"]
