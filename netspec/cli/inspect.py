"""``netspec draw``, ``summary``, ``rf`` and ``layers``: nets and layer types, without a run."""

from __future__ import annotations

import click

from netspec.cli.options import parse_shapes, shape_option
from netspec.frontend.shapes import KnownShapes
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
def draw(net: str, out: str, phase: str | None, shapes: tuple[str, ...]) -> None:
    """Draw NET: its layers, their windows, the shapes between them."""
    known = look_at(net, phase, parse_shapes(shapes))
    draw_net(known, out)
    _say_what_is_unknown(known)
    click.echo(out)


@click.command()
@click.argument("net")
@_phase_option
@shape_option
@click.option(
    "--format", "form", type=click.Choice(["table", "csv", "json"]), default="table",
    show_default=True,
)  # fmt: skip
def summary(net: str, phase: str | None, shapes: tuple[str, ...], form: str) -> None:
    """List the layers of NET: shapes, parameters, multiply-adds, activations, what is frozen."""
    known = look_at(net, phase, parse_shapes(shapes))
    _say_what_is_unknown(known, err=form != "table")
    click.echo(FORMATS[form](summarise(known)))


@click.command()
@click.argument("net")
@click.argument("blob", required=False)
@click.option("--phase", type=click.Choice(["train", "test"]), default="test", show_default=True)
@shape_option
def rf(net: str, blob: str | None, phase: str, shapes: tuple[str, ...]) -> None:
    """Tell what the pixels of NET's blobs see: stride, receptive field, offset, least pad."""
    known = look_at_inputs(net, phase, parse_shapes(shapes))
    click.echo(receptive_field_text.table(known, blob))
    if why := misfit(known):
        click.echo(f"with the pads that it has it cannot run: {why}", err=True)


def _say_what_is_unknown(known: KnownShapes, err: bool = False) -> None:
    """Print a line for each reason why a layer is unknown, and one for missing data."""
    unknown = [node for node in known.graph.nodes if not node.layer.traits.known]
    first = {node.layer.missing(): node for node in reversed(unknown)}
    for node in reversed(first.values()):
        click.echo(f"{node.place}: {node.who}: {node.layer.missing()}", err=err)
    missing = [
        known.graph.values[top].name
        for node in known.graph.sources
        for top in node.tops
        if known.values[top] is None
    ]
    if missing:
        click.echo(
            f"without the shapes that hang on {', '.join(missing)}, as the data is not here; "
            f"give --shape {missing[0]}=1,3,500,500",
            err=err,
        )


@click.command()
def layers() -> None:
    """List the layer types: what they take, make, learn and compute."""
    click.echo(layer_catalogue.table())
