"""Stopping in an orderly way when the system or the user asks."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether SIGTERM or Ctrl-C has come; the step under way is finished first."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.by is not None


@contextmanager
def stop_requests(*, once: bool = True) -> Iterator[StopRequest]:
    """Note the first SIGTERM or Ctrl-C instead of ending at once; a second one ends at once.

    Signals can be caught in the main thread only: elsewhere nothing is caught.

    Args:
        once: whether the second one does. Not under torchrun, which passes on what the terminal or
            Slurm have sent to all of its processes already, and ends them itself after 30 s.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        request.by = signal.Signals(number)
        for one, handler in before.items() if once else ():
            signal.signal(one, handler)

    for one in before:
        signal.signal(one, note)
    try:
        yield request
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
