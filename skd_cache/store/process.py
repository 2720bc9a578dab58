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
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def is_alive(pid: int, since: str = "") -> bool:
    """Whether a process of this machine runs, and if ``since`` is known, whether it is the same.

    One that ended and that its parent has not asked about yet does not run.
    """
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return _stat(pid)[:1] != ["Z"] and (not since or began(pid) in ("", since))


def _stat(pid: int) -> list[str]:
    """What Linux says of a process, from its state on; empty where it says nothing."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return []
