"""``netspec data show``: a contact sheet of what a net gets."""

from __future__ import annotations

import click

from netspec.cli.options import run_python_option
from netspec.inspect.contact_sheet import card, write
from netspec.inspect.look import look_at
from netspec.sources.show import samples


@click.command()
@click.argument("net")
@click.option("-n", "--count", default=8, show_default=True, help="How many samples.")
@click.option("-o", "--out", default="sheet.png", show_default=True, help="A .png or a .jpg.")
@click.option("--phase", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option("--seed", default=0, show_default=True, help="The solver's random_seed.")
@run_python_option
def show(net: str, count: int, out: str, phase: str, seed: int, run_python: bool) -> None:
    """Draw what NET really gets: images, their mean added back, and labels."""
    shown = samples(look_at(net, phase, run_python=run_python), count, seed, run_python)
    cards = (
        card((layer.name for layer in sample), (p for layer in sample for p in layer.tops))
        for sample in shown
    )
    write(out, f"{net}, phase {phase}: what the net gets, any mean added back", cards)
    click.echo(out)
