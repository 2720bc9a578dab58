"""How fast images come: DALI's replay of a view against torchvision's DataLoader.

Both read the same folder of 500 x 375 JPEGs on the same cores, crop and flip at random and
resize to 224 pixels. torchvision's workers normalise to float32 as well. Replay gives uint8,
which the trainer normalises on its own device; it is timed both so and with normalising on the
same cores. Rounds take turns, and a ratio is the median of the rounds' ratios, so that whatever
else the machine does meets all alike.

    python benchmarks/loader.py [--images 1024] [--rounds 7] [--cores 2]
"""

import argparse
import json
import os
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

from skd_cache.dataset.catalog import open_dataset
from skd_cache.dataset.images import ImageSet
from skd_cache.pixels import cores, normalise, open_backend
from skd_cache.replay import Request, draw_params, load_policy
from skd_cache.seed import samples_at

SIZE, BATCH = 224, 128
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

    return open_backend("dali", images, SIZE, policy, threads=threads).stream(requests())


def rate(batches: Iterable[Tensor]) -> float:
    """Images per second, from the first request to the last batch."""
    began, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch)
    return count / (time.perf_counter() - began)


def normalised(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    return (normalise(batch, MEAN, STD) for batch in batches)


def median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, default=cores())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SKD_CACHE_HOME"] = str(Path(folder) / "home")  # the index goes with the images
        root = Path(folder) / "photographs"
        write_folder(root, options.images)
        images = open_dataset("imagefolder", root).train
        loader = torchvision_loader(root, options.cores)
        rate(replay(images, options.rounds, options.cores))  # both start up and read every file
        rate(batch for batch, _ in loader)
        rows = []
        print(f"{'round':>5} {'replay':>12} {'normalised':>12} {'DataLoader':>12} {'ratios':>12}")
        for index in range(options.rounds):
            pixels = rate(replay(images, index, options.cores))
            floats = rate(normalised(replay(images, index, options.cores)))
            theirs = rate(batch for batch, _ in loader)
            rows.append((pixels, floats, theirs))
            rates = " ".join(f"{value:7.0f} im/s" for value in rows[-1])
            print(f"{index:5} {rates} {pixels / theirs:6.2f}{floats / theirs:6.2f}")
    result = {
        "benchmark": "loader",
        "ratio": median(floats / theirs for _, floats, theirs in rows),
        "ratio_uint8": median(pixels / theirs for pixels, _, theirs in rows),
        "replay": median(pixels for pixels, _, _ in rows),
        "replay_normalised": median(floats for _, floats, _ in rows),
        "torchvision": median(theirs for _, _, theirs in rows),
        "cores": options.cores,
        "torch": torch.__version__,
        "required": 1.5,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
