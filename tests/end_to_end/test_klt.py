"""The default codec through the real commands; with so few images only when it is let."""

import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Desk


@pytest.fixture
def few_suffice(monkeypatch):
    """klt, although there are three classes and 64 images in a shard."""
    monkeypatch.setattr("skd_cache.codec.MIN_SAMPLES", 64)
    monkeypatch.setattr("skd_cache.codec.MIN_CLASSES", 3)


@pytest.mark.usefixtures("few_suffice")
def test_a_cache_is_fitted_once_built_extended_and_distilled_from(desk: Desk):
    done = desk.build(run=desk.call)
    assert done.code == 0, done.err
    place = Path(done.out)
    told = json.loads(desk.call("info", place, "--json").out)
    assert told["codec"] == "klt"
    assert told["views"] == [0, 1]
    side = (place / "commit/cache.json").read_bytes()
    assert {"basis", "offset", "threshold"} < json.loads(side)["objects"].keys()
    more = desk.build("--views", 3, run=desk.call)
    assert more.code == 0, more.err
    assert (place / "commit/cache.json").read_bytes() == side
    assert desk.call("verify", place, "--full").code == 0
    trained = desk.distill(
        "--loss", "kd", "--cache", place, "--out", desk.folder / "run", run=desk.call
    )
    assert trained.code == 0, trained.err


@pytest.mark.usefixtures("few_suffice")
def test_two_builds_of_a_recipe_have_the_same_bytes(desk: Desk):
    builds = [desk.build("--out", desk.folder / name, run=desk.call) for name in ("one", "two")]
    digests = [json.loads(desk.call("info", b.out, "--json").out)["digest"] for b in builds]
    assert digests[0] == digests[1]


@pytest.mark.usefixtures("few_suffice")
def test_a_level_or_settings_can_be_asked_for(desk: Desk):
    names = ["klt:small", "klt:fine", "klt:step=0.7,lagrange=0.05,refine=4/8"]
    for name in names:
        done = desk.build("--codec", name, "--views", 1, run=desk.call)
        assert done.code == 0, done.err
        assert json.loads(desk.call("info", done.out, "--json").out)["codec"] == name


def test_with_too_little_to_fit_to_the_build_says_so_and_takes_int8(desk: Desk):
    done = desk.build("--views", 1, run=desk.call)
    assert done.code == 0, done.err
    assert "codec     int8: klt is for 32 classes and more" in done.err
    assert json.loads(desk.call("info", done.out, "--json").out)["codec"] == "int8"


def test_a_wrong_setting_is_one_sentence(desk: Desk):
    done = desk.build("--codec", "klt:step=huge", run=desk.call)
    assert done.code == 2
    assert "klt:step=huge is neither" in done.err


@pytest.mark.usefixtures("few_suffice")
def test_a_klt_cache_can_be_exported_and_imported(desk: Desk):
    built = desk.build(run=desk.call)
    file = desk.folder / "logits.h5"
    assert desk.call("export", built.out, "--to", "hdf5", "-o", file).code == 0
    back = desk.call("import", file)
    assert back.code == 0, back.err
    told = json.loads(desk.call("info", back.out, "--json").out)
    assert (told["codec"], told["views"]) == ("float16", [0, 1])
    assert told["kin"] == json.loads(desk.call("info", built.out, "--json").out)["kin"]
