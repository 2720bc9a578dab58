"""Cached or online, in one go or in pieces: the same weights, bit for bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from skd_cache.distill.run import distill
from skd_cache.distill.trainer import StoppedError
from tests.distill.conftest import same, weights
from tests.distill.workshop import SIZE, ToyTeacher, make_cache, make_settings

HERE = Path(__file__).parent


def test_cached_and_online_runs_end_in_equal_weights(dataset, tmp_path):
    torch.set_num_threads(2)
    cache, teacher = make_cache(tmp_path, dataset.train), ToyTeacher()
    cached = distill(make_settings(dataset, cache), dataset, tmp_path / "cached", cache=cache)
    online = make_settings(dataset, cache, online=True)
    distill(online, dataset, tmp_path / "online", cache=cache, look=teacher)
    assert len(cache.views()) < 4  # epochs
    assert cached.steps == teacher.asked == 4 * 5
    assert same(weights(tmp_path / "cached"), weights(tmp_path / "online"))


@pytest.mark.parametrize(
    ("codec", "loss"), [("int8", "spherical"), ("int8", "dist:tau=4"), ("klt", "kd")]
)
def test_online_logits_go_through_the_cache_s_codec(dataset, tmp_path, codec, loss):
    cache = make_cache(tmp_path, dataset.train, codec=codec)
    options = {"losses": (loss,), "epochs": 2}
    distill(make_settings(dataset, cache, **options), dataset, tmp_path / "cached", cache=cache)
    online = make_settings(dataset, cache, online=True, **options)
    distill(online, dataset, tmp_path / "online", cache=cache, look=ToyTeacher())
    assert same(weights(tmp_path / "cached"), weights(tmp_path / "online"))


def test_online_teacher_sees_its_own_size_when_the_student_s_differs(dataset, cache, tmp_path):
    options = {"size": 24, "epochs": 2}
    distill(make_settings(dataset, cache, **options), dataset, tmp_path / "cached", cache=cache)
    online = make_settings(dataset, cache, online=True, **options)
    distill(online, dataset, tmp_path / "online", cache=cache, look=ToyTeacher())
    assert same(weights(tmp_path / "cached"), weights(tmp_path / "online"))


def test_checkpoints_and_metrics_leave_no_trace_in_the_weights(dataset, cache, tmp_path):
    often = make_settings(dataset, cache, checkpoint_every=1, log_every=1)
    distill(often, dataset, tmp_path / "often", cache=cache)
    rarely = make_settings(dataset, cache, checkpoint_every=1000, log_every=1000)
    distill(rarely, dataset, tmp_path / "rarely", cache=cache)
    assert same(weights(tmp_path / "often"), weights(tmp_path / "rarely"))


def test_a_run_leaves_torch_s_generator_alone(dataset, cache, tmp_path):
    before = torch.get_rng_state()
    distill(make_settings(dataset, cache, epochs=1), dataset, tmp_path / "run", cache=cache)
    assert torch.get_rng_state().equal(before)


def run_worker(cache, out: Path, at: str | None) -> int:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    if at is not None:
        environment["TINY_SIGNAL"] = at
    worker = [sys.executable, str(HERE / "worker.py"), cache.location, str(out)]
    return subprocess.run(worker, env=environment, check=False, capture_output=True).returncode


def test_killed_in_mid_epoch_and_resumed_a_run_ends_in_equal_weights(dataset, cache, tmp_path):
    settings = make_settings(dataset, cache, student="tests.distill.tiny_students:mortal")
    distill(settings, dataset, tmp_path / "whole", cache=cache)
    assert run_worker(cache, tmp_path / "killed", "9@9") == -signal.SIGKILL  # the state of step 6
    assert run_worker(cache, tmp_path / "killed", "9@8") == -signal.SIGKILL  # of step 12
    assert run_worker(cache, tmp_path / "killed", None) == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    whole, killed = (notes(tmp_path / name) for name in ("whole", "killed"))
    assert whole == killed


def notes(folder: Path) -> list[tuple[object, ...]]:
    """The metrics that do not speak of time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    told = ("kind", "step", "epoch", "loss", "lr", "top1", "top5")
    return [tuple(line.get(key) for key in told) for line in lines]


VARIANTS = [  # the step after which the signal comes; 5 is the last of an epoch
    (12, {}),
    (5, {"optimizer": "adamw", "lr": 0.01}),
    (12, {"optimizer": "adamw", "lr": 0.01, "ema": 0.9, "clip": 0.5}),
    (7, {"schedule": "step", "milestones": (1, 3), "warmup_epochs": 1, "nesterov": True}),
    (8, {"precision": "bfloat16", "size": "8@0,12@1,16@3"}),
    (13, {"precision": "float16", "channels_last": False}),
]


@pytest.mark.parametrize(("step", "variant"), VARIANTS)
def test_stopped_by_a_signal_a_run_goes_on_to_equal_weights(
    dataset, cache, tmp_path, monkeypatch, step, variant
):
    options = variant | {"student": "tests.distill.tiny_students:mortal", "checkpoint_every": 1000}
    settings = make_settings(dataset, cache, **options)
    distill(settings, dataset, tmp_path / "whole", cache=cache)

    monkeypatch.setenv("TINY_SIGNAL", f"{int(signal.SIGTERM)}@{step}")
    with pytest.raises(StoppedError, match=f"SIGTERM in epoch .* after step {step}, .* goes on"):
        distill(settings, dataset, tmp_path / "stopped", cache=cache)
    assert not (tmp_path / "stopped" / "student.safetensors").exists()
    monkeypatch.delenv("TINY_SIGNAL")
    result = distill(settings, dataset, tmp_path / "stopped", cache=cache)
    assert result.pace.images <= 150 * 4 - 32 * (step - 1)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    assert notes(tmp_path / "whole") == notes(tmp_path / "stopped")


def test_progressive_sizes_train_and_end_at_the_last(dataset, cache, tmp_path):
    settings = make_settings(dataset, cache, size=f"8@0,{SIZE}@2")
    distill(settings, dataset, tmp_path / "run", cache=cache)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines if '"epoch"' in line[:20]]
    assert [line["size"] for line in epochs] == [8, 8, SIZE, SIZE]
