"""What each loss costs against plain kd: forward and backward, and each on its own.

Every round measures each loss right after kd, so that whatever else the machine does slows both;
a ratio is the median over the rounds. The teacher is a tensor, or where a loss looks at a cache's
statistics a batch of one. Aim: none above 1.5 at [1024, 1000] float32.

    python benchmarks/losses.py [--batch B] [--classes C] [--rounds N] [--only TEXT ...] [--json]
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from functools import partial

import as_command_line  # before torch
import numpy as np
import torch
from torch import Tensor, nn

from skd_cache.batch import LogitBatch, Statistics, judge
from skd_cache.losses import give_class_weight, names, parse

AIM = 1.5
FEATURES = 512
VARIANTS = (
    "spherical:scale=2.5",
    "spherical:scale=sample",
    "dist:tau=4",
    "logit-std:base=dkd",
    "nkd:temperature=3,gamma=3.5",
    "soft-ce:k=100",
    "soft-ce:k=100,tail=renormalised",
)
NEEDS_STATISTICS = ("spherical", "ls", "kd-sim")


class AsTheyAre:
    """The decoder of logits that are no code."""

    def decode(self, code: Mapping[str, Tensor], norm: Tensor) -> Tensor:  # noqa: ARG002
        return code["logits"]


def stored(logits: Tensor, labels: Tensor) -> LogitBatch:
    """The logits as a cache gives them back."""
    rows = logits.numpy()
    norm = np.linalg.norm(rows - rows.mean(1, keepdims=True), axis=1)
    counted = Statistics.of(norm, judge(rows, labels.numpy().astype(np.int32)))
    return LogitBatch(torch.from_numpy(norm), {"logits": logits}, AsTheyAre(), counted)


def seconds(loss: nn.Module, z: Tensor, teacher: LogitBatch | Tensor, labels: Tensor) -> float:
    """Forward and backward, once."""
    z = z.clone().requires_grad_()
    start = time.perf_counter()
    loss(z, teacher, labels).backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", nargs="*", default=[*names(), *VARIANTS])
    parser.add_argument("--json", action="store_true", help="one JSON document, no table")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, options.batch, options.classes, generator=generator)
    z, t = 3 * draw(), 3 * draw()
    labels = torch.randint(options.classes, (options.batch,), generator=generator)
    cached = stored(t, labels)
    weight = torch.randn(options.classes, FEATURES, generator=generator)
    baseline, losses = parse("kd"), {text: parse(text) for text in options.only}
    ratios: dict[str, list[float]] = {text: [] for text in losses}
    times: dict[str, list[float]] = {text: [] for text in losses}
    for loss in losses.values():
        give_class_weight(loss, weight)
        loss(z, cached, labels)
    for _ in range(options.rounds):
        for text, loss in losses.items():
            teacher = cached if text in NEEDS_STATISTICS else t
            base = seconds(baseline, z, t, labels)
            times[text].append(seconds(loss, z, teacher, labels))
            ratios[text].append(times[text][-1] / base)
    medians = {text: statistics.median(values) for text, values in ratios.items()}
    told = {
        "benchmark": "losses",
        "shape": [options.batch, options.classes],
        "rounds": options.rounds,
        "ratio": {text: round(value, 3) for text, value in medians.items()},
        "milliseconds": {
            text: round(1e3 * statistics.median(values), 2) for text, values in times.items()
        },
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "as_command_line": as_command_line.SET,
    }
    if options.json:
        print(json.dumps(told))
        return
    print(f"{'loss':34} {'ms':>7} {'of kd':>6}   quartiles   aim {AIM}")
    for text, value in medians.items():
        low, _, high = statistics.quantiles(ratios[text], n=4)
        spent = 1e3 * statistics.median(times[text])
        print(f"{text:34} {spent:7.2f} {value:6.2f}   {low:.2f} - {high:.2f}")


if __name__ == "__main__":
    main()
