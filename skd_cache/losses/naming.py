"""What somebody may have meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """What somebody who wrote ``name`` may have meant, in words."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 3, 0.5)
    return f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(known)}"
