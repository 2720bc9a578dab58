"""Run folders: what is refused, resumed, started over, and written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from skd_cache.dataset.dataset import Dataset
from skd_cache.distill.evaluate import evaluate
from skd_cache.distill.run import distill
from skd_cache.distill.student import load_student
from skd_cache.errors import DataError, InputError, SkdCacheError
from tests.distill.conftest import same, weights
from tests.distill.workshop import (
    CLASSES,
    DEFAULTS,
    ToyTeacher,
    make_cache,
    make_images,
    make_settings,
    reencode,
)

STUDENTS = "tests.distill.tiny_students"


@pytest.fixture
def finished(dataset, cache, tmp_path):
    distill(make_settings(dataset, cache), dataset, tmp_path / "run", cache=cache)
    return tmp_path / "run"


def epochs_of(run: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "epoch"]


def test_a_student_learns_what_the_teacher_knows(dataset, cache, tmp_path):
    settings = make_settings(dataset, cache, losses=("ce",), epochs=12)
    result = distill(settings, dataset, tmp_path / "run", cache=cache)
    assert result.best_top1 > 0.5
    losses = [line["loss"] for line in epochs_of(tmp_path / "run")]
    assert losses[-1] < 0.6 * losses[0]


def test_a_run_folder_holds_what_the_design_says(finished, cache):
    names = {path.name for path in finished.iterdir()} - {"tensorboard"}
    expected = {"student.safetensors", "best.safetensors", "checkpoint", "metrics.jsonl"}
    assert names == expected | {"run.json"}
    record = json.loads((finished / "run.json").read_text())
    assert record["settings"]["cache"] == cache.id
    assert record["views"] == [0, 1]
    assert record["statistics"]["norm_sum"] == cache.statistics.norm_sum
    assert record["threads"] == torch.get_num_threads()
    assert record["memory_format"] == "channels_last"
    steps = (finished / "metrics.jsonl").read_text().splitlines()
    assert {"loss", "lr", "images_per_second", "wait_images"} <= json.loads(steps[0]).keys()


def test_a_finished_run_is_not_trained_again(finished, dataset, cache):
    before = weights(finished)
    result = distill(make_settings(dataset, cache), dataset, finished, cache=cache)
    assert result.pace.images == 0
    assert result.steps == 20
    assert result.top1 is not None
    assert same(before, weights(finished))


def test_other_settings_are_refused_naming_the_field(finished, dataset, cache):
    other = make_settings(dataset, cache, lr=0.2, epochs=5)
    with pytest.raises(InputError, match=r"lr 0\.1 where 0\.2.*--fresh") as refused:
        distill(other, dataset, finished, cache=cache)
    assert "epochs 4 where 5" in str(refused.value)


def test_fresh_starts_over_and_keeps_foreign_files(finished, dataset, cache):
    (finished / "notes.txt").write_text("mine")
    result = distill(
        make_settings(dataset, cache, epochs=1), dataset, finished, cache=cache, fresh=True
    )
    assert result.steps == 5
    assert len(epochs_of(finished)) == 1
    assert (finished / "notes.txt").read_text() == "mine"


def test_files_of_an_unknown_run_are_not_taken_for_this_one_s(finished, dataset, cache):
    (finished / "run.json").unlink()
    with pytest.raises(InputError, match=r"but no run\.json.*--fresh"):
        distill(make_settings(dataset, cache), dataset, finished, cache=cache)


def test_fresh_with_a_mistake_destroys_nothing(finished, dataset, cache):
    before = weights(finished)
    mistaken = make_settings(dataset, cache, student="resnt18")
    with pytest.raises(InputError, match="nearest: resnet18"):
        distill(mistaken, dataset, finished, cache=cache, fresh=True)
    assert same(before, weights(finished))


def test_a_torn_checkpoint_is_ignored(dataset, cache, tmp_path):
    settings = make_settings(dataset, cache)
    whole = tmp_path / "whole"
    distill(settings, dataset, whole, cache=cache)
    torn = tmp_path / "torn"
    distill(settings, dataset, torn, cache=cache)
    newest, older = sorted((torn / "checkpoint").iterdir(), reverse=True)
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    (torn / "checkpoint" / ".step-000000021.partial").mkdir()
    (torn / "student.safetensors").unlink()
    result = distill(settings, dataset, torn, cache=cache)
    assert older.name == "step-000000018"
    assert result.pace.images == 150 - 3 * 32  # the two steps after 18
    assert same(weights(whole), weights(torn))


def test_a_flipped_bit_in_a_checkpoint_is_seen(finished, dataset, cache):
    before = weights(finished)
    for state in (finished / "checkpoint").glob("*/state.safetensors"):
        data = bytearray(state.read_bytes())
        data[-1] ^= 1
        state.write_bytes(data)
    result = distill(make_settings(dataset, cache), dataset, finished, cache=cache)
    assert result.pace.images == 4 * 150  # from the start
    assert same(before, weights(finished))


def test_a_run_keeps_its_views_and_statistics_while_its_cache_grows(dataset, tmp_path):
    small = make_cache(tmp_path, dataset.train, views=1)
    settings = make_settings(dataset, small, losses=("spherical",))
    distill(settings, dataset, tmp_path / "run", cache=small)
    before = weights(tmp_path / "run")
    grown = make_cache(tmp_path, dataset.train, views=2)
    assert grown.statistics.count == 2 * small.statistics.count
    for state in (tmp_path / "run" / "checkpoint").glob("*/state.json"):
        state.unlink()
    distill(settings, dataset, tmp_path / "run", cache=grown)
    assert same(before, weights(tmp_path / "run"))


def test_ce_alone_needs_no_cache(dataset, tmp_path):
    settings = make_settings(dataset, None, losses=("ce",), epochs=2)
    result = distill(settings, dataset, tmp_path / "run")
    assert result.steps == 10
    assert json.loads((tmp_path / "run" / "run.json").read_text())["views"] == [0, 1]


def test_a_dataset_without_validation_trains_all_the_same(dataset, cache, tmp_path):
    bare = Dataset("toy", "imagefolder", dataset.train, None, DEFAULTS)
    result = distill(make_settings(bare, cache), bare, tmp_path / "run", cache=cache)
    assert (result.top1, result.best_top1) == (None, None)
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_a_schedule_sets_the_loss_of_each_epoch(dataset, cache, tmp_path):
    def final(name, **options):
        settings = make_settings(dataset, cache, **options)
        distill(settings, dataset, tmp_path / name, cache=cache)
        return weights(tmp_path / name)

    constant = final("constant", losses=("kd:alpha=0.7",))
    scheduled = final("scheduled", losses=("kd:alpha=0.3",), loss_schedules=("alpha=0.7@0",))
    changing = final("changing", losses=("kd:alpha=0.3",), loss_schedules=("alpha=0.7@0,0.1@3",))
    assert same(constant, scheduled)
    assert not same(constant, changing)


@pytest.mark.parametrize(
    ("chosen", "complaint"),
    [
        ({"student": "resnt18"}, "nearest: resnet18"),
        (
            {"student": f"{STUDENTS}:maps_instead_of_rows"},
            "one row of logits per image",
        ),
        ({"views": (0, 5)}, "does not have view 5: built are 0 to 1"),
        ({"batch_size": 151}, "more than the 150 images"),
        ({"device": "cuda:77"}, "there is no 'cuda:77' here: torch .* sees cpu"),
        ({"device": "gpu"}, "no device is called 'gpu'"),
        ({"student_weights": "/nowhere.safetensors"}, "not a readable safetensors file"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    dataset, cache, tmp_path, chosen, complaint
):
    settings = make_settings(dataset, cache, **chosen)
    with pytest.raises(InputError, match=complaint):
        distill(settings, dataset, tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()


def test_kd_sim_needs_a_cache_with_the_teachers_last_layer(dataset, cache, tmp_path):
    settings = make_settings(dataset, cache, losses=("kd-sim",), epochs=1)
    with pytest.raises(InputError, match="this cache has none"):
        distill(settings, dataset, tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()


def test_kd_sim_learns_from_the_teachers_last_layer(dataset, tmp_path):
    weight = np.random.default_rng(0).normal(size=(CLASSES, 4)).astype(np.float32)
    cache = make_cache(tmp_path, dataset.train, class_weight=weight)
    settings = make_settings(dataset, cache, losses=("kd-sim",), epochs=1)
    result = distill(settings, dataset, tmp_path / "run", cache=cache)
    assert result.steps == 5


def test_a_corrected_teacher_teaches_something_else(dataset, cache, tmp_path):
    students = []
    for fixes in ((), ("swap", "smooth:0.3")):
        settings = make_settings(dataset, cache, epochs=1, teacher_fixes=fixes)
        folder = tmp_path / f"run{len(fixes)}"
        distill(settings, dataset, folder, cache=cache)
        students.append(weights(folder))
    assert not same(*students)


def test_a_run_from_before_corrections_goes_on(finished, dataset, cache):
    record = json.loads((finished / "run.json").read_text())
    del record["settings"]["teacher_fixes"]
    (finished / "run.json").write_text(json.dumps(record))
    assert distill(make_settings(dataset, cache), dataset, finished, cache=cache).steps == 20


def test_a_teacher_loss_without_a_cache_is_refused(dataset, tmp_path):
    settings = make_settings(dataset, None)
    with pytest.raises(InputError, match="compares with a teacher"):
        distill(settings, dataset, tmp_path / "run")


def test_a_cache_for_another_dataset_is_refused_naming_the_field(cache, tmp_path):
    fewer = Dataset("toy", "imagefolder", make_images("toy/train", 149), None, DEFAULTS)
    with pytest.raises(InputError, match="it has 150 samples, toy/train has 149"):
        distill(make_settings(fewer, cache), fewer, tmp_path / "run", cache=cache)
    renamed = make_images("toy/train")
    object.__setattr__(renamed, "fingerprint", "f" * 64)
    other = Dataset("toy", "imagefolder", renamed, None, DEFAULTS)
    with pytest.raises(InputError, match=r"its fingerprint is .*paths, sizes or labels"):
        distill(make_settings(other, cache), other, tmp_path / "run", cache=cache)


def test_a_reencoded_file_is_named(dataset, cache, tmp_path):
    touched = Dataset("toy", "imagefolder", reencode(dataset.train, 41), None, DEFAULTS)
    with pytest.raises(DataError, match=r"train/00041\.ppm \(sample 41\) changed since"):
        distill(make_settings(touched, cache), touched, tmp_path / "run", cache=cache)


def test_a_loss_that_is_no_number_ends_the_run(dataset, cache, tmp_path):
    settings = make_settings(dataset, cache, lr=1e5, losses=("ce",), weight_decay=100.0)
    with pytest.raises(SkdCacheError, match="no longer a number in epoch"):
        distill(settings, dataset, tmp_path / "run", cache=cache)


def test_a_saved_student_says_what_it_is_and_evaluates_as_in_training(finished, dataset):
    model, portrait = load_student(finished)
    assert portrait.architecture == "tests.distill.tiny_students:student"
    assert not model.training
    accuracy, _ = evaluate(finished, dataset)
    assert accuracy.top1 == epochs_of(finished)[-1]["top1"]
    assert accuracy.images == 60
    best, _ = evaluate(finished / "best.safetensors", dataset)
    assert best.top1 == max(line["top1"] for line in epochs_of(finished))


def test_the_loading_lines_load(finished, dataset, cache):
    result = distill(make_settings(dataset, cache), dataset, finished, cache=cache)
    scope: dict[str, object] = {}
    exec("\n".join(result.loading), scope)
    assert same(scope["model"].state_dict(), weights(finished))


def test_initial_weights_are_taken_from_a_file(finished, dataset, cache, tmp_path):
    start = str(finished / "student.safetensors")
    settings = make_settings(dataset, cache, student_weights=start, lr=1e-9, epochs=1)
    distill(settings, dataset, tmp_path / "next", cache=cache)
    before, after = weights(finished), weights(tmp_path / "next")
    assert torch.allclose(before["head.weight"], after["head.weight"], atol=1e-6)


def test_evaluating_nothing_says_what_is_wanted(tmp_path, dataset):
    with pytest.raises(InputError, match="does not exist: give a run's folder"):
        evaluate(tmp_path, dataset)


def test_online_without_a_teacher_is_refused(dataset, cache, tmp_path):
    settings = make_settings(dataset, cache, online=False)
    with pytest.raises(InputError, match="the settings speak of"):
        distill(settings, dataset, tmp_path / "run", cache=cache, look=ToyTeacher())
