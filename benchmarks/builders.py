"""Two builders of one cache against one: the real command, a thread each, started together.

    python benchmarks/builders.py [--rounds 3] [--views 6] [--json]

The teacher is the demo's WRN-16-2; 60 units by default. Rounds are interleaved, medians reported.
What is timed is the whole command, so the start of Python and the preflight are in it.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARD = 640  # of the demo's 6,000 images: ten units a view


def build(folder: Path, views: int, builders: int) -> tuple[float, list[int]]:
    """Wall seconds of so many builders, and the units that each computed."""
    command = [
        *(sys.executable, "-m", "skd_cache", "build", "--teacher", "wrn_16_2"),
        *("--dataset", "demo", "--views", str(views), "--shard", str(SHARD), "--threads", "1"),
        *("--codec", "float32", "--out", str(folder)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    started = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(builders)
    ]
    said = [process.communicate()[1] for process in started]
    seconds = time.perf_counter() - began
    for process, text in zip(started, said, strict=True):
        if process.returncode:
            raise SystemExit(text)
    units = views * 10
    return seconds, [_computed(text, units) for text in said]


def _computed(text: str, units: int) -> int:
    found = re.search(r"(\d+) computed here", text)
    return int(found[1]) if found else units


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    walls: dict[int, list[float]] = {1: [], 2: []}
    shares: list[list[int]] = []
    for _ in range(arguments.rounds):
        for builders in walls:
            with tempfile.TemporaryDirectory() as folder:
                seconds, units = build(Path(folder), arguments.views, builders)
            walls[builders].append(seconds)
            if builders == 2:
                shares.append(units)
    ratios = [two / one for one, two in zip(walls[1], walls[2], strict=True)]
    found = {
        "one_seconds": statistics.median(walls[1]),
        "two_seconds": statistics.median(walls[2]),
        "two_over_one": statistics.median(ratios),
        "units": shares,
        "computed_twice": sum(sum(units) for units in shares)
        - arguments.views * 10 * arguments.rounds,
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, value in found.items():
        print(f"{name:15} {value if isinstance(value, list | int) else f'{value:.3f}'}")


if __name__ == "__main__":
    main()
