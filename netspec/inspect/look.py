"""A net to be looked at: its graph and shapes as far as they are known here.

Data may be absent and layers unknown, as nothing is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from netspec.errors import LayerError
from netspec.frontend.net_graph import read_graph
from netspec.frontend.shapes import KnownShapes, infer
from netspec.layers.base import Shape
from netspec.layers.placeholder import create_or_stand_in
from netspec.sources.feed import shapes_of_sources


def look_at(
    prototxt: str | Path,
    phase: str | None = "test",
    shapes: Mapping[str, Shape] | None = None,
    run_python: bool = False,
) -> KnownShapes:
    """A net with all shapes that depend neither on absent data nor on unknown layers.

    phase: None is "train", or "test" for a net that has no loss to be trained by. shapes: blob name
    -> (N, C, H, W) of inputs. run_python: whether modules that the prototxt names are imported;
    else Python layers have placeholders. Raises a NetSpecError where the net cannot work.
    """
    fed = look_at_inputs(prototxt, phase, shapes, run_python)
    return infer(fed.graph, fed.fed, "known")


def look_at_inputs(
    prototxt: str | Path,
    phase: str | None = "test",
    shapes: Mapping[str, Shape] | None = None,
    run_python: bool = False,
) -> KnownShapes:
    """As `look_at`, with the shapes of what the net is fed alone; it need not fit together."""
    create = partial(create_or_stand_in, run_python=run_python)
    connected = read_graph(prototxt, phase or "train", create=create)
    if phase is None and not connected.losses:
        connected = read_graph(prototxt, "test", create=create)
    given = shapes_of_sources(connected, shapes or {}, missing_ok=True, run_python=run_python)
    return infer(connected, given, "fed")


def misfit(known: KnownShapes) -> str:
    """What keeps a net from running on what it is fed; empty if nothing is known to."""
    try:
        infer(known.graph, known.fed, "known")
    except LayerError as error:
        return str(error)
    return ""
