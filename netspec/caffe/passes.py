"""The passes of pycaffe's Net as compiled programs: some of a net's layers, forward or backward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax.numpy as jnp

from netspec.frontend.graph import AUTOMATIC, Graph
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.runtime.owned import owned_jit
from netspec.runtime.run import run_layers, value_gradients
from netspec.runtime.values import Params, Run

# The first and the last layer of a pass, by index.
Nodes = tuple[int, int]


class Made(NamedTuple):
    """What a forward pass gives: blobs by name, statistics, the weighted sum of losses."""

    blobs: dict[str, Array]
    updates: dict[ParamKey, Array]
    loss: Array


@owned_jit(static=2)
def forward(
    shapes: Shapes, nodes: Nodes, params: Params, given: Mapping[int, Array], key: Array | None
) -> Made:
    """Run layers on the values that they are given."""
    made = run_layers(shapes, range(nodes[0], nodes[1] + 1), params, given, key)
    last = {shapes.graph.values[i].name: i for i in sorted(made.values) if i not in given}
    return Made({name: made.value(i) for name, i in last.items()}, made.updates, made.loss())


@owned_jit(static=2)
def backward(
    shapes: Shapes,
    nodes: Nodes,
    params: Params,
    given: Mapping[int, Array],
    instead: Mapping[int, Array],
    seeds: Mapping[int, Array],
    key: Array | None,
) -> tuple[dict[str, Array], dict[ParamKey, Array]]:
    """Compute the diffs of every blob of some layers, by name, and of their learned arrays.

    given: the values that the layers read but do not make. instead: what to take for values that
    they do make. seeds: the diffs of those that none of them reads.
    """
    graph = shapes.graph
    # Layers without tops have no gradient, and what they write has been written by the forward.
    span = [n for n in range(nodes[0], nodes[1] + 1) if graph.nodes[n].tops]
    first = _first_bindings(graph, {*given, *(top for n in span for top in graph.nodes[n].tops)})
    _, _, gradients, diffs = value_gradients(
        shapes,
        span,
        params,
        given,
        lambda made: (_objective(made, seeds), None),
        _learned(shapes, span),
        first.values(),
        key,
        instead,
    )
    # The diff of an output is what the backward started from.
    shown = {name: seeds[i] if i in seeds else diffs[i] for name, i in first.items()}
    return shown, gradients


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


def _objective(made: Run, seeds: Mapping[int, Array]) -> Array:
    """The scalar that a backward pass differentiates."""
    graph = made.shapes.graph
    # What no loss depends on takes part only where `force_backward` asks for it.
    terms = [
        jnp.vdot(seed, made.value(i))
        for i, seed in seeds.items()
        if graph.force_backward or graph.values[i].producer in graph.under_loss
    ]
    # A loss that a layer reads on has its written weight besides what comes back from there.
    terms += [
        weight * jnp.sum(made.value(i))
        for i, weight in graph.seeds
        if i in made.values and i not in seeds
    ]
    return sum(terms, start=jnp.zeros((), jnp.float32))
