import threading
import time

import pytest

from skd_cache.store.ahead import map_ahead


def test_items_come_in_order_whatever_takes_longest():
    def slow_first(place):
        time.sleep(0.02 if place % 3 == 0 else 0)
        return place * 10

    assert list(map_ahead(slow_first, range(20), 4, 3)) == [10 * n for n in range(20)]


def test_no_more_than_asked_is_made_ahead():
    made = []
    items = map_ahead(made.append, range(100), 3, 2)
    for _ in range(5):
        next(items)
    time.sleep(0.05)
    assert len(made) <= 5 + 3
    items.close()


def test_an_error_comes_in_its_turn():
    def work(place):
        return 1 // (3 - place)

    items = map_ahead(work, range(10), 4, 2)
    assert [next(items) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_closing_ends_the_threads():
    before = threading.active_count()
    items = map_ahead(str, range(1000), 4, 3)
    next(items)
    items.close()
    assert threading.active_count() == before
