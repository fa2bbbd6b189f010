"""A whole net by the rules of its layers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from netspec.frontend.graph import Graph, Node
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.proto.layers_pb2 import LayerParameter

from .rules import RULES, Array


def evaluate(
    shapes: Shapes, params: Mapping[ParamKey, Any], given: Mapping[int, Any]
) -> dict[int, Array]:
    """Every value of a net, by index, from the values fed to it."""
    values = {i: np.asarray(array, np.float64) for i, array in given.items()}
    for node, keys in ((each.node, each.keys) for each in shapes.nodes):
        if node.layer.traits.is_source:
            continue
        blobs = [np.asarray(params[key], np.float64) for key in keys.values()]
        bottoms = [values[i] for i in node.bottoms]
        tops = RULES[node.type](in_phase(shapes.graph, node), blobs, *bottoms)
        values.update(zip(node.tops, tops, strict=False))
    return values


def carried_on(
    shapes: Shapes, params: Mapping[ParamKey, Any], values: Mapping[int, Array]
) -> dict[ParamKey, Array]:
    """What layers leave for the next run: what their rules give beyond their tops."""
    kept: dict[ParamKey, Array] = {}
    for node, keys in ((each.node, each.keys) for each in shapes.nodes):
        names = [key for key in shapes.carried if key.layer == node.name]
        if names:
            blobs = [np.asarray(params[key], np.float64) for key in keys.values()]
            made = RULES[node.type](node.layer.spec, blobs, *(values[i] for i in node.bottoms))
            kept.update(zip(names, (state[0] for state in made[len(node.tops) :]), strict=True))
    return kept


def in_phase(graph: Graph, node: Node) -> LayerParameter:
    """A layer's message, in the net's phase where it names none."""
    layer = LayerParameter()
    layer.CopyFrom(node.layer.spec)
    layer.phase = layer.phase if layer.HasField("phase") else graph.phase
    return layer
