"""A net's text to its graph: upgrade, selection by state and connection in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netspec.frontend.graph import Create, Graph, connect
from netspec.frontend.phase import phase_of, select, state_of
from netspec.frontend.prototxt import NetText, read_net
from netspec.frontend.unshaped_inputs import feed_unshaped_inputs
from netspec.frontend.upgrade import upgrade
from netspec.layers import create
from netspec.proto.layers_pb2 import NetState


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
    selected = select(upgrade(text), state)
    return connect(feed_unshaped_inputs(selected, text.message.input), create)
