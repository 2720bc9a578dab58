"""Distils as one of the processes that torchrun started, or alone, and notes what it saw.

python team_worker.py CACHE JOBS.json

JOBS.json is a list of ``{"out": FOLDER, "settings": {…}}``, run one after the other. Every process
adds a line per step to ``FOLDER.seen-RANK.jsonl``. ``$TINY_SIGNAL`` counts in the last process
only.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from skd_cache.distill.learner import Learner
from skd_cache.distill.run import distill
from skd_cache.store import open_cache
from skd_cache.world import World
from tests.distill.workshop import ToyTeacher, make_dataset, make_settings


class Seen:
    """Notes the samples of every step that was done."""

    def __init__(self, out: Path, world: World) -> None:
        self._path = out.with_name(f"{out.name}.seen-{world.rank}.jsonl")
        self._step = Learner.step

    def __enter__(self) -> None:
        def step(learner, batch, number):
            loss = self._step(learner, batch, number)
            with self._path.open("a") as file:
                file.write(json.dumps({"step": number, "samples": batch.samples.tolist()}) + "\n")
            return loss

        Learner.step = step

    def __exit__(self, *_: object) -> None:
        Learner.step = self._step


def main(location: str, jobs: str) -> None:
    sys.modules["skd_cache.teacher"] = None  # importing it is an error from here on
    torch.set_num_threads(1)
    world = World.here()
    if world.rank < world.size - 1:
        os.environ.pop("TINY_SIGNAL", None)
    dataset, cache = make_dataset(), open_cache(location)
    todo = json.loads(Path(jobs).read_text())
    if len(todo) > 1:  # groups can be made once in a process that torchrun started
        dist.init_process_group("gloo")
    for job in todo:
        settings = make_settings(dataset, cache, **job["settings"])
        look = ToyTeacher() if settings.online else None
        with Seen(Path(job["out"]), world):
            distill(settings, dataset, Path(job["out"]), cache=cache, look=look)
    if len(todo) > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
