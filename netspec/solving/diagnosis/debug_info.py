"""A training step as Caffe's ``debug_info: true`` prints it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from netspec.frontend.graph import Node
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.solving.diagnosis.measure import Look, open_bottoms


def debug_info_lines(
    look: Look, shapes: Shapes, steps: Mapping[ParamKey, Array] | None = None
) -> list[str]:
    """What Caffe prints of a step under ``debug_info: true``, line by line in its order.

    steps: what the step's update adds to each learned array, for the ``[Update]`` lines, which are
    left out without them. Caffe: ``Net::ForwardDebugInfo``, ``BackwardDebugInfo``,
    ``UpdateDebugInfo``, ``Backward``. Differs: there are no split layers, so a blob that several
    layers read has the sum of their diffs at each of them; a frozen array has no diff under
    ``force_backward`` either.
    """
    lines = [*_forward_lines(look, shapes), *_backward_lines(look, shapes)]
    if steps is not None:
        lines += _update_lines(look, shapes, steps)
    return lines


def _forward_lines(look: Look, shapes: Shapes) -> Iterator[str]:
    graph = shapes.graph
    for each in shapes.nodes:
        node = each.node
        head = f"    [Forward] Layer {node.name}"
        for i in node.tops:
            if i in look.values:
                name = graph.values[i].name
                yield f"{head}, top blob {name} data: {look.values[i].mean:g}"
        for i, key in enumerate(each.keys.values()):
            yield f"{head}, param blob {_shown(node, i)} data: {look.params[key].mean:g}"


def _backward_lines(look: Look, shapes: Shapes) -> Iterator[str]:
    graph = shapes.graph
    for each in reversed(shapes.nodes):
        node = each.node
        if not look.diffs.keys() & set(node.tops):
            continue
        head = f"    [Backward] Layer {node.name}"
        for _, i in open_bottoms(node):
            if i in look.diffs:
                yield f"{head}, bottom blob {graph.values[i].name} diff: {look.diffs[i].mean:g}"
        for i, key in enumerate(each.keys.values()):
            if key in look.gradients:
                yield f"{head}, param blob {i} diff: {look.gradients[key].mean:g}"
    data = [look.params[key] for key in shapes.params]
    diff = look.gradients.values()
    l1 = [sum(one.total for one in side) for side in (data, diff)]
    l2 = [math.sqrt(sum(one.squares for one in side)) for side in (data, diff)]
    yield (
        f"    [Backward] All net params (data, diff): L1 norm = ({l1[0]:g}, {l1[1]:g}); "
        f"L2 norm = ({l2[0]:g}, {l2[1]:g})"
    )


def _update_lines(look: Look, shapes: Shapes, steps: Mapping[ParamKey, Array]) -> Iterator[str]:
    nodes = shapes.graph.nodes
    for n, (node, each) in enumerate(zip(nodes, shapes.nodes, strict=True)):
        for i, key in enumerate(each.keys.values()):
            diff = float(np.mean(np.abs(steps[key]))) if key in steps else 0.0
            head, shown = f"    [Update] Layer {node.name}, param", _shown(node, i)
            if (n, i) in shapes.graph.shared:
                owner, j = shapes.graph.shared[n, i]
                yield (
                    f"{head} blob {shown} (owned by layer {nodes[owner].name}, param "
                    f"{_shown(nodes[owner], j)}) diff: {diff:g}"
                )
            else:
                yield f"{head} {shown} data: {look.params[key].mean:g}; diff: {diff:g}"


def _shown(node: Node, index: int) -> str:
    """A learned blob by its shared name, or by its index."""
    return node.param_spec(index).name or str(index)
