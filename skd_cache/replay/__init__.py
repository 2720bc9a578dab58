"""What may happen to an image, and what does happen to sample i in view v."""

from skd_cache.replay.params import Params, digest, draw_params
from skd_cache.replay.policy import Policy, load_policy, policy_names
from skd_cache.replay.views import Request, Views

__all__ = [
    "Params",
    "Policy",
    "Request",
    "Views",
    "digest",
    "draw_params",
    "load_policy",
    "policy_names",
]
