"""Ensembles and exported programs as teachers, through the real commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.export import Dim, export, save

from skd_cache.store import open_cache
from tests.end_to_end import tiny_nets
from tests.end_to_end.conftest import CLASSES, COUNT, Desk, Finished
from tests.end_to_end.test_bad_input import refused

TINY = "tests.end_to_end.tiny_nets:teacher"
SMALL = "tests.end_to_end.tiny_nets:small_teacher"  # 32 pixels
WIDE = "tests.end_to_end.tiny_nets:wide_teacher"  # 40 pixels, its own normalisation
EXACT = ("--codec", "float32")


def add_teachers(desk: Desk) -> Desk:
    """A second teacher's weights, and the first as programs of a free and of a fixed batch."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        save_file(
            tiny_nets.wide_teacher(len(CLASSES)).state_dict(), desk.folder / "wide.safetensors"
        )
        model = tiny_nets.teacher(len(CLASSES)).eval()
        model.load_state_dict(load_file(desk.weights))
        images = (torch.randn(7, 3, 32, 32),)
        save(export(model, images, dynamic_shapes=({0: Dim("b")},)), desk.folder / "free.pt2")
        save(export(model, images), desk.folder / "fixed.pt2")
    return desk


@pytest.fixture(scope="module")
def many(built: Desk) -> Desk:
    """The built desk, whose cache is of one teacher in float32, and more teachers."""
    return add_teachers(built)


def both(desk: Desk) -> tuple[object, ...]:
    wide = desk.folder / "wide.safetensors"
    return (
        *("--teacher", TINY, "--teacher", WIDE),
        *("--teacher-weights", desk.weights, "--teacher-weights", wide),
    )


def rows(place: str | Path, view: int = 0) -> torch.Tensor:
    return open_cache(place).read(view, 0, COUNT).teacher.logits()


def own_size(desk: Desk, *more: object, views: int = 2) -> Finished:
    """A build at the sizes the teachers come with."""
    done = desk.run(
        *("build", "--data", desk.images, "--dataset", "imagefolder", "--policy", "rrc-flip"),
        *("--batch-size", 16, "--shard", 64, "--threads", 1, "--views", views, *EXACT, *more),
    )
    assert done.code == 0, done.err
    return done


def centred(logits: torch.Tensor) -> torch.Tensor:
    return logits.double() - logits.double().mean(1, keepdim=True)


def two_sizes(desk: Desk) -> tuple[object, ...]:
    wide = desk.folder / "wide.safetensors"
    return (
        *("--teacher", SMALL, "--teacher", WIDE),
        *("--teacher-weights", desk.weights, "--teacher-weights", wide),
    )


def test_an_ensemble_s_cache_holds_the_mean_of_the_centred_logits(many: Desk):
    wide = many.folder / "wide.safetensors"
    small = own_size(many, "--teacher", SMALL, "--teacher-weights", many.weights).out
    large = own_size(many, "--teacher", WIDE, "--teacher-weights", wide).out
    own_size(many, *two_sizes(many), views=1)
    resumed = own_size(many, *two_sizes(many))
    assert "6, 3 already there, 3 to build" in resumed.err
    together = resumed.out
    recipe = open_cache(together).recipe
    assert [(one.size, one.mean[0]) for one in recipe.teachers] == [(32, 0.5), (40, 0.25)]
    assert recipe.sizes == [32, 40]
    for view in (0, 1):
        wanted = (centred(rows(small, view)) + centred(rows(large, view))) / 2
        # Rounded to float32 once; the batches are the same, so the networks' answers are too.
        torch.testing.assert_close(rows(together, view).double(), wanted, rtol=1e-6, atol=1e-7)
        probes = [open_cache(place).read(view, 0, COUNT).probes for place in (small, together)]
        assert torch.equal(*probes)
    weight = open_cache(together).class_weight
    assert weight.shape == (3, 16 + 24)
    np.testing.assert_array_equal(weight[:, :16] * 2, open_cache(small).class_weight)

    listed = json.loads(many.run("ls", "--json").out)["caches"]
    (row,) = (row for row in listed if row["id"] == Path(together).name)
    assert row["teachers"] == [SMALL, WIDE]
    told = many.run("info", together)
    assert told.code == 0, told.err
    assert told.out.count("teacher     tests") == 2


def test_an_ensemble_asked_online_trains_the_same_student(many: Desk):
    place = many.build(*both(many), "--size", 32, *EXACT)
    assert place.code == 0, place.err
    assert "preflight ensemble of 2 top-1" in place.err
    assert f"preflight teacher {WIDE} top-1" in place.err
    common = ("--loss", "kd", "--cache", place.out, "--epochs", 2)
    cached = many.distill(*common, "--out", many.folder / "ensemble-cached")
    wide = many.folder / "wide.safetensors"
    weights = ("--teacher-weights", many.weights, "--teacher-weights", wide)
    online = many.distill(*common, "--out", many.folder / "ensemble-online", "--online", *weights)
    assert cached.code == online.code == 0, cached.err + online.err
    assert Path(cached.out).read_bytes() == Path(online.out).read_bytes()
    swapped = many.distill(*common, "--online", *weights[2:], *weights[:2], run=many.call)
    refused(swapped, "do not fit the network")


def test_an_ensemble_of_two_sizes_asked_online_trains_the_same_student(many: Desk):
    place, weights = own_size(many, *two_sizes(many)).out, two_sizes(many)[4:]
    common = ("--loss", "kd", "--cache", place, "--epochs", 2)
    cached = many.distill(*common, "--out", many.folder / "sizes-cached")
    online = many.distill(*common, "--out", many.folder / "sizes-online", "--online", *weights)
    assert cached.code == online.code == 0, cached.err + online.err
    assert Path(cached.out).read_bytes() == Path(online.out).read_bytes()


@pytest.mark.parametrize("batch", ["free", "fixed"])
def test_a_program_gives_the_logits_of_the_eager_network(many: Desk, batch: str):
    program = many.folder / f"{batch}.pt2"
    place = many.build("--teacher", program, "--teacher-weights", "default", *EXACT)
    assert place.code == 0, place.err
    recipe = open_cache(place.out).recipe
    (eager,) = (
        path
        for path in many.home.glob("?" * 16)
        if (known := open_cache(path).recipe).teachers[0].architecture == TINY
        and len(known.teachers) == 1
    )
    assert recipe.teachers[0].architecture.startswith("export:")
    assert recipe.teachers[0].weights == open_cache(eager).recipe.teachers[0].weights
    assert open_cache(place.out).class_weight is None
    for view in (0, 1):
        torch.testing.assert_close(rows(place.out, view), rows(eager, view), rtol=1e-4, atol=1e-5)
    renamed = many.folder / f"renamed-{batch}.pt2"
    renamed.write_bytes(program.read_bytes())
    again = many.build("--teacher", renamed, "--teacher-weights", "default", *EXACT)
    assert again.out == place.out
    assert "0 to build" in again.err


def test_a_program_is_asked_online_again(many: Desk):
    program = many.folder / "fixed.pt2"
    place = many.build("--teacher", program, "--teacher-weights", "default", *EXACT)
    common = ("--loss", "kd", "--cache", place.out, "--epochs", 2)
    cached = many.distill(*common, "--out", many.folder / "program-cached")
    online = many.distill(
        *common, "--out", many.folder / "program-online", "--online", "--teacher-weights", program
    )
    assert cached.code == online.code == 0, cached.err + online.err
    assert Path(cached.out).read_bytes() == Path(online.out).read_bytes()
    for weights in ([], ["--teacher-weights", many.folder / "free.pt2"]):
        done = many.distill(*common, "--online", *weights, run=many.call)
        refused(done, "export:")


def test_a_program_in_an_ensemble(many: Desk):
    wide = many.folder / "wide.safetensors"
    place = many.build(
        *("--teacher", many.folder / "free.pt2", "--teacher", WIDE, "--views", 1, *EXACT),
        *("--teacher-weights", "default", "--teacher-weights", wide),
        run=many.call,
    )
    assert place.code == 0, place.err
    assert open_cache(place.out).class_weight is None
    assert len(open_cache(place.out).recipe.teachers) == 2


def test_wrong_teachers_are_refused_in_a_sentence(many: Desk):
    build, free = many.build, many.folder / "free.pt2"
    junk, cut = many.folder / "junk.pt2", many.folder / "cut.pt2"
    junk.write_bytes(b"no program")
    cut.write_bytes(free.read_bytes()[:-300])
    default = ("--teacher-weights", "default")
    for options, says in (
        (("--teacher", TINY, "--teacher", WIDE), "There are 2 --teacher and 1 --teacher-weights"),
        (("--teacher", TINY, "--teacher", TINY, *("--teacher-weights", many.weights) * 2), "once"),
        (("--teacher", free), "holds its own weights"),
        (("--teacher", many.folder / "none.pt2", *default), "does not exist"),
        (("--teacher", junk, *default), "cannot be read as a program"),
        (("--teacher", cut, *default), "cannot be read as a program"),
        (("--teacher", free, *default, "--size", 40), "exported for images of 32x32"),
        (("--teacher", "export:0123456789abcdef", *default), "give its .pt2 file"),
    ):
        refused(build(*options, run=many.call), says)


def test_a_program_cut_short_ends_the_real_command_with_a_sentence(many: Desk):
    cut = many.folder / "short.pt2"
    cut.write_bytes((many.folder / "free.pt2").read_bytes()[:5000])
    refused(many.build("--teacher", cut, "--teacher-weights", "default"), "short.pt2")
