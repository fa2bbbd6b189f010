"""A net's text to its graph: upgrade, selection by state and connection in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netspec.errors import Place
from netspec.frontend.graph import Create, Graph, connect
from netspec.frontend.phase import phase_of, select, state_of
from netspec.frontend.prototxt import NetText, read_net
from netspec.frontend.upgrade import upgrade
from netspec.layers import create
from netspec.proto.layers_pb2 import LayerParameter, NetState


def read_graph(
    path: str | Path,
    phase: str = "test",
    level: int = 0,
    stages: Sequence[str] = (),
    create: Create = create,
) -> Graph:
    """The connected layers of a prototxt file in one phase, "train" or "test".

    create: makes the layer of a LayerParameter in a phase. Raises ParseError, GraphError and
    LayerError.
    """
    number = phase_of(phase)
    text = read_net(path)
    return graph_of(text, state_of(text, number, level, stages), create)


def graph_of(text: NetText, state: NetState, create: Create = create) -> Graph:
    """The connected layers of a parsed net in one state; raises GraphError and LayerError."""
    return connect(current(text, state), create)


def current(text: NetText, state: NetState) -> NetText:
    """A parsed net in the current schema, with the layers of one state; raises GraphError.

    An ``input`` without a shape that a layer reads becomes a blob of an Input layer, whose shape is
    given apart; Caffe has no such blob.
    """
    selected = select(upgrade(text), state)
    made: set[str] = set()
    unshaped: list[str] = []
    for layer in selected.message.layer:
        read = (name for name in layer.bottom if name not in made)
        unshaped += [name for name in read if name in text.message.input]
        made.update(unshaped, layer.top)
    if not unshaped:
        return selected
    fed = LayerParameter(name="input", type="Input", top=dict.fromkeys(unshaped))
    places = zip(selected.message.layer, selected.places, strict=True)
    return selected.with_layers([(fed, Place(text.file, 1)), *places])
