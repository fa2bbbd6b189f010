"""Gradients layer by layer: of arrays that nobody edited they are JAX's."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from cases import CASES, Case
from layer_runs import close, compiled

from netspec.runtime.backward import Residuals, layer_gradients
from netspec.runtime.run import run_layers, value_gradients


def both_ways(case: Case, inputs: Any, params: Any) -> tuple[Any, Any]:
    """(gradients by values, by learned arrays): of JAX, and of the sweep over layers."""
    shapes, graph, key = case.shapes, case.graph, jax.random.key(3)
    nodes = [n for n, node in enumerate(graph.nodes) if not node.layer.traits.is_source]
    made = run_layers(shapes, nodes, params, inputs, key)
    tops = [i for i in sorted(made.values) if i not in inputs]
    diffs = {
        i: jnp.sin(jnp.arange(made.value(i).size) + i).reshape(made.value(i).shape)
        for i in tops
        if not graph.readers[i]
    }
    learned = [each for each in params if shapes.params[each].learned]

    def objective(made: Any) -> tuple[jax.Array, None]:
        terms = [jnp.vdot(diff, made.value(i)) for i, diff in diffs.items()]
        return sum(terms, start=jnp.zeros(())), None

    _, _, gradients, values = value_gradients(
        shapes, nodes, params, inputs, objective, learned, [*inputs, *tops], key
    )
    last = {graph.values[i].name: i for i in tops}.values()
    left = Residuals(params, key, {**inputs, **{i: made.value(i) for i in last}})
    present = {i: made.value(i) for i in last} | {
        i: array for i, array in inputs.items() if i in graph.blobs.values()
    }
    found = layer_gradients(shapes, nodes, params, present, left, diffs, learned)
    return (values, gradients), (found.values, found.learned)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=pytest.mark.slow if case.golden else ())
        for case in CASES
    ],
)
def test_of_what_nobody_edited_it_is_the_gradient(case: Case) -> None:
    inputs = {i: jnp.asarray(array, jnp.float32) for i, array in case.inputs.items()}
    params = {key: jnp.asarray(array) for key, array in case.params.items()}
    way = partial(both_ways, case)
    wants, gots = (way if case.graph.data_dependent else compiled(way))(inputs, params)
    assert sum(map(len, wants)) > 0
    # What comes back to is what has a gradient: nothing else, and nothing less.
    for want, got in zip(wants, gots, strict=True):
        assert got.keys() <= want.keys()
        for which, array in want.items():
            close(got.get(which, jnp.zeros_like(array)), array)
