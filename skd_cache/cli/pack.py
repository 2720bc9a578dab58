"""``skd-cache pack``: a dataset as one file."""

from pathlib import Path

import click

from skd_cache.cli import options
from skd_cache.dataset.catalog import open_dataset
from skd_cache.dataset.packed import pack


@click.command(no_args_is_help=True)
@click.argument("dataset", metavar="DATASET")
@options.data
@click.option("--out", type=click.Path(path_type=Path), help="The file. [default: DATASET.h5 here]")
def command(dataset: str, data: Path | None, out: Path | None) -> None:
    """Pack the encoded images of DATASET into one .h5 file, read through a memory map.

    Caches do not notice: the packed dataset has the fingerprint of the folder.

    \b
    Examples:
      skd-cache pack imagenet --data /data/imagenet --out /fast/imagenet.h5
      skd-cache distill --loss spherical --dataset /fast/imagenet.h5
    """
    opened = open_dataset(dataset, data)
    file = out or Path(f"{Path(dataset).stem}.h5")
    pack(opened, file)
    click.echo(file)
