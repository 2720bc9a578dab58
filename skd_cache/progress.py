"""Progress of long work: a bar on a terminal, a line every thirty seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

LINE_EVERY_SECONDS = 30.0
BYTES = "bytes"


class Bar(Protocol):
    """What the long work tells of itself."""

    def advance(self, count: int = 1) -> None:
        """Say that ``count`` more items are done."""


class _Terminal:
    def __init__(self, progress: Progress, total: int, what: str, unit: str, done: int) -> None:
        self._progress, self._unit, self._begin = progress, unit, done
        self._task = progress.add_task(what, total=total, completed=done, rate="")
        self._began = time.monotonic()

    def advance(self, count: int = 1) -> None:
        task = self._progress.tasks[self._task]
        done = task.completed + count
        rate = (done - self._begin) / max(time.monotonic() - self._began, 1e-9)
        said = f"{_amount(rate, self._unit)}/s"
        self._progress.update(self._task, advance=count, rate=said)


class _Silence:
    def advance(self, count: int = 1) -> None:
        """Somebody else shows it."""


class _Lines:
    def __init__(self, total: int, what: str, unit: str, done: int) -> None:
        self._total, self._what, self._unit, self._done = total, what, unit, done
        self._begin, self._began = done, time.monotonic()
        self._said = self._began

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said < LINE_EVERY_SECONDS:
            return
        self._said = now
        rate = (self._done - self._begin) / (now - self._began)
        left = (self._total - self._done) / rate if rate else 0.0
        if self._unit == BYTES:
            told = f"{decimal(self._done)} of {decimal(self._total)}, {decimal(int(rate))}/s"
        else:
            told = f"{self._done:,}/{self._total:,} {self._unit}, {rate:,.0f}/s"
        print(f"{self._what}: {told}, {left:,.0f} s left", file=sys.stderr, flush=True)


def _amount(count: float, unit: str) -> str:
    return decimal(int(count)) if unit == BYTES else f"{count:,.0f} {unit}"


@contextmanager
def track(
    total: int, what: str, unit: str = "items", done: int = 0, *, shown: bool = True
) -> Iterator[Bar]:
    """Show how far ``total`` items of long work are, of which ``done`` were done before.

    Of several processes that do the work together, one has it ``shown``.
    """
    if not shown:
        yield _Silence()
        return
    if not sys.stderr.isatty():
        yield _Lines(total, what, unit, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if unit == BYTES else MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Terminal(progress, total, what, unit, done)
