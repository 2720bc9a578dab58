"""How this process behaves towards the machine: waiting threads, freed memory, its end."""

import ctypes
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h


def wait_briefly() -> None:
    """Let torch's threads wait for each other by spinning for microseconds, not milliseconds.

    Of two trainings on the same two cores one came to 10 images/s with libgomp's default of
    300,000 turns, and each to 200 with 1,000; one alone to 440 either way. Read when torch is
    imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def keep_memory() -> None:
    """Keep the memory of freed tensors for the next ones.

    glibc gives large blocks back to the system at once, which clears them anew for every layer:
    a teacher at 224 pixels on a CPU spent 60 % of its time on that and now runs twice as fast,
    the demo's student a sixth faster. A batch takes 40 % more memory.
    """
    if platform.libc_ver()[0] == "glibc":
        malloc = ctypes.CDLL(None)
        malloc.mallopt(_MMAP_MAX, 0)
        malloc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def terminable() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C: what is claimed is let go, and others need not wait for it.

    Signals can be caught in the main thread only: elsewhere nothing is caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, before)  # a second one ends at once
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
