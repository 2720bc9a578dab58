"""The network that is learned from: load it, identify it, let it answer, check its accuracy."""

from skd_cache.teacher.forward import Teacher
from skd_cache.teacher.identity import weights_digest
from skd_cache.teacher.load import load_teacher
from skd_cache.teacher.preflight import Preflight, preflight

__all__ = ["Preflight", "Teacher", "load_teacher", "preflight", "weights_digest"]
