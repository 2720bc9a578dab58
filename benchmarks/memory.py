"""Peak memory of building and distilling, at two numbers of samples and of views.

Small JPEGs in class folders, resnet20 at 32 pixels, units of 8,192 samples (so the codec is klt,
of 64 classes): everything else is the command line as anyone runs it.

    python benchmarks/memory.py [--samples 16384 49152] [--views 1 3]
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 64
COMMON = ("--threads", "2")


def write_images(root: Path, samples: int) -> Path:
    """A folder of class folders; sixteen pictures under many names."""
    pictures = []
    for seed in range(16):
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((40, 40)).save(buffer, "JPEG")
        pictures.append(buffer.getvalue())
    for number in range(samples):
        folder = root / f"train/{number % CLASSES:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06d}.jpg").write_bytes(pictures[number % 16])
    return root


def peak(command: list[str], home: Path) -> float:
    """The most memory of a command, in MB."""
    words = [sys.executable, "-m", "skd_cache", *command]
    environment = os.environ | {"SKD_CACHE_HOME": str(home)}
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}\n{said}")
    return usage.ru_maxrss / 1000


def weights(file: Path) -> Path:
    """A resnet20 that was never trained."""
    program = (
        "import sys, torch; from skd_cache.models import create; torch.manual_seed(0);"
        f"torch.save(create('resnet20', {CLASSES}).state_dict(), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], check=True)
    return file


def measure(samples: int, views: int, data: Path, teacher: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        given = ["--dataset", "imagefolder", "--data", str(data / "train"), *COMMON]
        build = ["build", "--teacher", "resnet20", "--teacher-weights", str(teacher), *given]
        build += ["--views", str(views), "--size", "32", "--shard", "8192"]
        built = peak(build, home)
        train = ["distill", "--loss", "kd", "--student", "resnet20", "--epochs", str(views), *given]
        train += ["--size", "32", "--batch-size", "128", "--out", str(home / "run")]
        return {"samples": samples, "views": views, "build": built, "distill": peak(train, home)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--samples", type=int, nargs=2, default=[16384, 49152])
    parser.add_argument("--views", type=int, nargs=2, default=[1, 3])
    arguments = parser.parse_args()
    few, many = arguments.samples
    one, several = arguments.views
    found = []
    print("| samples | views | build, MB | distill, MB |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        teacher = weights(Path(folder) / "teacher.pt")
        for samples, views in ((few, one), (few, several), (many, one)):
            data = Path(folder) / str(samples)
            if not data.exists():
                write_images(data, samples)
            row = measure(samples, views, data, teacher)
            print(f"| {samples:,} | {views} | {row['build']:,.0f} | {row['distill']:,.0f} |")
            found.append(row)
    print(json.dumps({"benchmark": "memory", "found": found}))


if __name__ == "__main__":
    main()
