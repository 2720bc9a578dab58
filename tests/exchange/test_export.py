"""What somebody finds who opens an exported file with h5py alone."""

import fcntl
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from skd_cache.batch import Statistics, judge
from skd_cache.errors import DataError, InputError
from skd_cache.exchange import Dense, Top, complete_views, export_views
from skd_cache.store import Unit, create_cache, open_cache
from tests.store.small_cache import (
    CLASSES,
    SAMPLES,
    create,
    fill,
    logits_of,
    make_recipe,
    side_arrays,
    write,
)

CODECS = {"float32": 2e-3, "float16": 2e-3, "int8": 0.06, "klt:step=0.2": 0.1}  # tolerances


def made(home: Path, codec: str = "float32", views: int = 2):
    cache = create(home, make_recipe(codec=codec))
    fill(cache, views)
    return cache


def write_rows(cache, logits):
    """One unit of these logits."""
    rows = logits.astype(np.float32)
    encoded = cache.codec.encode(rows)
    statistics = Statistics.of(encoded.norm, judge(rows, np.zeros(len(rows), np.int32)))
    probe = np.zeros((1, 8, 8, 3), np.uint8)
    cache.write_unit(Unit(0, 0), encoded.norm, encoded.code, probe, "c" * 64, statistics)


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("codec", CODECS)
def test_logits_are_the_teachers_by_sample(tmp_path, codec):
    cache = made(tmp_path, codec)
    export_views(cache, Dense(CLASSES), tmp_path / "out.h5", [0, 1])
    with h5py.File(tmp_path / "out.h5") as h5:
        for view in (0, 1):
            group = h5[f"view/{view:05d}"]
            wanted = logits_of(cache.recipe, view, group["sample"][:])
            assert group["logits"].dtype == np.float16
            logits = group["logits"][:].astype(np.float64)
            np.testing.assert_allclose(softmax(logits), softmax(wanted), atol=CODECS[codec])
            np.testing.assert_allclose(logits.mean(axis=1), 0, atol=5e-3)
            np.testing.assert_allclose(np.linalg.norm(logits, axis=1), group["norm"][:], rtol=1e-3)
            assert sorted(group["sample"][:]) == list(range(SAMPLES))


def test_probabilities_are_ranked_and_belong_to_their_classes(tmp_path):
    cache = made(tmp_path, views=1)
    export_views(cache, Top(CLASSES, 3), tmp_path / "out.h5", [0])
    with h5py.File(tmp_path / "out.h5") as h5:
        group = h5["view/00000"]
        wanted = softmax(logits_of(cache.recipe, 0, group["sample"][:]).astype(np.float64))
        index = group["index"][:]
        assert (index == np.argsort(-wanted, axis=1)[:, :3]).all()
        kept = np.take_along_axis(wanted, index.astype(int), axis=1)
        np.testing.assert_allclose(group["probability"][:], kept, rtol=2**-11, atol=2**-24)


def test_the_file_tells_what_it_is(tmp_path):
    recipe, names = make_recipe(), [f"class {label}" for label in range(CLASSES)]
    where = tmp_path / recipe.cache_id
    cache = create_cache(where, recipe, provenance={"classes": names}, **side_arrays(recipe))
    fill(cache)
    export_views(cache, Dense(CLASSES), tmp_path / "out.h5", [0])
    with h5py.File(tmp_path / "out.h5") as h5:
        assert json.loads(h5.attrs["recipe"]) == json.loads(cache.recipe.canonical())
        assert json.loads(h5["origin"][()])["cache"] == cache.id
        assert json.loads(h5["provenance"][()]) == cache.provenance
        assert h5["class_name"].asstr()[:].tolist() == names
        assert b"softmax" in h5.attrs["about"]
        assert (h5["label"][:] == cache.labels).all()
        assert (h5["class_weight"][:] == cache.class_weight).all()


def test_the_document_names_everything_in_a_file(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "exchange.md").read_text()
    cache = made(tmp_path)
    export_views(cache, Dense(CLASSES), tmp_path / "hdf5.h5", [0])
    export_views(cache, Top(CLASSES, 3), tmp_path / "topk.h5", [0])
    for form in ("hdf5", "topk"):
        with h5py.File(tmp_path / f"{form}.h5") as h5:
            arrays = [name for name in h5 if name != "view"]
            arrays += [f"view/V/{name}" for name in h5["view/00000"]]
            assert [name for name in (*arrays, *h5.attrs) if f"`{name}`" not in text] == []


def test_two_exports_are_the_same_bytes(tmp_path):
    cache = made(tmp_path)
    for name in "ab":
        export_views(cache, Dense(CLASSES), tmp_path / f"{name}.h5", [0, 1])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_only_complete_views_are_written(tmp_path):
    cache = made(tmp_path, views=1)
    write(cache, Unit(1, 0))
    assert complete_views(cache, None) == ([0], [1])
    assert complete_views(cache, range(3)) == ([0], [1, 2])
    with pytest.raises(InputError, match="it holds 0"):
        complete_views(cache, range(1, 3))


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path):
    cache, file = made(tmp_path), tmp_path / "out.h5"
    file.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        export_views(cache, Dense(CLASSES), file, [0])
    assert file.read_text() == "precious"
    export_views(cache, Dense(CLASSES), file, [0], force=True)
    assert h5py.is_hdf5(file)


def test_a_failed_export_leaves_nothing(tmp_path):
    cache = made(tmp_path)
    shard = next(Path(cache.location).glob("logits.zarr/view/00001/code/c/2/*"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match="view 1"):
        export_views(open_cache(cache.location), Dense(CLASSES), tmp_path / "out.h5", [0, 1])
    assert [path.name for path in tmp_path.iterdir()] == [cache.id]


def test_what_a_killed_export_left_is_taken_over(tmp_path):
    cache, file = made(tmp_path), tmp_path / "out.h5"
    (tmp_path / ".out.h5.partial").write_bytes(b"half a file" * 100)
    export_views(cache, Dense(CLASSES), file, [0])
    assert h5py.is_hdf5(file)
    assert {path.name for path in tmp_path.iterdir()} == {cache.id, "out.h5"}


def test_two_exports_to_one_file_do_not_mix(tmp_path):
    cache, file = made(tmp_path), tmp_path / "out.h5"
    with (tmp_path / ".out.h5.partial").open("wb") as other:
        other.write(b"theirs")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another export writes"):
            export_views(cache, Dense(CLASSES), file, [0])
        assert (tmp_path / ".out.h5.partial").read_bytes() == b"theirs"


def test_a_disk_too_small_is_said_before_anything_is_written(tmp_path, monkeypatch):
    cache = made(tmp_path)
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    with pytest.raises(InputError, match="its disk has"):
        export_views(cache, Dense(CLASSES), tmp_path / "out.h5", [0])
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("codec", ["float32", "float16"])
def test_a_logit_beyond_float16_is_refused_and_its_sample_named(tmp_path, codec):
    cache = create(tmp_path, make_recipe(64, CLASSES, codec, 64, 64))
    write_rows(cache, np.where(np.arange(64)[:, None] == 17, 1e6, 1) * np.eye(64, CLASSES, k=-15))
    with pytest.raises(InputError, match=r"view 0, sample \d+ has a logit above 65,504"):
        export_views(cache, Dense(CLASSES), tmp_path / "out.h5", [0])
    export_views(cache, Top(CLASSES, 2), tmp_path / "out.h5", [0])


def test_what_is_no_longer_there_cannot_be_exported(tmp_path):
    cache = create(tmp_path, make_recipe(codec="topk:3"))
    fill(cache)
    with pytest.raises(InputError, match="--to topk"):
        export_views(cache, Dense(CLASSES), tmp_path / "out.h5", [0])
    with pytest.raises(InputError, match="--k 3"):
        export_views(cache, Top(CLASSES, 4), tmp_path / "out.h5", [0])
