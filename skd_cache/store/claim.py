"""Who is building a cache: one builder at a time, and what becomes of a dead one's claim.

A claim is ``claim/builder-GGGGGGGG.json``, created only if absent; the highest generation G is
the one that counts. Its owner rewrites it as a heartbeat. It may be followed by G+1 when it was
released, when its owner is a dead process of this host or of an earlier boot of it, or when it
was silent for a lease. A builder that comes back from a long sleep finds itself outnumbered.
"""

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field

from skd_cache.errors import InputError, SkdCacheError
from skd_cache.store.document import Document
from skd_cache.store.objects import Objects

LEASE_SECONDS = 600.0
HEARTBEAT_SECONDS = 60.0
_CLAIM = re.compile(r"^claim/builder-(\d{8})\.json$")
_MAX_BYTES = 4096


class Claim(Document):
    """Who claimed a cache."""

    generation: int = Field(ge=0, le=99_999_999)
    host: str = Field(max_length=255)
    boot: str = Field(max_length=64)
    pid: int = Field(ge=0)
    began: str = Field(default="", max_length=32)  # tells a pid from its later reuse
    released: bool = False

    @classmethod
    def ours(cls, generation: int) -> "Claim":
        """This process's claim."""
        pid = os.getpid()
        return cls(
            generation=generation,
            host=socket.gethostname(),
            boot=_boot(),
            pid=pid,
            began=_began(pid),
        )

    @property
    def name(self) -> str:
        """The object it stands in."""
        return _name(self.generation)

    def is_over(self, silent_seconds: float) -> bool:
        """Whether another may follow, given how long ago the claim was last written."""
        if self.released:
            return True
        if self.host != socket.gethostname():
            return silent_seconds > LEASE_SECONDS
        return self.boot != _boot() or not _alive(self.pid, self.began)


@dataclass(frozen=True)
class Held:
    """The claim of this process on a cache."""

    objects: Objects
    claim: Claim

    def check(self) -> None:
        """Make sure that nobody took the cache over meanwhile.

        Raises:
            SkdCacheError: if somebody did.
        """
        if _latest(self.objects) != self.claim.generation:
            raise SkdCacheError(
                f"another builder took over {self.objects.location} while this one was silent: "
                "stop here, what was committed stays"
            )


@contextmanager
def hold(objects: Objects) -> Iterator[Held]:
    """Be the one builder of a cache while the context lasts.

    Raises:
        InputError: if another process builds it, naming host and pid.
    """
    held = Held(objects, _take(objects))
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(held, stop), name="skd-cache-claim", daemon=True)
    beat.start()
    try:
        yield held
    finally:
        stop.set()
        beat.join()
        with suppress(SkdCacheError):
            objects.replace(
                held.claim.name, held.claim.model_copy(update={"released": True}).canonical()
            )


def _take(objects: Objects) -> Claim:
    for _ in range(100):
        latest = _latest(objects)
        if latest is not None:
            _refuse_if_alive(objects, latest)
        claim = Claim.ours(0 if latest is None else latest + 1)
        if not objects.create(claim.name, claim.canonical()):
            continue
        # The look above may be old: whoever finds a later generation than its own was too late.
        generations = _generations(objects)
        if max(generations) == claim.generation:
            for past in sorted(generations)[:-1]:
                objects.delete(_name(past))
            return claim
        objects.delete(claim.name)
    raise SkdCacheError(f"{objects.location} is claimed by one builder after another: try again")


def _refuse_if_alive(objects: Objects, generation: int) -> None:
    name = _name(generation)
    found = next((found for found in objects.list("claim") if found.name == name), None)
    if found is None:
        return
    try:
        claim = Claim.parse(objects.get(name, _MAX_BYTES), f"{objects.location}/{name}")
    except FileNotFoundError:
        return
    silent = (datetime.now(UTC) - found.modified).total_seconds()
    if not claim.is_over(silent):
        lease = f"; its claim ends {LEASE_SECONDS / 60:.0f} minutes after its last sign of life"
        raise InputError(
            f"{objects.location} is being built by process {claim.pid} on {claim.host}"
            f"{'' if claim.host == socket.gethostname() else lease}: "
            "wait for it, or stop it and run the same again"
        )


def _generations(objects: Objects) -> list[int]:
    matches = (_CLAIM.match(found.name) for found in objects.list("claim"))
    return [int(match[1]) for match in matches if match]


def _latest(objects: Objects) -> int | None:
    return max(_generations(objects), default=None)


def _name(generation: int) -> str:
    return f"claim/builder-{generation:08d}.json"


def _beat(held: Held, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        with suppress(SkdCacheError):  # a missed beat is no reason to stop computing
            held.objects.replace(held.claim.name, held.claim.canonical())


def _boot() -> str:
    """What tells one boot of this machine from the next, where the system says it."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _began(pid: int) -> str:
    """When a process began, in ticks since boot, where the system says it."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    return ""


def _alive(pid: int, began: str) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return not began or _began(pid) in ("", began)
