"""Names for exact bytes: ``cache-id@0:10:sha256:…`` is ten views of a cache, every bit of them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from skd_cache.errors import InputError

_PIN = re.compile(r"^(?P<cache>[^@]+)@(?P<start>\d{1,5}):(?P<stop>\d{1,6}):(?P<digest>sha256:\w+)$")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


@dataclass(frozen=True)
class Pin:
    """Views of a cache, and what they must hold."""

    cache: str
    views: range
    digest: str  # "sha256:" and 64 hex digits, see :func:`pin_digest`

    def __str__(self) -> str:
        return f"{self.cache}@{self.views.start}:{self.views.stop}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :meth:`__str__` writes.

        Raises:
            InputError: if it is something else.
        """
        found = _PIN.match(text)
        views = range(int(found["start"]), int(found["stop"])) if found else range(0)
        if not found or not views or views.stop > 100_000 or not _DIGEST.match(found["digest"]):
            raise InputError(f"{text} is no pin: write ID@A:B:sha256:… as `skd-cache info` does")
        return cls(found["cache"], views, found["digest"])


def pin_digest(digests: Mapping[int, str]) -> str:
    """What identifies several views: the sha256 over their numbers and digests, in order.

    One line for each: the view's number, a blank, its digest, a newline.
    """
    lines = "".join(f"{view} {digest}\n" for view, digest in sorted(digests.items()))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def pins_of(cache: str, digests: Mapping[int, str]) -> list[Pin]:
    """The pins of what is complete, one for each run of neighbouring views."""
    runs: list[list[int]] = []
    for view in sorted(digests):
        if runs and runs[-1][-1] == view - 1:
            runs[-1].append(view)
        else:
            runs.append([view])
    return [
        Pin(cache, range(run[0], run[-1] + 1), pin_digest({view: digests[view] for view in run}))
        for run in runs
    ]
