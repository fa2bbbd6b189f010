"""Flax's switches: the layers that draw numbers or use statistics as in another phase."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

from netspec.errors import blame
from netspec.frontend.graph import Node
from netspec.frontend.shapes import Shapes, infer
from netspec.layers.records import PhaseChoice
from netspec.proto.layers_pb2 import TEST, TRAIN

_SWITCHED: WeakKeyDictionary[Shapes, dict[tuple[bool, bool], Shapes]] = WeakKeyDictionary()


def switched(shapes: Shapes, deterministic: bool, use_running_average: bool) -> Shapes:
    """The same net with its switches so; what a layer's own settings say of its phase stays.

    deterministic: no layer draws numbers. use_running_average: normalisation is by statistics kept.
    The same object for the same net, so that programs are found. Raises LayerError.
    """
    made = _SWITCHED.setdefault(shapes, {})
    which = deterministic, use_running_average
    if which not in made:
        found = _switched(shapes, dict(zip(PhaseChoice, which, strict=True)))
        if found is shapes:
            # Kept here, it would live as long as itself.
            return shapes
        made[which] = found
    return made[which]


def _switched(shapes: Shapes, tests: dict[PhaseChoice, bool]) -> Shapes:
    graph = shapes.graph
    nodes = tuple(_node(node, tests) for node in graph.nodes)
    if nodes == graph.nodes:
        return shapes
    return infer(replace(graph, nodes=nodes), shapes.fed)


def _node(node: Node, tests: dict[PhaseChoice, bool]) -> Node:
    layer = node.layer
    choice = layer.traits.phase_choice
    if choice is None or layer.spec.HasField("phase"):
        return node
    phase = TEST if tests[choice] else TRAIN
    if phase == layer.phase:
        return node
    with blame(node.place, node.who):
        return replace(node, layer=type(layer)(layer.spec, phase))
