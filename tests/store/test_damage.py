"""Nothing a cache contains is trusted: damage is named, never read as numbers."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from skd_cache.errors import DataError, InputError
from skd_cache.seed import samples_at
from skd_cache.store import Recipe, Unit, create_cache, open_cache
from skd_cache.store.layout import Layout
from skd_cache.store.writer import encode_shard
from tests.store.small_cache import create, fill, make_recipe, side_arrays, write

SHARD = "logits.zarr/view/00000/code/c/1/0"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    cache = create(tmp_path_factory.mktemp("sound"))
    fill(cache)
    return Path(cache.location)


@pytest.fixture
def folder(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / sound.name))


def flip(place, at=-200):
    data = bytearray(place.read_bytes())
    data[at] ^= 1
    place.write_bytes(data)


def rewrite(place, **changes):
    document = json.loads(place.read_bytes()) | changes
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    place.write_text(text)


def damages(folder):
    shard, other = folder / SHARD, folder / "logits.zarr/view/00000/code/c/0/0"
    return {
        "a flipped bit": lambda: flip(shard),
        "a short shard": lambda: shard.write_bytes(shard.read_bytes()[:-1]),
        "an empty shard": lambda: shard.write_bytes(b""),
        "a missing shard": lambda: shard.unlink(),
        "another shard": lambda: shutil.copy(other, shard),
        "a folder": lambda: (shard.unlink(), shard.mkdir()),
    }


@pytest.mark.parametrize("damage", damages(Path()))
def test_a_damaged_shard_is_refused_with_view_and_sample(folder, damage):
    damages(folder)[damage]()
    cache = open_cache(folder)
    sample = samples_at(cache.recipe.seed, 0, np.array([128]), 300)[0]
    assert len(cache.read(0, 0, 128)) == 128, "the other shards stay readable"
    with pytest.raises(DataError, match=rf"view 0, shard 1 .*sample {sample}\)") as caught:
        list(cache.stream(0, 0, 300, 50))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        cache.lookup(0, np.arange(300))
    assert [problem for problem in cache.verify(full=True) if SHARD in problem]


def test_verify_sees_sizes_at_once_and_bytes_when_asked(folder):
    flip(folder / SHARD)
    cache = open_cache(folder)
    assert list(cache.verify()) == []
    (problem,) = cache.verify(full=True)
    assert problem == f"view 0, shard 1: {SHARD} is not what was committed (sha256 differs)"
    (folder / SHARD).unlink()
    assert list(cache.verify()) == [f"view 0, shard 1: {SHARD} is missing"]


def test_a_norm_that_is_not_a_number_is_damage(folder):
    """Even when its commit agrees, as after a writer that was wrong."""
    cache = open_cache(folder)
    norm = cache.read(0, 0, 128).teacher.norm.numpy().copy()
    norm[3] = np.nan
    grid = Layout(cache.recipe, {}).view(0)["norm"]
    data = encode_shard(grid, 0, norm)
    (folder / grid.object(0)).write_bytes(data)
    place = folder / "commit/00000/00000.json"
    objects = json.loads(place.read_bytes())["objects"]
    objects["norm"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite(place, objects=objects)
    sample = samples_at(cache.recipe.seed, 0, np.array([3]), 300)[0]
    with pytest.raises(DataError, match=f"position 3, sample {sample} has a norm"):
        open_cache(folder).read(0, 0, 10)


@pytest.mark.parametrize(
    "changes",
    [
        {"view": 1},
        {"shard": 1},
        {"cache": "0" * 16},
        {"format": 2},
        {"params": "short"},
        {"objects": {}},
        {"objects": {"../../etc/passwd": {"size": 1, "sha256": "0" * 64}}},
        {"extra": 1},
        {"view": "0"},
        {"statistics": {"count": 128}},
    ],
    ids=str,
)
def test_a_changed_commit_is_refused(folder, changes):
    rewrite(folder / "commit/00000/00000.json", **changes)
    with pytest.raises(DataError, match=r"commit/00000/00000\.json is damaged"):
        open_cache(folder)


def test_a_commit_that_is_too_large_is_not_read(folder):
    (folder / "commit/00000/00000.json").write_bytes(b"[" * 10_000_000)
    with pytest.raises(DataError, match="10,000,000 bytes"):
        open_cache(folder)


@pytest.mark.parametrize("text", ["", "{", "[" * 60_000, "null", '{"a":1}', '{"seed":1e999}'])
def test_a_recipe_that_is_none_is_refused(folder, text):
    (folder / "recipe.json").write_text(text)
    with pytest.raises(DataError, match=r"recipe\.json is damaged"):
        open_cache(folder)


def test_a_changed_recipe_no_longer_fits_its_folder(folder):
    rewrite(folder / "recipe.json", seed=8)
    with pytest.raises(DataError, match="holds the recipe of"):
        open_cache(folder)


def test_a_recipe_in_another_spelling_is_refused(folder):
    place = folder / "recipe.json"
    place.write_text(json.dumps(json.loads(place.read_text()), indent=1))
    with pytest.raises(DataError, match="canonical"):
        open_cache(folder)


@pytest.mark.parametrize("what", ["label", "content", "class_weight"])
def test_changed_side_arrays_are_refused(folder, what):
    group = "teacher" if what == "class_weight" else "sample"
    (place,) = (
        path for path in (folder / f"logits.zarr/{group}/{what}/c").rglob("*") if path.is_file()
    )
    flip(place, 0)
    cache = open_cache(folder)
    with pytest.raises(DataError, match="not what was committed"):
        {"label": lambda: cache.labels, "content": lambda: cache.contents}.get(
            what, lambda: cache.class_weight
        )()
    assert len(list(cache.verify(full=True))) == 1
    place.unlink()
    with pytest.raises(DataError, match="is missing"):
        open_cache(folder)


@pytest.mark.parametrize(
    "name", ["zarr.json", "view/zarr.json", "sample/label/zarr.json", "view/00000/norm/zarr.json"]
)
def test_changed_zarr_metadata_are_named(folder, name):
    rewrite(folder / "logits.zarr" / name, attributes={"other": 1})
    try:
        problems = list(open_cache(folder).verify())
    except DataError as error:
        problems = [str(error)]
    assert [problem for problem in problems if name in problem]


def test_wrong_zarr_metadata_cannot_change_what_is_read(folder):
    before = open_cache(folder).read(0, 0, 300).teacher.logits()
    place = folder / "logits.zarr/view/00000/code/zarr.json"
    rewrite(place, data_type="int8", shape=[2**40, 2**40])
    assert (open_cache(folder).read(0, 0, 300).teacher.logits() == before).all()


def test_foreign_files_among_the_commits_are_no_units(folder):
    (folder / "commit/00000/00099.json").write_text("{}")
    (folder / "commit/note.txt").write_text("hello")
    assert open_cache(folder).views() == [0]


def test_a_missing_commit_makes_the_view_incomplete(folder):
    (folder / "commit/00000/00001.json").unlink()
    cache = open_cache(folder)
    assert cache.missing(range(1)) == [Unit(0, 1)]
    with pytest.raises(InputError, match="1 of its 3 shards"):
        cache.digest(0)
    write(cache, Unit(0, 1))
    assert list(cache.verify(full=True)) == []


def test_a_folder_that_is_no_cache_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no recipe\.json"):
        open_cache(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        open_cache(tmp_path / "missing")
    with pytest.raises(InputError, match="foo"):
        open_cache("foo://bucket/x")


def test_other_files_under_the_same_recipe_are_refused(folder):
    recipe = make_recipe()
    sides = side_arrays(recipe)
    sides["contents"] = sides["contents"] + np.uint64(1)
    with pytest.raises(InputError, match="its content differs"):
        create_cache(folder, recipe, provenance={}, **sides)


@pytest.mark.parametrize(
    "changes",
    [
        {"shard": 100},
        {"chunk": 48},
        {"seed": -1},
        {"seed": 2**64},
        {"views_per_decode": 2},
        {"other": 1},
        {"format": 2},
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_is_refused(changes):
    data = make_recipe().model_dump() | changes
    with pytest.raises(ValueError, match=next(iter(changes))):
        Recipe.model_validate(data)


def test_the_recipe_decides_the_name(sound):
    recipe = open_cache(sound).recipe
    assert recipe.cache_id == sound.name
    kin = recipe.model_copy(update={"precision": "float16", "codec": {"name": "int8"}})
    assert kin.cache_id != recipe.cache_id
    assert kin.kin == recipe.kin
    assert recipe.model_copy(update={"seed": 8}).kin != recipe.kin
