"""How fast images come: DALI's replay of a view against torchvision's DataLoader.

Both read the same folder of 500 x 375 JPEGs on the same cores, crop and flip at random, resize
to 224 pixels and normalise to float32 batches. Rounds take turns, and the ratio is the median
of the rounds' ratios, so that whatever else the machine does meets both alike.

    python benchmarks/loader.py [--images 512] [--rounds 5] [--cores 2]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from photographs import write_folder
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from skd_cache.dataset import open_dataset
from skd_cache.dataset.images import ImageSet
from skd_cache.pixels import Request, cores, normalise, open_backend
from skd_cache.replay import draw_params, load_policy
from skd_cache.seed import samples_at

SIZE, BATCH = 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def torchvision_loader(root: Path, workers: int) -> Iterable[tuple[Tensor, Tensor]]:
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return DataLoader(
        ImageFolder(str(root), transform),
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
    )


def replay(images: ImageSet, view: int, threads: int) -> Iterator[Tensor]:
    policy = load_policy("rrc-flip")

    def requests() -> Iterator[Request]:
        for begin in range(0, len(images), BATCH):
            positions = np.arange(begin, min(begin + BATCH, len(images)))
            samples = samples_at(0, view, positions, len(images))
            heights, widths = images.heights[samples], images.widths[samples]
            yield Request(samples, draw_params(policy, 0, view, samples, heights, widths))

    for batch in open_backend("dali", images, SIZE, policy, threads=threads).stream(requests()):
        yield normalise(batch, MEAN, STD)


def rate(batches: Iterable[Tensor]) -> float:
    """Images per second, from the first request to the last batch."""
    began, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch)
    return count / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=cores())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photographs"
        write_folder(root, options.images)
        images = open_dataset("imagefolder", root).train
        loader = torchvision_loader(root, options.cores)
        rate(batch for batch, _ in loader)  # starts the workers, reads every file once
        rows = []
        print(f"{'round':>5} {'DALI replay':>14} {'DataLoader':>14} {'ratio':>6}")
        for index in range(options.rounds):
            ours = rate(replay(images, index, options.cores))
            theirs = rate(batch for batch, _ in loader)
            rows.append((ours, theirs))
            print(f"{index:5} {ours:9.0f} im/s {theirs:9.0f} im/s {ours / theirs:6.2f}")
    ratios = [ours / theirs for ours, theirs in rows]
    result = {
        "benchmark": "loader",
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "dali": round(statistics.median(ours for ours, _ in rows)),
        "torchvision": round(statistics.median(theirs for _, theirs in rows)),
        "cores": options.cores,
        "torch": torch.__version__,
        "required": 1.5,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
