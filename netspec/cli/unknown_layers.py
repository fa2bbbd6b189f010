"""Say what is not known of a net that is only looked at: layers, classes not run, absent data."""

from __future__ import annotations

import click

from netspec.frontend.graph import Node
from netspec.frontend.shapes import KnownShapes
from netspec.sources.base import unimported


def say_what_is_unknown(known: KnownShapes, run_python: bool, err: bool = False) -> None:
    """Print a line for each reason why a layer is unknown, and one for missing data."""
    say_unknown_layers(known, run_python, err)
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


def say_unknown_layers(known: KnownShapes, run_python: bool, err: bool = False) -> None:
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
