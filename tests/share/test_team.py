"""Push and pull: what was built once is the same everywhere."""

import shutil
from pathlib import Path

import pytest

from skd_cache.errors import DataError, InputError
from skd_cache.share import Pin, Registry, pins_of, pull, push
from skd_cache.store import Unit, open_cache
from skd_cache.store.objects import Objects
from tests.store.small_cache import create, fill, make_recipe, side_arrays, write


def digests(cache):
    return {view: cache.digest(view) for view in cache.views()}


def quiet(_line):
    pass


def pull_all(cache, registry, home, views=None, pin=None):
    return pull(cache.id, Registry(registry), Path(home), views, pin, quiet)


@pytest.fixture(params=["s3", "file", "folder"])
def registry(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("bucket")
    folder = tmp_path / "team"
    folder.mkdir()
    return str(folder) if request.param == "folder" else f"file://{folder}"


def test_what_is_pushed_wiped_and_pulled_has_the_same_digests(cache, registry, tmp_path):
    push(cache.location, Registry(registry), None, quiet)
    before = digests(cache)
    shutil.rmtree(cache.location)
    found = pull_all(cache, registry, tmp_path / "home")
    again = open_cache(found.location)
    assert digests(again) == before
    assert list(again.verify(full=True)) == []
    assert found.carried.units == 6
    there = open_cache(Registry(registry).objects(cache.id))
    assert list(there.verify(full=True)) == []
    assert [one.name for one in there.objects.list("stage")] == []


@pytest.mark.parametrize("codec", ["float16", "int8", "klt", "topk:3"])
def test_every_codec_travels(bucket, tmp_path, codec):
    made = create(tmp_path / "made", make_recipe(classes=40, codec=codec))
    fill(made)
    push(made.location, Registry(bucket), None, quiet)
    found = open_cache(pull_all(made, bucket, tmp_path / "home").location)
    assert digests(found) == digests(made)
    assert list(found.verify(full=True)) == []


def test_only_what_is_missing_moves(cache, bucket, tmp_path):
    registry = Registry(bucket)
    assert push(cache.location, registry, range(1), quiet).carried.units == 3
    assert push(cache.location, registry, None, quiet).carried.units == 3
    assert push(cache.location, registry, None, quiet).carried.units == 0
    home = tmp_path / "home"
    assert pull_all(cache, bucket, home, range(1, 2)).carried.units == 3
    assert pull_all(cache, bucket, home).carried.units == 3
    assert pull_all(cache, bucket, home).carried.units == 0


def test_a_unit_that_stands_there_with_other_rows_stays_and_is_named(cache, bucket, tmp_path):
    other = create(tmp_path / "other")
    write(other, Unit(0, 1), noise=1e-3)
    push(other.location, Registry(bucket), None, quiet)
    said = []
    found = push(cache.location, Registry(bucket), None, said.append)
    assert found.carried.theirs == (Unit(0, 1),)
    assert "view 0 shard 1" in said[-1]
    there = open_cache(Registry(bucket).objects(cache.id))
    assert there.commits[Unit(0, 1)] == other.commits[Unit(0, 1)] != cache.commits[Unit(0, 1)]
    assert list(there.verify(full=True)) == []


def test_a_cache_created_apart_is_refused_with_the_ways_out(cache, bucket, tmp_path):
    arrays = side_arrays(cache.recipe)
    other = create(tmp_path / "other", class_weight=arrays["class_weight"] + 1)
    fill(other)
    push(other.location, Registry(bucket), None, quiet)
    with pytest.raises(InputError, match=r"class_weight differ.*--new"):
        push(cache.location, Registry(bucket), None, quiet)
    shutil.copytree(cache.location, tmp_path / "home" / cache.id)
    with pytest.raises(InputError, match=r"class_weight differ.*--new"):
        pull_all(cache, bucket, tmp_path / "home")


def test_a_pin_names_exact_bytes(cache, bucket, tmp_path):
    push(cache.location, Registry(bucket), None, quiet)
    (pin,) = pins_of(cache.id, digests(cache))
    assert Pin.parse(str(pin)) == pin
    pull_all(cache, bucket, tmp_path / "home", pin=pin)
    wrong = Pin(cache.id, range(1), pin.digest)
    with pytest.raises(DataError, match="other data than the pin names"):
        pull_all(cache, bucket, tmp_path / "elsewhere", pin=wrong)
    assert not (tmp_path / "elsewhere").exists()


def test_a_pin_is_held_against_what_is_here_already(cache, bucket, tmp_path):
    push(cache.location, Registry(bucket), None, quiet)
    (pin,) = pins_of(cache.id, digests(cache))
    mine = create(tmp_path / "home")
    write(mine, Unit(0, 1), noise=1e-3)
    with pytest.raises(DataError, match="view 0, shard 1"):
        pull_all(cache, bucket, tmp_path / "home", pin=pin)
    assert set(open_cache(mine.location).commits) == {Unit(0, 1)}


def test_runs_of_views_have_a_pin_each():
    found = pins_of(
        "0" * 16, {0: "sha256:" + "a" * 64, 1: "sha256:" + "b" * 64, 4: "sha256:" + "c" * 64}
    )
    assert [pin.views for pin in found] == [range(2), range(4, 5)]


def test_what_is_not_there_is_said(cache, bucket, tmp_path):
    with pytest.raises(InputError, match="is not a cache"):
        pull_all(cache, bucket, tmp_path / "home")
    push(cache.location, Registry(bucket), None, quiet)
    with pytest.raises(InputError, match="holds nothing of views 7 to 8; complete are 0, 1"):
        pull_all(cache, bucket, tmp_path / "home", range(7, 9))
    assert not (tmp_path / "home").exists()
    with pytest.raises(InputError, match="no such bucket"):
        push(cache.location, Registry("s3://nobody/here"), None, quiet)


def test_a_registry_lists_its_caches_and_finds_them_by_a_prefix(cache, bucket):
    push(cache.location, Registry(bucket), None, quiet)
    Objects(f"{bucket}/notes").replace("read.me", b"x")
    assert Registry(bucket).caches() == [cache.id]
    assert Registry(bucket).find(cache.id[:4]) == cache.id
    with pytest.raises(InputError, match="there is no cache"):
        Registry(bucket).find("../../etc")
