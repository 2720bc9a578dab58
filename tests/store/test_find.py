import os
from pathlib import Path

import pytest

from skd_cache.errors import InputError
from skd_cache.store import find_cache, list_caches
from tests.store.small_cache import create, fill, make_recipe


@pytest.fixture
def home(tmp_path):
    for seed in range(3):
        create(tmp_path, make_recipe().model_copy(update={"seed": seed}))
    (tmp_path / "0123456789abcdef").mkdir()
    (tmp_path / "datasets").mkdir()
    return tmp_path


def test_only_caches_are_listed(home):
    assert len(list_caches(home)) == 3
    assert list_caches(home / "missing") == []


def test_the_cache_that_grew_last_comes_first(home):
    first, second, third = list_caches(home)
    for cache, when in ((first, 100), (third, 200)):
        os.utime(cache / "commit/cache.json", (when, when))
    os.utime(second / "commit/cache.json", (50, 50))
    assert list_caches(home) == [third, first, second]
    fill(create(home, make_recipe().model_copy(update={"seed": 1})))
    assert list_caches(home)[0].name == make_recipe().model_copy(update={"seed": 1}).cache_id


def test_a_cache_is_found_by_path_name_or_beginning(home):
    cache = list_caches(home)[0]
    assert Path(find_cache(str(cache), home)) == cache
    assert Path(find_cache(cache.name, home)) == cache
    assert Path(find_cache(cache.name[:8], home)) == cache
    assert find_cache("s3://bucket/cache", home) == "s3://bucket/cache"


def test_what_is_no_cache_is_refused(home):
    with pytest.raises(InputError, match="there is no cache nothing"):
        find_cache("nothing", home)
    with pytest.raises(InputError, match="is not a cache"):
        find_cache(str(home), home)


def test_an_ambiguous_beginning_is_refused(home):
    seed, names = 3, [path.name for path in list_caches(home)]
    while len({name[0] for name in names}) == len(names):
        names.append(create(home, make_recipe().model_copy(update={"seed": seed})).id)
        seed += 1
    shared = next(name[0] for name in names if [n[0] for n in names].count(name[0]) > 1)
    with pytest.raises(InputError, match="several"):
        find_cache(shared, home)
