"""``skd-cache index``: what is in a dataset, and which of its images are bad."""

from pathlib import Path

import click
from rich.filesize import decimal

from skd_cache.cli import options
from skd_cache.dataset.catalog import check_dataset, open_dataset
from skd_cache.errors import DataError


@click.command(no_args_is_help=True)
@click.argument("dataset", metavar="DATASET")
@options.data
@click.option("--check", is_flag=True, help="Decode every image whole and list all bad files.")
def command(dataset: str, data: Path | None, check: bool) -> None:
    """Index the images of DATASET (a name, or a packed .h5), as build and distill do first.

    The index lies in the cache home; what changed in the dataset since is read again. With
    --check every image is decoded, and the exit code is 3 if one cannot be.

    \b
    Examples:
      skd-cache index imagenet --data /data/imagenet
      skd-cache index imagefolder --data my-images --check
    """
    if check:
        bad = check_dataset(dataset, data)
        for image in bad:
            click.echo(f"{image.where}: {image.reason}")
        if bad:
            raise DataError(f"{len(bad):,} images of {dataset} cannot be used: replace or remove")
    opened = open_dataset(dataset, data)
    for images in opened.splits.values():
        size = decimal(int(images.lengths.sum()))
        click.echo(
            f"{images.name}: {len(images):,} images of {len(images.classes):,} classes, "
            f"{size}, fingerprint {images.fingerprint[:12]}"
        )
        if refused := int(images.fallback.sum()):
            click.echo(f"  {refused:,} of them go through PIL, which DALI refuses")
