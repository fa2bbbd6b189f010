"""``netspec surgery``: weights for a net, made out of other nets'."""

from __future__ import annotations

from typing import Any

import click

from netspec.build import load
from netspec.cli.options import parse_shapes, run_python_option, shape_option
from netspec.errors import NetSpecError, require
from netspec.weights.surgery import SurgeryPlan, transplant


@click.command()
@click.argument("net")
@click.argument("weights", nargs=-1)
@click.option("-o", "--out", required=True, help="The .caffemodel or .caffemodel.h5 to write.")
@click.option("--fc-to-conv", is_flag=True, help="Take fully connected weights for convolutions.")
@click.option("--skip-misfits", is_flag=True, help="Leave layers whose weights do not fit.")
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="A layer of WEIGHTS is NET's NEW.")
@click.option("--suffix", "suffixes", multiple=True, help="What NET's layer names end in besides.")
@click.option("--bilinear", multiple=True, metavar="LAYER", help="Interpolates: 'upscore*'.")
@click.option("--more-classes", multiple=True, metavar="LAYER", help="Has more outputs.")
@click.option("--more-channels", multiple=True, metavar="LAYER", help="Has more inputs.")
@click.option("--phase", type=click.Choice(["train", "test"]), default="train", show_default=True)
@shape_option
@run_python_option
def surgery(
    net: str,
    weights: tuple[str, ...],
    out: str,
    rename: tuple[str, ...],
    phase: str,
    shapes: tuple[str, ...],
    run_python: bool,
    **options: Any,
) -> None:
    """Make weights for NET out of other nets' WEIGHTS, layer by layer of the same name.

    Of classes and channels that WEIGHTS lack, classes are as NET's fillers begin them, and input
    channels the mean of the others. A --suffix for each of WEIGHTS, or several for the only one,
    make trunks of one net.
    """
    plan = SurgeryPlan(rename=dict(map(_rename, rename)), **options)
    compiled = load(net, phase=phase, shapes=parse_shapes(shapes), run_python=run_python)
    click.echo(transplant(compiled, weights, plan, out))
    click.echo(out)


def _rename(option: str) -> tuple[str, str]:
    old, _, new = option.partition("=")
    require(old and new, f"--rename {option}: write it as OLD=NEW", NetSpecError)
    return old, new
