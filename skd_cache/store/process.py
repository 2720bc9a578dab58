"""Which process this is, and whether another is still there."""

import os
from contextlib import suppress
from pathlib import Path


def boot() -> str:
    """What tells one boot of this machine, and one container on it, from the next.

    Empty where the system does not say.
    """
    with suppress(OSError):
        booted = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{booted}/{Path('/proc/self/ns/pid').readlink()}"
    return ""


def began(pid: int) -> str:
    """When a process began, in ticks since boot; empty where the system does not say."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    return ""


def is_alive(pid: int, since: str = "") -> bool:
    """Whether a process of this machine runs, and if ``since`` is known, whether it is the same."""
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return not since or began(pid) in ("", since)
