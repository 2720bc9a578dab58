"""Train the demo teacher: a WRN-16-2 on the 60,000 training images of Fashion-MNIST.

Six epochs at full size follow eight at 20 pixels, under one cosine of the learning rate: about
three quarters of an hour on two cores. Every draw comes from the generators seeded here.

    python tools/train_demo_teacher.py /usr/share/datasets/fashion-mnist demo-teacher.safetensors
"""

import gzip
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from skd_cache import models

BATCH = 128
STAGES = ((20, 8), (28, 6))  # (pixels, epochs)
PEAK_LR = 0.2
WEIGHT_DECAY = 5e-4
MEAN, STD = 0.2860, 0.3530


def read_split(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images ``[N, 1, 28, 28]`` uint8 and labels ``[N]`` int64 of one split."""
    pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return torch.tensor(images), torch.tensor(np.frombuffer(labels, np.uint8, offset=8)).long()


def prepare(images: Tensor, size: int) -> Tensor:
    """``[B, 1, 28, 28]`` uint8 to normalised ``[B, 3, size, size]`` float32, channels last."""
    x = images.float() / 255
    if size != 28:
        x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
    x = ((x - MEAN) / STD).expand(-1, 3, -1, -1)
    return x.contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, draws: torch.Generator) -> Tensor:
    """Pad two pixels, crop back at random, flip every other image."""
    count = len(images)
    padded = F.pad(images, (2, 2, 2, 2))
    top, left = (torch.randint(0, 5, (count, 1, 1), generator=draws) for _ in range(2))
    flip = torch.rand(count, 1, 1, generator=draws) < 0.5
    rows = top + torch.arange(28)[None, :, None]
    steps = torch.arange(28)[None, None, :]
    columns = left + torch.where(flip, 27 - steps, steps)
    return padded[torch.arange(count)[:, None, None], 0, rows, columns].unsqueeze(1)


@torch.inference_mode()
def accuracy(model: torch.nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    hits = 0
    for start in range(0, len(images), 500):
        logits = model(prepare(images[start : start + 500], 28))
        hits += int((logits.argmax(1) == labels[start : start + 500]).sum())
    return hits / len(images)


def main(folder: Path, out: Path) -> None:
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(0)
    images, labels = read_split(folder, "train")
    test_images, test_labels = read_split(folder, "t10k")
    model = models.create("wrn_16_2", num_classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), PEAK_LR, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    steps = len(images) // BATCH
    epochs = sum(count for _, count in STAGES)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LR, total_steps=steps * epochs, pct_start=0.15
    )
    epoch = 0
    for size, count in STAGES:
        for _ in range(count):
            began = time.monotonic()
            model.train()
            order = torch.randperm(len(images), generator=draws)
            for step in range(steps):
                batch = order[step * BATCH : (step + 1) * BATCH]
                logits = model(prepare(augment(images[batch], draws), size))
                loss = F.cross_entropy(logits, labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            epoch += 1
            top1 = accuracy(model, test_images, test_labels)
            seconds = time.monotonic() - began
            print(f"epoch {epoch}/{epochs} {size}px top-1 {top1:.4f} {seconds:.0f} s", flush=True)
            tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
            save_file(tensors, out, {"dataset": "fashion-mnist", "top1": f"{100 * top1:.2f}"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
