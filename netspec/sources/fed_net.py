"""A net compiled for what its data layers read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from netspec.errors import SourceError, require
from netspec.frontend.graph import Graph
from netspec.frontend.shape_cache import shared_shapes
from netspec.layers.base import Shape
from netspec.runtime.module import Net
from netspec.sources.feed import Feed, shapes_of_sources


def compile_net(graph: Graph, shapes: Mapping[str, Shape] | None = None, seed: int = 0) -> Net:
    """The module of a connected net, its learned arrays filled.

    shapes: of fed blobs; a data layer whose shapes are not given is opened to see. Raises
    SourceError, LayerError.
    """
    return Net(shared_shapes(graph, shapes_of_sources(graph, shapes or {})), seed)


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
