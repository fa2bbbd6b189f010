"""The compiler's table of contents: a prototxt becomes a net, a line a stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from netspec.errors import GraphError, LayerError, SourceError, require
from netspec.frontend.graph import Create, Graph, connect
from netspec.frontend.phase import select, state_of
from netspec.frontend.prototxt import NetText, read_net
from netspec.frontend.shape_cache import shared_shapes
from netspec.frontend.shapes import KnownShapes, infer
from netspec.frontend.upgrade import upgrade
from netspec.layers import create
from netspec.layers.base import Shape
from netspec.layers.placeholder import create_or_stand_in
from netspec.proto.layers_pb2 import TEST, TRAIN, NetState
from netspec.runtime.compute_policy import ComputePolicy
from netspec.runtime.module import Net
from netspec.sources.feed import Feed, shapes_of_sources
from netspec.weights.caffemodel import copy_into, read_weights

PHASES = {"train": TRAIN, "test": TEST}


def load(
    prototxt: str | Path,
    caffemodel: str | Path | None = None,
    phase: str = "test",
    shapes: Mapping[str, Shape] | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    seed: int = 0,
    dtype: str = "f32",
) -> Net:
    """A net from its prototxt, with weights if a .caffemodel (or .h5) is named.

    phase: "train" or "test". shapes: blob name -> (N, C, H, W) of inputs, where the prototxt does
    not state them or states others; a data layer without one is opened to see. seed: for the
    fillers. dtype: "f32", "tf32" or "bf16", what it computes in (see `ComputePolicy`). Raises a
    NetSpecError that says where and what.
    """
    net = compile_net(graph(prototxt, phase, level, stages), shapes, seed)
    net.policy = ComputePolicy(dtype)
    if caffemodel is not None:
        copy_into(net, read_weights(caffemodel))
    return net


def graph(
    path: str | Path,
    phase: str = "test",
    level: int = 0,
    stages: Sequence[str] = (),
    create: Create = create,
) -> Graph:
    """The connected layers of a prototxt file in one phase, "train" or "test".

    create: makes the layer of a LayerParameter in a phase.
    """
    known = ", ".join(PHASES)
    require(phase.lower() in PHASES, f'unknown phase "{phase}" ({known})', GraphError)
    text = read_net(path)
    return graph_of(text, state_of(text, PHASES[phase.lower()], level, stages), create)


def graph_of(text: NetText, state: NetState, create: Create = create) -> Graph:
    """The connected layers of a parsed net in one state."""
    current = upgrade(text)
    selected = select(current, state)
    return connect(selected, create)


def compile_net(graph: Graph, shapes: Mapping[str, Shape] | None = None, seed: int = 0) -> Net:
    """The module of a connected net, its learned arrays filled."""
    given = shapes_of_sources(graph, shapes or {})
    return Net(shared_shapes(graph, given), seed)


def look_at(
    prototxt: str | Path, phase: str | None = "test", shapes: Mapping[str, Shape] | None = None
) -> KnownShapes:
    """A net to look at, with all shapes that hang neither on absent data nor on unknown layers.

    phase: None is "train", or "test" for a net that has no loss to be trained by.
    """
    fed = look_at_inputs(prototxt, phase, shapes)
    return infer(fed.graph, fed.fed, "known")


def look_at_inputs(
    prototxt: str | Path, phase: str | None = "test", shapes: Mapping[str, Shape] | None = None
) -> KnownShapes:
    """As `look_at`, with the shapes of what the net is fed alone; it need not fit together."""
    connected = graph(prototxt, phase or "train", create=create_or_stand_in)
    if phase is None and not connected.losses:
        connected = graph(prototxt, "test", create=create_or_stand_in)
    given = shapes_of_sources(connected, shapes or {}, missing_ok=True)
    return infer(connected, given, "fed")


def misfit(known: KnownShapes) -> str:
    """What keeps a net from running on what it is fed; nothing if nothing is known to."""
    try:
        infer(known.graph, known.fed, "known")
    except LayerError as error:
        return str(error)
    return ""


@contextmanager
def with_data(graph: Graph, inputs_ok: bool = False) -> Iterator[tuple[Net, Feed]]:
    """The module of a net and what its data layers read; closed at the end.

    inputs_ok: whether the caller may have blobs to hand in; if not, SourceError is raised where
    there are Input layers.
    """
    require(
        inputs_ok or not graph.inputs,
        f"{graph.file}: no data layer feeds {', '.join(graph.inputs)}, which an Input layer makes; "
        "give a net that has data layers",
        SourceError,
    )
    with Feed(graph) as feed:
        yield compile_net(graph, feed.tops), feed
