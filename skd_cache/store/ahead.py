"""Makes the next items while the present one is in use."""

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def read_ahead(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """The same items, made in a thread, at most ``depth`` of them before they are asked for.

    What the thread raises is raised here; closing the iterator ends the thread.
    """
    ready: queue.Queue[Item | _End] = queue.Queue(maxsize=max(depth - 1, 1))
    stop = threading.Event()

    def offer(item: Item | _End) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                offer(item)
                if stop.is_set():
                    return
            offer(_End(None))
        except BaseException as error:
            offer(_End(error))

    thread = threading.Thread(target=work, name="skd-cache-read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        thread.join()
