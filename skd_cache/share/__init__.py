"""Caches of a team: where they are, and how views get from there to here and back."""

from skd_cache.share.holding import Holding
from skd_cache.share.pin import Pin, pin_digest, pins_of
from skd_cache.share.registry import Registry, require_create
from skd_cache.share.settings import registry_location
from skd_cache.share.supply import Contribution, Supply, own_variant
from skd_cache.share.team import pull, push
from skd_cache.share.transfer import Carried, Journey, carry, plan_journey

__all__ = [
    "Carried",
    "Contribution",
    "Holding",
    "Journey",
    "Pin",
    "Registry",
    "Supply",
    "carry",
    "own_variant",
    "pin_digest",
    "pins_of",
    "plan_journey",
    "pull",
    "push",
    "registry_location",
    "require_create",
]
