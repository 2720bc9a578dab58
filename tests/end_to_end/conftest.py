import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from skd_cache.cli import main
from tests.end_to_end import tiny_nets

ROOT = Path(__file__).parents[2]
CLASSES = ("bright", "dark", "striped")
COUNT, VAL = 150, 24


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


Run = Callable[..., Finished]


@dataclass(frozen=True)
class Desk:
    """A folder with images, a teacher's weights and a cache home, and the command line in it."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def weights(self) -> Path:
        return self.folder / "teacher.safetensors"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SKD_CACHE")}
        # Networks this small only wait for each other's threads.
        told = {"SKD_CACHE_HOME": str(self.home), "SKD_CACHE_REGISTRY": "none"}
        return {**clean, **told, "OMP_NUM_THREADS": "1", **self.extra}

    def run(self, *arguments: object, prelude: str = "") -> Finished:
        """The real command in a process of its own, after the Python of ``prelude``."""
        script = f"{prelude}\nfrom skd_cache.cli import main\nmain()"
        line = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(
            line, cwd=ROOT, env=self.environment(), capture_output=True, text=True, check=False
        )
        return Finished(done.returncode, done.stdout.strip(), done.stderr)

    def call(self, *arguments: object) -> Finished:
        """The same command line in this process, which has imported everything already."""
        out, err = io.StringIO(), io.StringIO()
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(self.environment())
        try:
            with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
                main([str(argument) for argument in arguments])
        finally:
            os.environ.clear()
            os.environ.update(before)
        return Finished(int(ended.value.code or 0), out.getvalue().strip(), err.getvalue())

    def build(self, *more: object, run: Run | None = None) -> Finished:
        # What may be given several times has its default here only where it is not given.
        usual = {
            "--teacher": "tests.end_to_end.tiny_nets:teacher",
            "--teacher-weights": self.weights,
            "--size": 32,
        }
        asked = [(option, value) for option, value in usual.items() if option not in more]
        return (run or self.run)(
            *("build", *(word for pair in asked for word in pair), "--dataset", "imagefolder"),
            *("--data", self.images, "--policy", "rrc-flip", "--views", 2),
            *("--batch-size", 16, "--shard", 64, "--threads", 1, *more),
        )

    def distill(self, *more: object, run: Run | None = None) -> Finished:
        return (run or self.run)(
            *("distill", "--student", "tests.end_to_end.tiny_nets:student", "--size", 32),
            *("--dataset", "imagefolder", "--data", self.images, "--epochs", 3),
            *("--batch-size", 16, "--lr", 0.05, "--threads", 1, *more),
        )


def picture(label: int, index: int) -> Image.Image:
    """48 x 40 or so, recognisably of its class."""
    draws = np.random.default_rng(1000 * label + index)
    height, width = 40 + index % 7, 48 - index % 5
    base = {0: 200, 1: 50, 2: 125}[label]
    noise = draws.integers(-40, 40, (height, width, 3))
    stripes = 60 * (np.arange(width) // 4 % 2)[None, :, None] if label == 2 else 0
    return Image.fromarray(np.clip(base + noise + stripes, 0, 255).astype(np.uint8))


def write_images(root: Path) -> None:
    for split, count in (("train", COUNT), ("val", VAL)):
        for index in range(count):
            label = index % len(CLASSES)
            file = root / split / CLASSES[label] / f"{index:03d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(label, index + (10_000 if split == "val" else 0)).save(file, quality=92)


def write_teacher(path: Path, classes: int = len(CLASSES)) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_file(tiny_nets.teacher(classes).state_dict(), path)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    write_images(made.images)
    write_teacher(made.weights)
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk whose cache is built: for tests that only read it."""
    made = Desk(tmp_path_factory.mktemp("desk"))
    write_images(made.images)
    write_teacher(made.weights)
    done = made.build("--codec", "float32")
    assert done.code == 0, done.err
    return made
