"""Who computes what, so that nothing is computed twice. What counts is settled elsewhere.

A builder is present while ``claim/builder/TOKEN.json`` stands; rewriting it is its heartbeat. It
claims a unit by creating ``claim/VVVVV/SSSSS.GGGGGGGG.json``, which names it, if there is none; of
several the highest generation G counts. A claim is over when its builder left, is a dead process of
this machine, or was silent for a lease: then anybody may create G+1. A builder that was only asleep
goes on, and :mod:`skd_cache.store.agree` sees to it that one of the two counts.
"""

import os
import re
import secrets
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self, TypeVar

from pydantic import Field

from skd_cache.errors import DataError, InputError, SkdCacheError
from skd_cache.store.document import Document
from skd_cache.store.objects import Found, Objects
from skd_cache.store.process import began, boot, is_alive

LEASE_VARIABLE = "SKD_CACHE_LEASE_SECONDS"
LEASE_SECONDS = 600.0
HEARTBEATS_PER_LEASE = 10
_BUILDER = re.compile(r"^claim/builder/([0-9a-f]{16})\.json$")
_CLAIM = re.compile(r"^claim/(?P<what>cache|\d{5}/\d{5})\.(?P<generation>\d{8})\.json$")
_MAX_BYTES = 4096
Kind = TypeVar("Kind", bound=Document)


class Builder(Document):
    """A process that builds."""

    host: str = Field(max_length=255)
    boot: str = Field(max_length=128)
    pid: int = Field(ge=0)
    began: str = Field(default="", max_length=32)  # tells a pid from its later reuse

    @classmethod
    def here(cls) -> Self:
        """This process."""
        pid = os.getpid()
        return cls(host=socket.gethostname(), boot=boot(), pid=pid, began=began(pid))

    def is_over(self, silent_seconds: float, lease_seconds: float) -> bool:
        """Whether others may take what it claimed, given its last sign of life."""
        if silent_seconds > lease_seconds:
            return True
        if self.host != socket.gethostname():
            return False
        return self.boot != boot() or not is_alive(self.pid, self.began)


class Claim(Document):
    """A unit, or the creation of the cache, is a builder's."""

    builder: str = Field(pattern=r"^[0-9a-f]{16}$")


@dataclass(frozen=True)
class Working:
    """Who is at what.

    Attributes:
        what: ``00000/00000`` for view and shard, ``cache`` for the creation.
        builder: the process.
        silent: seconds since its last sign of life.
        over: whether another may take it.
    """

    what: str
    builder: Builder
    silent: float
    over: bool

    @property
    def name(self) -> str:
        """What it is, for people."""
        view, _, shard = self.what.partition("/")
        return f"view {int(view)}, shard {int(shard)}" if shard else "the cache's creation"


def lease_seconds() -> float:
    """How long a silent builder keeps what it claimed: ``SKD_CACHE_LEASE_SECONDS``, or 600.

    Raises:
        InputError: if the variable is not a number above 0.
    """
    text = os.environ.get(LEASE_VARIABLE, str(LEASE_SECONDS))
    with suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise InputError(f"{LEASE_VARIABLE} is {text!r}, not a number of seconds")


class Claims:
    """What this process claims of one cache; as a context it is present, and gone afterwards."""

    def __init__(self, objects: Objects, me: Builder | None = None) -> None:
        """Nothing is claimed yet."""
        self._objects, self._me, self._lease = objects, me or Builder.here(), lease_seconds()
        self.token = secrets.token_hex(8)
        self._held: dict[str, int] = {}
        self._read: dict[str, Claim] = {}  # by object name; claims never change
        self._builders: dict[str, Builder] = {}
        self._ahead = timedelta()  # the storage's clock before ours
        self._stop = threading.Event()
        self._beat = threading.Thread(
            target=self._keep_beating, name="skd-cache-claim", daemon=True
        )

    def __enter__(self) -> Self:
        self.beat()
        name = _builder_name(self.token)
        here = [found for found in self._objects.list("claim/builder") if found.name == name]
        self._ahead = max((found.modified for found in here), default=_now()) - _now()
        self._beat.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._beat.join()
        with suppress(SkdCacheError):  # claims without a builder are over
            self._objects.delete(_builder_name(self.token))
            for what in list(self._held):
                self.release(what)

    def beat(self) -> None:
        """Give a sign of life."""
        self._objects.replace(_builder_name(self.token), self._me.canonical())

    def take(self, what: str) -> bool:
        """Claim something that nobody is at; whether it is ours now."""
        if what in self._held:
            return True
        past = self._generations(what)
        mine = max(past, default=-1) + 1
        if past and self._who(past[mine - 1], self._seen()) is not None:
            return False
        if not self._objects.create(_claim_name(what, mine), Claim(builder=self.token).canonical()):
            return False
        # The look above may be old: whoever finds a later generation than its own was too late.
        past = self._generations(what)
        if max(past, default=mine) > mine:
            self._objects.delete(_claim_name(what, mine))
            return False
        self._held[what] = mine
        for earlier in sorted(past.keys() - {mine}):
            self._objects.delete(past[earlier])
        return True

    def holds(self, what: str) -> bool:
        """Whether this is claimed here already."""
        return what in self._held

    def release(self, what: str) -> None:
        """Let go of something, done or not."""
        generation = self._held.pop(what, None)
        if generation is not None:
            self._objects.delete(_claim_name(what, generation))

    def busy(self) -> dict[str, Working]:
        """What others are at, by what it is: those that are over are not among them."""
        return {one.what: one for one in self.working() if not one.over}

    def working(self) -> list[Working]:
        """What others claim, also those whose builder is over."""
        seen, found = self._seen(), []
        for what, name in sorted(self._standing().items()):
            claim = self._claim(name)
            if claim is None or claim.builder == self.token or claim.builder not in seen:
                continue
            if (builder := self._builder(claim.builder)) is not None:
                silent = self._silent(seen[claim.builder])
                over = builder.is_over(silent, self._lease)
                found.append(Working(what, builder, silent, over))
        return found

    def sweep(self) -> None:
        """Remove builders that are over, and thereby what they claim."""
        for token, found in self._seen().items():
            builder = self._builder(token)
            if builder is None or builder.is_over(self._silent(found), self._lease):
                self._objects.delete(found.name)

    def present(self) -> list[Builder]:
        """Builders that may still be at something: heard of within a lease, or processes here.

        A process of this machine that sleeps loses its claims after a lease, not its work.
        """
        found = []
        for token, seen in self._seen().items():
            builder = self._builder(token)
            if builder is None or token == self.token:
                continue
            here = builder.host == socket.gethostname()
            if not builder.is_over(0.0 if here else self._silent(seen), self._lease):
                found.append(builder)
        return found

    def last_sign(self, what: str) -> datetime | None:
        """When a builder that is over and claimed this was last heard of, if that is known."""
        seen = self._seen()
        claims = [self._claim(name) for name in self._generations(what).values()]
        signs = [seen[claim.builder] for claim in claims if claim and claim.builder in seen]
        return max((found.modified for found in signs), default=None)

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._lease / HEARTBEATS_PER_LEASE):
            with suppress(SkdCacheError):  # a missed beat is no reason to stop computing
                self.beat()

    def _who(self, name: str, seen: dict[str, Found]) -> Builder | None:
        """The builder of a claim, unless it is over."""
        claim = self._claim(name)
        if claim is None or claim.builder not in seen:
            return None
        builder = self._builder(claim.builder)
        silent = self._silent(seen[claim.builder])
        return None if builder is None or builder.is_over(silent, self._lease) else builder

    def _generations(self, what: str) -> dict[int, str]:
        """The claims on something, by generation."""
        folder = f"claim/{what.rpartition('/')[0]}" if "/" in what else "claim"
        matches = (_CLAIM.match(found.name) for found in self._objects.list(folder))
        return {int(m["generation"]): m[0] for m in matches if m and m["what"] == what}

    def _standing(self) -> dict[str, str]:
        """The claims that count, by what is claimed."""
        matches = (_CLAIM.match(found.name) for found in self._objects.list("claim"))
        latest: dict[str, str] = {}
        for name in sorted(match[0] for match in matches if match):  # generations ascend
            latest[name.removeprefix("claim/").split(".", 1)[0]] = name
        return latest

    def _seen(self) -> dict[str, Found]:
        """Builders by token, as their last sign of life shows them."""
        listed = self._objects.list("claim/builder")
        return {match[1]: found for found in listed if (match := _BUILDER.match(found.name))}

    def _silent(self, found: Found) -> float:
        return (_now() + self._ahead - found.modified).total_seconds()

    def _claim(self, name: str) -> Claim | None:
        if name not in self._read and (claim := _parse(self._objects, name, Claim)) is not None:
            self._read[name] = claim
        return self._read.get(name)

    def _builder(self, token: str) -> Builder | None:
        name = _builder_name(token)
        if token not in self._builders:
            if (builder := _parse(self._objects, name, Builder)) is None:
                return None
            self._builders[token] = builder
        return self._builders[token]


def _parse(objects: Objects, name: str, kind: type[Kind]) -> Kind | None:
    """A document that may be gone by now, or be no such document: then nobody claims by it."""
    try:
        return kind.parse(objects.get(name, _MAX_BYTES), f"{objects.location}/{name}")
    except (FileNotFoundError, DataError):
        return None


def _builder_name(token: str) -> str:
    return f"claim/builder/{token}.json"


def _claim_name(what: str, generation: int) -> str:
    return f"claim/{what}.{generation:08d}.json"


def _now() -> datetime:
    return datetime.now(UTC)
