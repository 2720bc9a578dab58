"""Builds by several processes: torchrun's, and those of people who know nothing of each other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from skd_cache.store import open_cache
from skd_cache.store.writer import FAULT_VARIABLE
from tests.end_to_end.conftest import ROOT, Desk, Finished

VIEWS = 6  # of three shards
# Rank 1 dies once, at some put in the middle of its work, as if it had been killed.
DIES_ONCE = f"""
import os, pathlib, runpy, sys
died = pathlib.Path(os.environ["DIED"])
if os.environ["RANK"] == "1" and not died.exists():
    died.touch()
    os.environ["{FAULT_VARIABLE}"] = "30"
sys.argv[0] = "skd_cache"
runpy.run_module("skd_cache", run_name="__main__")
"""


def arguments(desk: Desk, *more: object) -> list[str]:
    """A build's, as :meth:`Desk.build` has them."""
    taken: list[object] = []

    def take(*given: object) -> Finished:
        taken.extend(given)
        return Finished(0, "", "")

    desk.build("--codec", "float32", "--views", VIEWS, *more, run=take)
    return [str(one) for one in taken]


def torchrun(desk: Desk, line: list[str], *options: str, script: Path | None = None) -> Finished:
    program = [str(script)] if script else ["-m", "skd_cache"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *options]
    environment = desk.environment() | {"PYTHONPATH": str(ROOT), "DIED": str(desk.folder / "died")}
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", *program, *line],
        cwd=desk.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Finished(done.returncode, done.stdout.strip(), done.stderr)


def digests(place: str) -> list[str]:
    cache = open_cache(place)
    assert list(cache.verify(full=True)) == []
    return [cache.digest(view) for view in range(VIEWS)]


@pytest.fixture
def alone(desk: Desk) -> list[str]:
    done = desk.build("--codec", "float32", "--views", VIEWS, "--out", desk.folder / "alone")
    assert done.code == 0, done.err
    return digests(done.out)


def test_torchrun_builds_what_one_process_builds(desk: Desk, alone: list[str]):
    done = torchrun(desk, arguments(desk))
    assert done.code == 0, done.err
    assert Path(done.out).parent == desk.home, "one process names the cache"
    assert digests(done.out) == alone
    assert done.err.count("preflight") == 1
    assert json.loads(desk.call("info", done.out, "--json").out)["claims"] == []


def test_after_a_rank_died_torchrun_restarts_and_the_build_ends_complete(
    desk: Desk, alone: list[str]
):
    script = desk.folder / "dies_once.py"
    script.write_text(DIES_ONCE)
    done = torchrun(desk, arguments(desk), "--max-restarts", "1", script=script)
    assert done.code == 0, done.err
    assert (desk.folder / "died").exists()
    place = next(path for path in desk.home.iterdir() if (path / "recipe.json").exists())
    assert digests(str(place)) == alone


def test_a_refusal_is_said_once(desk: Desk):
    done = torchrun(desk, arguments(desk, "--shard", "100"))
    assert done.code != 0
    assert done.err.count("error: --shard 100 must be a multiple of") == 1


def test_two_people_build_the_same_and_one_is_killed(desk: Desk, alone: list[str]):
    line = [sys.executable, "-m", "skd_cache", *arguments(desk)]
    environment = desk.environment() | {"PYTHONPATH": str(ROOT)}
    ours, theirs = (
        subprocess.Popen(line, cwd=desk.folder, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    )
    while not list(desk.home.glob("*/claim/000*/*")):
        assert ours.poll() is None
        time.sleep(0.01)
    place = next(desk.home.glob("*/claim")).parent
    told = json.loads(desk.call("info", place, "--json").out)["claims"]
    assert {one["pid"] for one in told} <= {ours.pid, theirs.pid, *(o["pid"] for o in told)}
    os.kill(ours.pid, signal.SIGKILL)
    ours.wait()
    _, error = theirs.communicate()
    assert theirs.returncode == 0, error.decode()
    ours.stderr.close()
    assert digests(str(place)) == alone


def test_sigterm_lets_go_of_what_is_claimed(desk: Desk):
    line = [sys.executable, "-m", "skd_cache", *arguments(desk, "--views", 200)]
    environment = desk.environment() | {"PYTHONPATH": str(ROOT)}
    ours = subprocess.Popen(line, cwd=desk.folder, env=environment, stderr=subprocess.PIPE)
    while not list(desk.home.glob("*/claim/0*/*")):
        assert ours.poll() is None
        time.sleep(0.01)
    ours.terminate()
    _, error = ours.communicate()
    assert ours.returncode == 1
    assert "the same command again goes on from here" in error.decode()
    assert not list(desk.home.glob("*/claim/**/*.json"))


def test_run_under_torchrun_says_what_to_do_instead(desk: Desk):
    done = torchrun(desk, ["run", "demo"])
    assert done.code != 0
    assert done.err.count("error: run starts one process per stage: --dry-run") == 1


def test_what_fails_its_commit_is_dropped_and_built_again(desk: Desk, alone: list[str]):
    done = desk.build("--codec", "float32", "--views", VIEWS, run=desk.call)
    shard = Path(done.out) / "logits.zarr/view/00002/code/c/1/0"
    shard.write_bytes(shard.read_bytes()[:-5])
    assert desk.call("verify", done.out).code == 3
    fixed = desk.call("verify", done.out, "--repair")
    assert fixed.code == 0, fixed.err
    assert "dropped view 2, shard 1" in fixed.out
    again = desk.build("--codec", "float32", "--views", VIEWS, run=desk.call)
    assert "17 already there, 1 to build" in again.err
    assert digests(done.out) == alone
