"""How fast a run went, and what it waited for."""

from dataclasses import dataclass, field

from skd_cache.distill.loader import Waits
from skd_cache.distill.together import Team

# Decoding, reading and learning overlap: what is waited for this long sets the pace.
_WAIT_THAT_COUNTS = 0.1


@dataclass(frozen=True)
class Pace:
    """Images all learned from, the seconds that took, and how many of those went by waiting."""

    images: int = 0
    seconds: float = 0.0
    waits: Waits = field(default_factory=Waits)

    def __add__(self, other: "Pace") -> "Pace":
        waits = self.waits + other.waits
        return Pace(self.images + other.images, self.seconds + other.seconds, waits)

    def over(self, team: Team) -> "Pace":
        """The same of all processes, where images are theirs already: the slowest sets it."""
        seconds, images, logits = team.largest(self.seconds, self.waits.images, self.waits.logits)
        return Pace(self.images, seconds, Waits(images, logits))

    @property
    def images_per_second(self) -> float:
        """Images over seconds; 0 when nothing was done."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def image_share(self) -> float:
        """Share of the time spent waiting for pixels."""
        return self.waits.images / self.seconds if self.seconds else 0.0

    @property
    def logit_share(self) -> float:
        """Share of the time spent waiting for the cache."""
        return self.waits.logits / self.seconds if self.seconds else 0.0

    @property
    def bound(self) -> str:
        """What set the pace: ``decode``, ``cache`` or ``student``."""
        share, name = max((self.image_share, "decode"), (self.logit_share, "cache"))
        return name if share >= _WAIT_THAT_COUNTS else "student"

    def sentence(self) -> str:
        """The pace, for people."""
        setter = {"decode": "decoding images", "cache": "reading the cache"}
        return (
            f"{self.images_per_second:,.0f} images/s, waiting {self.image_share:.0%} for images "
            f"and {self.logit_share:.0%} for logits: bound by "
            f"{setter.get(self.bound, 'the student')}"
        )

    def to_dict(self) -> dict[str, float]:
        """As a line of metrics has it."""
        return {
            "images_per_second": round(self.images_per_second, 1),
            "wait_images": round(self.image_share, 4),
            "wait_logits": round(self.logit_share, 4),
        }
