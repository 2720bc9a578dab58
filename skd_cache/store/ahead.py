"""Makes the next items while the present one is in use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Place = TypeVar("Place")
Item = TypeVar("Item")


def map_ahead(
    work: Callable[[Place], Item], places: Iterable[Place], depth: int, threads: int
) -> Iterator[Item]:
    """``work`` of each place, in order, made in threads up to ``depth`` before it is asked for.

    What a thread raises is raised here in its turn; closing the iterator waits for the threads.
    """
    left = iter(places)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="skd-cache-read-ahead")
    waiting: deque[Future[Item]] = deque()
    try:
        waiting.extend(pool.submit(work, place) for place in islice(left, depth))
        while waiting:
            item = waiting.popleft().result()
            waiting.extend(pool.submit(work, place) for place in islice(left, 1))
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
