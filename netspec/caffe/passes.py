"""The passes of pycaffe's Net as compiled programs: some of a net's layers, forward or backward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from netspec.frontend.graph import AUTOMATIC, Graph
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.runtime.backward import Residuals, layer_gradients
from netspec.runtime.owned import owned_jit
from netspec.runtime.run import run_layers
from netspec.runtime.values import Params

# The first and the last layer of a pass, by index.
Nodes = tuple[int, int]


class Made(NamedTuple):
    """What a forward pass gives: blobs by name, what layers keep, the weighted sum of losses.

    values: by index, what it made and nothing overwrote, and what layers on the host made.
    """

    values: dict[int, Array]
    updates: dict[ParamKey, Array]
    loss: Array


@owned_jit(static=2)
def forward(
    shapes: Shapes, nodes: Nodes, params: Params, given: Mapping[int, Array], key: Array | None
) -> Made:
    """Run layers on the values that they are given."""
    graph = shapes.graph
    made = run_layers(shapes, range(nodes[0], nodes[1] + 1), params, given, key)
    new = sorted(made.values.keys() - given.keys())
    last = {graph.values[i].name: i for i in new}
    # A layer on the host is not run once more by the backward pass.
    on_host = [i for i in new if graph.nodes[graph.values[i].producer].layer.traits.on_host]
    values = {i: made.value(i) for i in dict.fromkeys([*last.values(), *on_host])}
    return Made(values, {**made.updates, **made.written}, made.loss())


@owned_jit(static=2)
def backward(
    shapes: Shapes,
    nodes: Nodes,
    params: Params,
    values: Mapping[int, Array],
    residuals: Residuals,
    seeds: Mapping[int, Array],
    arrived: Mapping[int, Array],
) -> tuple[dict[str, Array], dict[ParamKey, Array]]:
    """Compute the diffs of every blob of some layers, by name, and of their learned arrays.

    params, values, residuals: see `layer_gradients`. seeds: the diffs of values that none of the
    layers reads. arrived: those that layers further up have sent back to values made here.
    """
    graph = shapes.graph
    # Layers without tops have no gradient, and what they write has been written by the forward.
    span = [n for n in range(nodes[0], nodes[1] + 1) if graph.nodes[n].tops]
    made = [i for n in span for i in graph.nodes[n].tops]
    start = _starting_diffs(shapes, made, seeds, arrived)
    learned = _learned(shapes, span)
    found = layer_gradients(shapes, span, params, values, residuals, start, learned)
    read = {i for n in span for i in graph.nodes[n].bottoms}
    first = _first_bindings(graph, read.union(made))
    diffs = {**found.values, **seeds}
    shown = {
        name: diffs[i] if i in diffs else jnp.zeros_like(_any(i, shapes, values, residuals))
        for name, i in first.items()
    }
    return shown, found.learned


def of_one_forward(nodes: Nodes, residuals: Sequence[Residuals | None]) -> list[Nodes]:
    """The parts of a pass whose layers ran last in one forward pass, the last layers first.

    residuals: per layer, what its last forward pass left.
    """
    parts: list[Nodes] = []
    for n in range(nodes[1], nodes[0] - 1, -1):
        if parts and residuals[n] is residuals[parts[-1][0]]:
            parts[-1] = (n, parts[-1][1])
        else:
            parts.append((n, n))
    return parts


def _any(i: int, shapes: Shapes, values: Mapping[int, Array], residuals: Residuals) -> Array:
    """An array of a value's shape; it may depend on the data."""
    found = values.get(i, residuals.values.get(i))
    return jnp.zeros(shapes.values[i], jnp.float32) if found is None else found


def _starting_diffs(
    shapes: Shapes,
    made: Iterable[int],
    seeds: Mapping[int, Array],
    arrived: Mapping[int, Array],
) -> dict[int, Array]:
    """The diffs from which a backward pass starts, of values that its layers make."""
    graph = shapes.graph
    # What no loss depends on takes part only where `force_backward` asks for it.
    start = {
        i: seed
        for i, seed in seeds.items()
        if graph.force_backward or graph.values[i].producer in graph.under_loss
    }
    start.update(arrived)
    # A loss that a layer reads on has its written weight besides what comes back from there.
    for i, weight in graph.seeds:
        if i in made and i not in seeds:
            start[i] = start.get(i, 0.0) + jnp.full(shapes.values[i], weight, jnp.float32)
    return start


def _first_bindings(graph: Graph, values: Iterable[int]) -> dict[str, int]:
    """Blob name -> its first value among these.

    In-place layers write their bottom's diff over their top's: that of the first one is left.
    """
    first: dict[str, int] = {}
    for i in sorted(values):
        first.setdefault(graph.values[i].name, i)
    first.pop(AUTOMATIC, None)
    return first


def _learned(shapes: Shapes, span: Iterable[int]) -> list[ParamKey]:
    """The arrays of some layers that get gradients: learned ones, and frozen ones if forced."""
    specs, forced = shapes.param_specs, shapes.graph.force_backward
    keys = dict.fromkeys(key for n in span for key in shapes.nodes[n].keys.values())
    return [key for key in keys if specs[key].lr_mult or forced]
