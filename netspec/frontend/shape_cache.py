"""One `Shapes` object for nets that are equal in all, so that they share compiled programs.

JAX finds a compiled program by the `Shapes` that it was compiled for, compared by identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakValueDictionary

from netspec.frontend.graph import Graph
from netspec.frontend.shapes import Shapes, infer
from netspec.layers.base import Shape


def shared_shapes(graph: Graph, given: Mapping[str, Shape]) -> Shapes:
    """As `infer`; the same object for an equal net while one lives.

    Nets with users' own code, or with layers on the host, are never shared.
    """
    layers = [node.layer for node in graph.nodes]
    if not all(layer.traits.is_plain and not layer.traits.on_host for layer in layers):
        return infer(graph, given)
    key = (
        *(graph.file, graph.name, graph.phase, graph.force_backward),
        tuple((type(layer), layer.spec.SerializeToString()) for layer in layers),
        tuple(node.place for node in graph.nodes),
        tuple(sorted((name, tuple(shape)) for name, shape in given.items())),
    )
    found = _INFERRED.get(key)
    if found is None:
        found = _INFERRED[key] = infer(graph, given)
    return found


_INFERRED: WeakValueDictionary[tuple[object, ...], Shapes] = WeakValueDictionary()
