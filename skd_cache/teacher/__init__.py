"""The network that is learned from: load it, identify it, let it answer, check its accuracy."""

from skd_cache.teacher.ensemble import Ensemble
from skd_cache.teacher.forward import Teacher
from skd_cache.teacher.identity import weights_digest
from skd_cache.teacher.load import load_ensemble, load_teacher
from skd_cache.teacher.preflight import Preflight, preflight, preflight_all

__all__ = [
    "Ensemble",
    "Preflight",
    "Teacher",
    "load_ensemble",
    "load_teacher",
    "preflight",
    "preflight_all",
    "weights_digest",
]
