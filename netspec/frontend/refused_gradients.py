"""Backward passes that are refused: through layers without one, and to labels and indices.

Caffe: ``NOT_IMPLEMENTED``, and "cannot backpropagate to" checks, of its layers' ``Backward_cpu``.
"""

from __future__ import annotations

from collections.abc import Iterable

from netspec.errors import blame, fail
from netspec.frontend.shapes import NodeShapes, Shapes
from netspec.layers.base import Shape


def check_backward(shapes: Shapes, nodes: Iterable[int] | None = None) -> None:
    """Raise LayerError if training wants a gradient that a layer does not have.

    nodes: the layers to ask, by number; all of them if it is None.
    """
    graph = shapes.graph
    for n in range(len(graph.nodes)) if nodes is None else nodes:
        each = shapes.nodes[n]
        with blame(each.node.place, each.node.who):
            _check(each, graph.force_backward)


def _check(each: NodeShapes[Shape], forced: bool) -> None:
    node, use = each.node, each.node.layer.bottom_use
    wanted = [i for i in sorted(use.refused) if i < len(each.wanted) and each.wanted[i]]
    if not wanted and not (use.no_backward and each.backward):
        return
    bottoms = node.layer.spec.bottom
    what = f'to its bottom "{bottoms[wanted[0]]}"' if wanted else "through it"
    down = " ".join(
        f"propagate_down: {str(i not in use.refused).lower()}" for i in range(len(bottoms))
    )
    if forced:
        remedy = "leave out force_backward: true, or begin the backward pass below this layer"
    elif use.no_backward:
        remedy = "write propagate_down: false for its top in the layers that read it"
    else:
        remedy = f"write {down} in this layer"
    fail(f"no gradient goes {what}, but the backward pass wants one; {remedy}")
