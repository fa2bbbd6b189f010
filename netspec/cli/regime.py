"""``netspec regime``: a solver's training regime turned into an equivalent one."""

from __future__ import annotations

from typing import Any

import click

from netspec.solving.equivalence import convert, target


@click.command()
@click.argument("solver")
@click.option("-o", "--out", required=True, help="The solver prototxt to write.")
@click.option("--accum", is_flag=True, help="20 batches a step.")
@click.option("--heavy", is_flag=True, help="1 batch a step, as much memory of images.")
@click.option("--online", is_flag=True, help="1 batch a step, momentum 0.9.")
@click.option("--iter-size", type=int, help="So many batches a step.")
@click.option("--batch", type=int, nargs=2, metavar="OLD NEW", help="Images in the net's batches.")
@click.option("--momentum", type=float, help="Take this one rather than the equivalent one.")
@click.option(
    "--keep",
    type=click.Choice(["step", "way"]),
    default="step",
    show_default=True,
    help="What stays of an image: its weight in a step, or how far it moves the weights in all.",
)
def regime(solver: str, out: str, accum: bool, heavy: bool, online: bool, **options: Any) -> None:
    """Turn the regime of SOLVER into its equivalent with other images a step.

    Momentum p over k images becomes p' over k' by p^(1/k) = p'^(1/k'), as the FCN papers have it.
    """
    asked = {"accum": accum, "heavy": heavy, "online": online}
    names = [name for name, wanted in asked.items() if wanted]
    for line in convert(solver, out, target(names, **options)):
        click.echo(line)
    click.echo(out)
