"""``skd-cache evaluate``: how good is a trained student?"""

import json
from pathlib import Path

import click

from skd_cache.cli import options
from skd_cache.dataset.catalog import open_dataset
from skd_cache.distill.evaluate import evaluate
from skd_cache.distill.student import load_student
from skd_cache.distill.views import Pixels


@click.command(no_args_is_help=True)
@click.argument("run", type=click.Path(path_type=Path))
@options.dataset_name(required=False)
@options.data
@click.option("--batch-size", type=click.IntRange(1), default=250, show_default=True)
@click.option("--size", type=click.IntRange(8, 8192), help="Pixels. [default: as it was trained]")
@options.pixels
@options.device
@options.threads
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    run: Path,
    dataset: str | None,
    data: Path | None,
    batch_size: int,
    size: int | None,
    pixels: str | None,
    device: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure the student of RUN (a run's folder or a .safetensors file) on a validation set.

    Images are resized and cut as torchvision's eval transform does. The dataset is the one the
    student was trained on unless another is named.

    \b
    Examples:
      skd-cache evaluate runs/demo
      skd-cache evaluate runs/demo/best.safetensors --dataset fashion-mnist --json
    """
    threads = options.set_threads(threads)
    device = options.resolve_device(device)
    name = dataset or load_student(run)[1].dataset
    found, portrait = evaluate(
        run,
        open_dataset(name, data),
        batch_size=batch_size,
        size=size,
        pixels=Pixels(pixels, threads=threads, device=device),
        device=device,
    )
    if as_json:
        document = {
            "student": portrait.architecture,
            "dataset": name,
            "top1": found.top1,
            "top5": found.top5,
            "images": found.images,
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo(
        f"{portrait.architecture} on {name}: top-1 {found.top1:.2%}, top-5 {found.top5:.2%} "
        f"({found.images:,} images at {portrait.size} px)"
    )
