"""``netspec data shapes``: the synthetic set. Imports no JAX."""

from __future__ import annotations

import click

from netspec.segmentation.shapes_set import write_dataset


@click.command()
@click.argument("folder", default="data/shapes")
@click.option("--train", default=160, show_default=True, help="Images to train on.")
@click.option("--val", default=40, show_default=True, help="Images to test on.")
@click.option("--seed", default=0, show_default=True)
def shapes(folder: str, train: int, val: int, seed: int) -> None:
    """Make a small set of textured shapes in PASCAL VOC's layout in FOLDER."""
    click.echo(write_dataset(folder, train, val, seed))
