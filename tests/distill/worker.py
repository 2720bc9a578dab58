"""Distils in a process of its own, where the teacher cannot even be imported.

python worker.py CACHE OUT [LOSS]
"""

import sys
from pathlib import Path

import torch

from skd_cache.distill.run import distill
from skd_cache.store import open_cache
from tests.distill.workshop import make_dataset, make_settings


def main(location: str, out: str, loss: str = "kd:temperature=2") -> None:
    sys.modules["skd_cache.teacher"] = None  # importing it is an error from here on
    torch.set_num_threads(1)
    dataset, cache = make_dataset(), open_cache(location)
    settings = make_settings(
        dataset, cache, student="tests.distill.tiny_students:mortal", losses=(loss,)
    )
    distill(settings, dataset, Path(out), cache=cache)


if __name__ == "__main__":
    main(*sys.argv[1:])
