"""``netspec draw``, ``summary``, ``rf`` and ``layers``: nets and layer types, without a run."""

from __future__ import annotations

import click

from netspec.cli.options import parse_shapes, run_python_option, shape_option
from netspec.frontend.graph import Node
from netspec.frontend.shapes import KnownShapes
from netspec.inspect import layer_catalogue, receptive_field_text
from netspec.inspect.draw import draw as draw_net
from netspec.inspect.look import look_at, look_at_inputs, misfit
from netspec.inspect.summary import summarise
from netspec.inspect.summary_text import FORMATS
from netspec.sources.base import unimported

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
    _say_what_is_unknown(known, run_python)
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
    _say_what_is_unknown(known, run_python, err=form != "table")
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
    click.echo(receptive_field_text.table(known, blob))
    if why := misfit(known):
        click.echo(f"with the pads that it has it cannot run: {why}", err=True)


def _say_what_is_unknown(known: KnownShapes, run_python: bool, err: bool = False) -> None:
    """Print a line for each reason why a layer is unknown, and one for missing data."""
    _say_unknown_layers(known, run_python, err)
    missing = [
        known.graph.values[top].name
        for node in known.graph.sources
        for top in node.tops
        if known.values[top] is None and not _unread(node, run_python)
    ]
    if missing:
        click.echo(
            f"without the shapes that hang on {', '.join(missing)}, as the data is not here; "
            f"give --shape {missing[0]}=1,3,500,500",
            err=err,
        )


def _say_unknown_layers(known: KnownShapes, run_python: bool, err: bool = True) -> None:
    """Print a line for each reason why a layer, or the data that it reads, is unknown."""
    first: dict[str, Node] = {}
    for node in known.graph.nodes:
        unshaped = any(known.values[top] is None for top in node.tops)
        if not node.layer.traits.known:
            first.setdefault(node.layer.missing(), node)
        elif unshaped and _unread(node, run_python):
            first.setdefault(_unread(node, run_python), node)
    for why, node in first.items():
        click.echo(f"{node.place}: {node.who}: {why}", err=err)


def _unread(node: Node, run_python: bool) -> str:
    """Why a data layer that stands here is not read, if its code is what keeps it from that."""
    return "" if run_python else unimported(node.layer.spec)


@click.command()
def layers() -> None:
    """List the layer types: what they take, make, learn and compute."""
    click.echo(layer_catalogue.table())
