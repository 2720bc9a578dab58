"""What a codec was fitted to lies under the cache's commit, and every unit names it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from skd_cache.codec import fit
from skd_cache.errors import DataError, SkdCacheError
from skd_cache.store import create_cache, open_cache
from tests.store.small_cache import (
    create,
    fill,
    fitted,
    logits_of,
    make_recipe,
    samples_of,
    side_arrays,
)

RECIPE = make_recipe(classes=40, codec="klt")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    cache = create(tmp_path_factory.mktemp("sound"), RECIPE)
    fill(cache)
    return cache


@pytest.fixture
def folder(sound, tmp_path):
    return Path(shutil.copytree(sound.location, tmp_path / sound.id))


def other_fit():
    """A basis of the same recipe, as of another machine: fitted to slightly other logits."""
    rows = logits_of(RECIPE, 0, samples_of(RECIPE, 0, 0, 128)) * np.float32(1.01)
    return fit(RECIPE.planned_codec(), [rows], None)


def test_the_basis_comes_back_as_it_was_fitted(sound):
    again = open_cache(sound.location).codec.side
    for name, array in fitted(RECIPE).side.items():
        assert again[name].tobytes() == array.tobytes()


def test_a_second_builder_takes_the_basis_that_is_there(sound, folder):
    arrays = side_arrays(RECIPE)
    cache = create_cache(folder, RECIPE, provenance={}, codec=other_fit(), **arrays)
    assert cache.codec.side["basis"].tobytes() == sound.codec.side["basis"].tobytes()
    fill(cache, views=2)
    assert cache.digest(0) == sound.digest(0)


def test_every_commit_names_what_it_was_encoded_on(sound, folder, tmp_path):
    other = create(tmp_path / "other", RECIPE, codec=other_fit())
    fill(other)
    assert other.id == sound.id
    assert other.digest(0) != sound.digest(0)
    shutil.copytree(Path(other.location) / "commit/00000", folder / "commit/00001")
    for name in ("00000.json", "00001.json", "00002.json"):
        place = folder / "commit/00001" / name
        document = json.loads(place.read_bytes()) | {"view": 1}
        place.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    with pytest.raises(DataError, match="on another basis"):
        open_cache(folder)


@pytest.mark.parametrize("name", ["basis", "offset", "threshold"])
def test_a_damaged_basis_is_refused_before_anything_is_decoded(folder, name):
    stored = (folder / f"logits.zarr/codec/{name}/c").rglob("*")
    (place,) = (path for path in stored if path.is_file())
    data = bytearray(place.read_bytes())
    data[9] ^= 1
    place.write_bytes(data)
    with pytest.raises(DataError, match=name):
        open_cache(folder).read(0, 0, 10)
    assert any(name in problem for problem in open_cache(folder).verify(full=True))


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"basis": [40, 33], "offset": [40], "threshold": [33, 2]},
        {"basis": [40, 96], "offset": [40], "threshold": [96, 2]},
        {"basis": [41, 64], "offset": [41], "threshold": [64, 2]},
        {"basis": [40, 2**20], "offset": [40], "threshold": [2**20, 2]},
        {"basis": [40], "offset": [40], "threshold": [64, 2]},
    ],
)
def test_shapes_that_no_basis_has_are_refused(folder, shapes):
    place = folder / "commit/cache.json"
    weight = json.loads(place.read_bytes())["shapes"]["class_weight"]
    document = json.loads(place.read_bytes()) | {"shapes": shapes | {"class_weight": weight}}
    place.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    with pytest.raises(DataError, match=r"cache\.json is damaged"):
        open_cache(folder)


def test_a_recipe_with_klt_is_not_created_without_its_basis(tmp_path):
    with pytest.raises(SkdCacheError):
        create(tmp_path, RECIPE, codec=None)
    assert not list(tmp_path.rglob("recipe.json"))
