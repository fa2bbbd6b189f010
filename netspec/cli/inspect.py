"""``netspec draw``, ``summary``, ``rf`` and ``layers``: nets and layer types, without a run."""

from __future__ import annotations

import click

from netspec.cli.options import parse_shapes, run_python_option, shape_option
from netspec.cli.unknown_layers import say_unknown_layers, say_what_is_unknown
from netspec.inspect import layer_catalogue, receptive_field_text
from netspec.inspect.draw import draw as draw_net
from netspec.inspect.look import look_at, look_at_inputs, misfit
from netspec.inspect.summary import summarise
from netspec.inspect.summary_text import FORMATS

_phase_option = click.option(
    "--phase",
    type=click.Choice(["train", "test"]),
    help="By default train, or test for a net without a loss.",
)


@click.command()
@click.argument("net")
@click.option("-o", "--out", required=True, help="net.svg, net.png or net.dot.")
@_phase_option
@shape_option
@run_python_option
def draw(net: str, out: str, phase: str | None, shapes: tuple[str, ...], run_python: bool) -> None:
    """Draw NET: its layers, their windows, the shapes between them."""
    known = look_at(net, phase, parse_shapes(shapes), run_python)
    draw_net(known, out)
    say_what_is_unknown(known, run_python)
    click.echo(out)


@click.command()
@click.argument("net")
@_phase_option
@shape_option
@run_python_option
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json"]), default="table",
    show_default=True,
)  # fmt: skip
def summary(
    net: str, phase: str | None, shapes: tuple[str, ...], run_python: bool, form: str
) -> None:
    """List the layers of NET: shapes, parameters, multiply-adds, activations, what is frozen."""
    known = look_at(net, phase, parse_shapes(shapes), run_python)
    say_what_is_unknown(known, run_python, err=form != "table")
    click.echo(FORMATS[form](summarise(known)))


@click.command()
@click.argument("net")
@click.argument("blob", required=False)
@click.option("--phase", type=click.Choice(["train", "test"]), default="test", show_default=True)
@shape_option
@run_python_option
def rf(net: str, blob: str | None, phase: str, shapes: tuple[str, ...], run_python: bool) -> None:
    """Tell what the pixels of NET's blobs see: stride, receptive field, offset, least pad."""
    known = look_at_inputs(net, phase, parse_shapes(shapes), run_python)
    say_unknown_layers(known, run_python)
    click.echo(receptive_field_text.table(known, blob))
    if why := misfit(known):
        click.echo(f"with the pads that it has it cannot run: {why}", err=True)


@click.command()
def layers() -> None:
    """List the layer types: what they take, make, learn and compute."""
    click.echo(layer_catalogue.table())
