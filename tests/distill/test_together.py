"""Several processes under torchrun: the same run, whatever their number."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from skd_cache import cli
from skd_cache.cli import distill as command
from skd_cache.distill.run import distill
from skd_cache.distill.trainer import StoppedError
from skd_cache.distill.views import Seat, check_division, micro_bounds, smallest_part
from skd_cache.errors import InputError, PeerLostError
from skd_cache.replay import Views
from tests.distill.conftest import same, weights
from tests.distill.workshop import BATCH, COUNT, POLICY, make_settings

HERE = Path(__file__).parent
STUDENTS = "tests.distill.tiny_students"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(
    arguments: Sequence[str], processes: int, at: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run python with these arguments, under torchrun where there are two processes."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    if at is not None:
        environment["TINY_SIGNAL"] = at
    line = [sys.executable, *(TORCHRUN if processes > 1 else []), *arguments]
    return subprocess.run(
        line, env=environment, check=False, capture_output=True, text=True, timeout=120
    )


def run_worker(cache, folder: Path, jobs: dict[str, dict], processes: int, at: str | None = None):
    listed = [{"out": str(folder / name), "settings": chosen} for name, chosen in jobs.items()]
    (folder / "jobs.json").write_text(json.dumps(listed))
    arguments = [str(HERE / "team_worker.py"), cache.location, str(folder / "jobs.json")]
    return start(arguments, processes, at)


def epochs_of(run: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "epoch"]


def gap(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max((ours[name].float() - theirs[name].float()).abs().max().item() for name in ours)


# Fifty steps each; batches of 32 leave 22 for the last of an epoch, those of 148 one for each of
# two processes, or two for the first and none for the second, as pairs stay together.
PLAIN = {"student": f"{STUDENTS}:plain", "epochs": 10, "log_every": 1}
JOBS = {
    "slices": PLAIN,
    "micro-batches": PLAIN | {"accumulate": 2},
    "short": PLAIN | {"batch_size": 148, "epochs": 25},
    "averaged": PLAIN | {"ema": 0.9, "clip": 0.5, "losses": ["spherical"], "size": "8@0,16@5"},
    "online": PLAIN | {"online": True, "epochs": 2},
    "idle": PLAIN | {"student": f"{STUDENTS}:idle", "epochs": 2},
    "float16": PLAIN | {"precision": "float16", "epochs": 2},
}
# Batch norm and dropout: not what one process gives, but the same each time.
MORTAL = {"student": f"{STUDENTS}:mortal", "ema": 0.9}


@pytest.fixture(scope="module")
def together(cache, tmp_path_factory) -> Path:
    """The folder where two processes have done all these jobs."""
    folder = tmp_path_factory.mktemp("together")
    done = run_worker(cache, folder, JOBS | {"mortal": MORTAL}, 2)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", JOBS)
def test_two_processes_end_where_one_does(together, dataset, cache, tmp_path, name):
    chosen = {
        key: value for key, value in JOBS[name].items() if key not in ("accumulate", "online")
    }
    alone = distill(make_settings(dataset, cache, **chosen), dataset, tmp_path / "run", cache=cache)
    assert alone.steps == (50 if chosen["epochs"] >= 10 else 10)
    allowed = 1e-6 if name != "float16" else 1e-3
    assert gap(weights(tmp_path / "run"), weights(together / name)) < allowed
    ours, theirs = epochs_of(tmp_path / "run"), epochs_of(together / name)
    assert [line["loss"] for line in ours] == pytest.approx(
        [line["loss"] for line in theirs], abs=allowed
    )
    if name != "float16":
        assert [(one["top1"], one["top5"]) for one in ours] == [
            (one["top1"], one["top5"]) for one in theirs
        ]
    record = json.loads((together / name / "run.json").read_text())
    assert record["world"] == 2


def test_accumulated_gradients_are_those_of_the_whole_batch(dataset, cache, tmp_path):
    whole, parts = (
        make_settings(dataset, cache, student=f"{STUDENTS}:plain", accumulate=number)
        for number in (1, 4)
    )
    distill(whole, dataset, tmp_path / "whole", cache=cache)
    distill(parts, dataset, tmp_path / "parts", cache=cache)
    assert gap(weights(tmp_path / "whole"), weights(tmp_path / "parts")) < 1e-6


def test_killed_and_resumed_by_one_two_and_one_every_sample_is_seen_once_in_order(
    dataset, cache, tmp_path
):
    jobs, ended = {"run": MORTAL}, []
    for processes, at in ((1, "9@8"), (2, "9@9"), (1, None)):
        ended.append(run_worker(cache, tmp_path, jobs, processes, at).returncode)
        for path in tmp_path.glob("run.seen-*"):
            path.rename(tmp_path / f"{len(ended)}-{path.name}")
    assert ended == [-signal.SIGKILL, 1, 0]
    assert len(epochs_of(tmp_path / "run")) == 4

    sessions = [seen_in(tmp_path, prefix) for prefix in ("1-run", "2-run", "3-run")]
    spans = [(min(session), max(session)) for session in sessions]
    # Killed in the eighth step, the last checkpoint at 6; in the ninth from there, the last at 12.
    assert spans == [(0, 6), (6, 13), (12, 19)]
    replayed = Views(dataset.train, POLICY, cache.recipe.seed)
    for session in sessions:
        for step, samples in session.items():
            first = step % 5 * BATCH
            positions = np.arange(first, min(first + BATCH, COUNT))
            assert samples == replayed.samples(step // 5 % 2, positions).tolist()
    steps = {step: samples for session in sessions for step, samples in session.items()}
    for epoch in range(4):
        epoch_samples = [one for step in range(5) for one in steps[epoch * 5 + step]]
        assert sorted(epoch_samples) == list(range(COUNT))


def seen_in(folder: Path, prefix: str) -> dict[int, list[int]]:
    """What the processes of one session saw together in each step that all of them did."""
    ranks = [
        {line["step"]: line["samples"] for line in map(json.loads, path.read_text().splitlines())}
        for path in sorted(folder.glob(f"{prefix}.seen-*.jsonl"))
    ]
    shared = set.intersection(*map(set, ranks))
    return {step: [one for rank in ranks for one in rank[step]] for step in sorted(shared)}


def test_stopped_by_torchrun_two_processes_agree_and_go_on_to_equal_weights(
    together, cache, tmp_path
):
    stopped = run_worker(cache, tmp_path, {"run": MORTAL}, 2, f"{int(signal.SIGTERM)}@7@parent")
    assert stopped.returncode != 0
    assert "stopped by SIGTERM in epoch" in stopped.stderr
    assert not (tmp_path / "run" / "student.safetensors").exists()
    newest = sorted((tmp_path / "run" / "checkpoint").iterdir())[-1]
    steps = [
        json.loads(path.read_text().splitlines()[-1])["step"] + 1
        for path in sorted(tmp_path.glob("run.seen-*.jsonl"))
    ]
    assert steps[0] == steps[1] == json.loads((newest / "state.json").read_text())["step"]
    assert 7 <= steps[0] < 20
    assert {"random.cpu", "random.1.cpu"} <= load_file(newest / "state.safetensors").keys()

    done = run_worker(cache, tmp_path, {"run": MORTAL}, 2)
    assert done.returncode == 0, done.stderr
    assert same(weights(tmp_path / "run"), weights(together / "mortal"))
    assert len(epochs_of(tmp_path / "run")) == 4


def test_torchrun_runs_the_command_and_one_process_speaks(tmp_path):
    draws = np.random.default_rng(0)
    for place in range(40):
        folder = tmp_path / "images" / ("train", "val")[place >= 32] / f"class{place % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
    line = ["-m", "skd_cache", "distill", "--loss", "ce", "--dataset", "imagefolder",
            "--data", str(tmp_path / "images"), "--student", f"{STUDENTS}:student",
            "--size", "16", "--epochs", "1", "--batch-size", "12", "--device", "cpu",
            "--pixels", "reference", "--out", str(tmp_path / "run")]  # fmt: skip
    done = start(line, 2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(tmp_path / "run" / "student.safetensors")]
    for said in ("epoch 1/1: loss", "To load the student:"):
        assert done.stderr.count(said) == 1


# What is refused and said, without torchrun.


@pytest.fixture
def rank_of_two(monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)


@pytest.mark.usefixtures("rank_of_two")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--batch-size", "254"], "2 processes take multiples of 4: choose 252 or 256."),
        (["--accumulate", "3"], "in 3 micro-batches each take multiples of 12: choose"),
        (["--sync-batch-norm"], "sync-batch-norm works on GPUs only"),
        (["--batch-size", "9000"], "more than the 6,000 images"),
        ([], "start with torchrun"),
    ],
)
def test_what_so_many_processes_cannot_do_is_one_sentence(
    monkeypatch, capsys, tmp_path, options, sentence
):
    pauses = []
    monkeypatch.setattr(cli.time, "sleep", pauses.append)
    line = ["distill", "--loss", "ce", "--dataset", "demo", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        cli.main([*line, "--out", str(tmp_path / "run"), *options])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("rank 1: error: ")
    assert sentence in said
    assert said.count("\n") == 1
    assert pauses  # torchrun ends it meanwhile, when the first process has said it
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rank", "error", "pauses", "says"),
    [
        ("0", InputError("no"), [], True),
        ("1", InputError("no"), [2.0], True),
        ("1", StoppedError("stopped"), [], False),  # everyone was, and the first says it
        ("0", PeerLostError("gone"), [4.0], True),  # the one that is gone may still say why
    ],
)
def test_who_knows_best_speaks_first(monkeypatch, rank, error, pauses, says):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    waited = []
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    assert cli._turn(error) == says
    assert waited == pauses


def test_a_restart_by_torchrun_does_not_start_over(monkeypatch):
    assert not command._restarted()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert command._restarted()


@pytest.mark.parametrize(
    ("batch_size", "world", "accumulate", "fit"),
    [(30, 2, 1, "28 or 32"), (6, 4, 1, "8"), (150, 1, 2, "148"), (99, 7, 3, "84 or 126")],
)
def test_the_nearest_sizes_that_divide_are_named(batch_size, world, accumulate, fit):
    with pytest.raises(InputError, match=f"choose {fit}\\."):
        check_division(batch_size, 150, world, accumulate)


def test_one_process_takes_any_batch_size():
    for batch_size in (1, 3, 150):
        check_division(batch_size, 150, 1, 1)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_slices_and_micro_batches_are_contiguous_pairs_and_as_many_everywhere(world, accumulate):
    for whole in range(1, 100):
        slices = [Seat(rank, world).part(300, 300 + whole) for rank in range(world)]
        assert slices[0][0] == 300
        assert slices[-1][1] == 300 + whole
        assert all(before[1] == after[0] for before, after in pairwise(slices))
        assert all(start % 2 == 0 or start == stop for start, stop in slices)
        images = [stop - start for start, stop in slices]
        assert max(images) - min(images) <= 2 + whole % 2
        cuts = [micro_bounds(count, whole, world, accumulate) for count in images]
        assert len({len(bounds) for bounds in cuts}) == 1
        assert len(cuts[0]) <= accumulate
        assert all(start < stop for start, stop in cuts[0])  # the first always has something
        for count, bounds in zip(images, cuts, strict=True):
            assert [one for bound in bounds for one in range(*bound)] == list(range(count))


def test_the_smallest_micro_batch_is_known_before():
    assert smallest_part(150, 32, 1, 1) == 22
    assert smallest_part(150, 32, 2, 1) == 10
    assert smallest_part(150, 32, 2, 4) == 2
    assert smallest_part(149, 32, 4, 4) == 1
    assert smallest_part(128, 32, 2, 4) == 4


def test_one_process_says_that_there_are_more_gpus(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(sys, "argv", ["skd-cache", "distill", "--loss", "kd", "--out", "my runs"])
    command._hint("cpu")
    command._hint("cuda:1")
    assert capsys.readouterr().err == ""
    command._hint("cuda")
    assert capsys.readouterr().err.endswith(
        "one of 4 GPUs is used; all: "
        "torchrun --nproc-per-node 4 -m skd_cache distill --loss kd --out 'my runs'\n"
    )
