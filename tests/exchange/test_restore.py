"""An exported file becomes a working cache again."""

import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skd_cache.codec import parse_codec
from skd_cache.errors import InputError
from skd_cache.exchange import Dense, Top, export_views, restore
from skd_cache.exchange.layout import OutOfRangeError
from skd_cache.store import create_cache, open_cache
from tests.store.small_cache import CLASSES, SAMPLES, create, fill, make_recipe, side_arrays

VIEWS = [0, 1]
FORMS = {"float16": Dense(CLASSES), "topk:3": Top(CLASSES, 3)}


def made(home, codec, views=2):
    cache = create(home, make_recipe(codec=codec))
    fill(cache, views)
    return cache


def digests(cache):
    return [cache.digest(view) for view in VIEWS]


@pytest.fixture
def homes(tmp_path):
    for name in ("here", "there", "built"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize("codec", FORMS)
@pytest.mark.parametrize("source", ["itself", "float32"])
def test_the_import_is_the_cache_that_a_build_with_its_codec_makes(homes, codec, source):
    cache = made(homes / "here", codec if source == "itself" else source)
    export_views(cache, FORMS[codec], homes / "out.h5", VIEWS)
    back = restore(homes / "out.h5", str(homes / "there"))
    built = made(homes / "built", codec)
    assert back.id == built.id
    assert digests(back) == digests(built)
    assert back.recipe.kin == cache.recipe.kin
    assert list(back.verify(full=True)) == []


@pytest.mark.parametrize("codec", FORMS)
@pytest.mark.parametrize("source", ["int8", "klt"])
def test_what_lies_beside_the_views_comes_along(homes, codec, source):
    cache = made(homes / "here", source)
    export_views(cache, FORMS[codec], homes / "out.h5", VIEWS)
    back = restore(homes / "out.h5", str(homes / "there"))
    assert back.id != cache.id
    assert back.recipe.kin == cache.recipe.kin
    for name in ("labels", "contents", "class_weight"):
        assert (getattr(back, name) == getattr(cache, name)).all()
    assert back.statistics == cache.statistics
    assert back.provenance["software"] == cache.provenance["software"]
    assert back.provenance["imported"]["cache"] == cache.id
    for unit, commit in cache.commits.items():
        assert back.commits[unit].params == commit.params
    for view in VIEWS:
        ours, theirs = (each.read(view, 0, SAMPLES) for each in (back, cache))
        assert torch.equal(ours.probes, theirs.probes)
        assert torch.equal(ours.teacher.norm, theirs.teacher.norm)
        error = ours.teacher.probabilities() - theirs.teacher.probabilities()
        assert error.abs().max() < (2e-3 if codec == "float16" else 0.2)


def test_fewer_of_the_largest_are_what_a_smaller_k_would_have_kept(homes):
    cache = made(homes / "here", "topk:5")
    export_views(cache, Top(CLASSES, 3), homes / "out.h5", VIEWS)
    back = restore(homes / "out.h5", str(homes / "there"))
    assert digests(back) == digests(made(homes / "built", "topk:3"))


def test_a_file_may_hold_some_views_only_and_another_the_rest(homes):
    cache = made(homes / "here", "float16")
    for view in VIEWS:
        export_views(cache, Dense(CLASSES), homes / f"{view}.h5", [view])
    assert restore(homes / "1.h5", str(homes / "there")).views() == [1]
    assert digests(restore(homes / "0.h5", str(homes / "there"))) == digests(cache)


def test_a_teacher_without_a_last_layer_has_none_after_import(homes):
    cache = create(homes / "here", class_weight=None)
    fill(cache)
    export_views(cache, Dense(CLASSES), homes / "out.h5", [0])
    assert restore(homes / "out.h5", str(homes / "there")).class_weight is None


def test_another_cache_of_the_same_name_is_not_mixed_with(homes):
    cache = made(homes / "here", "float16")
    export_views(cache, Dense(CLASSES), homes / "out.h5", VIEWS)
    other = side_arrays(cache.recipe)
    other["contents"] = other["contents"] + np.uint64(1)
    create_cache(homes / "there" / cache.id, cache.recipe, provenance={}, **other)
    with pytest.raises(InputError, match="content differs"):
        restore(homes / "out.h5", str(homes / "there"))


RESTORE = """
import sys
from pathlib import Path
from skd_cache.exchange import restore
restore(Path(sys.argv[1]), sys.argv[2])
"""


def test_an_import_that_is_killed_goes_on(homes, monkeypatch):
    """Killed while the cache is created, in its first unit, and after some are committed."""
    cache = made(homes / "here", "float16")
    export_views(cache, Dense(CLASSES), homes / "out.h5", VIEWS)
    line = [sys.executable, "-c", RESTORE, homes / "out.h5", homes / "there"]
    place = homes / "there" / cache.id
    before: set[str] = set()
    for fault in (3, 60, 90):
        monkeypatch.setenv("SKD_CACHE_FAULT", str(fault))
        assert subprocess.run(line, check=False).returncode == 137
        names = {path.name + path.parent.name for path in place.glob("commit/0*/*")}
        assert before <= names, "what was committed stays"
        before = names
    assert before
    monkeypatch.delenv("SKD_CACHE_FAULT")
    kept = {path: path.stat().st_mtime_ns for path in place.glob("commit/0*/*")}
    assert digests(restore(homes / "out.h5", str(homes / "there"))) == digests(cache)
    assert all(path.stat().st_mtime_ns == touched for path, touched in kept.items())
    assert restore(homes / "out.h5", str(homes / "there")).views() == VIEWS
    assert list(open_cache(place).verify(full=True)) == []


finite = st.floats(-6e4, 6e4, width=32) | st.sampled_from([0.0, 1e-30, -1e-38, 1e-45, 6e4])


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 40)), elements=finite),
    st.sampled_from([1.0, 1e-3, 1e-10, 1e-30]),
)
@settings(deadline=None)
def test_every_code_is_found_again_bit_for_bit(logits, scale):
    """Rows that float16 logits cannot hold for smallness, and negative zeros, included."""
    form = Dense(logits.shape[1])
    encoded = parse_codec("float16", logits.shape[1]).encode(logits * np.float32(scale) / 2)
    blocks = form.to_file(encoded.code, encoded.norm)
    assert np.isfinite(blocks["logits"]).all()
    back = form.to_code(blocks, encoded.norm)
    assert back["code"].tobytes() == encoded.code["code"].tobytes()


@given(
    hnp.arrays(np.uint16, (3, 5)),
    hnp.arrays(np.float32, (3,), elements=st.floats(0, 2.0**100, width=32)),
)
@settings(deadline=None)
def test_any_finite_code_of_any_norm_is_found_again_or_refused(bits, norm):
    code = bits.view(np.float16)
    code = np.where(np.isfinite(code), code, np.float16(-0.0))
    form = Dense(5)
    with suppress(OutOfRangeError):
        blocks = form.to_file({"code": code}, norm)
        assert form.to_code(blocks, norm)["code"].tobytes() == code.tobytes()
