"""Layers that carry state from step to step and from run to run."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import input_text
from layer_runs import close, forward

from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import Shapes, infer
from netspec.runtime.run import run
from netspec.runtime.values import Run

LSTM = """layer { name: "y" type: "LSTM" bottom: "a" bottom: "b" top: "y"
    recurrent_param { num_output: 2 } }"""


def test_what_stands_before_a_new_sequence_changes_nothing() -> None:
    shapes = infer(connect(parse_net(input_text({"a": (5, 1, 3), "b": (5, 1)}) + LSTM)))
    rng = np.random.default_rng(1)
    params = {key: jnp.asarray(rng.standard_normal(b.shape)) for key, b in shapes.params.items()}
    cont = jnp.asarray([[1], [1], [0], [1], [1]], jnp.float32)
    x = jnp.asarray(rng.standard_normal((5, 1, 3)), jnp.float32)
    tops = [run(shapes, params, {0: fed, 1: cont}).value(2) for fed in (x, x.at[:2].add(1))]
    assert (tops[0][2:] == tops[1][2:]).all()
    assert (tops[0][:2] != tops[1][:2]).all()


@pytest.mark.parametrize("layer_type", ["LSTM", "RNN"])
def test_a_run_goes_on_where_the_last_one_ended(layer_type: str) -> None:
    """Two parts of a sequence are as good as the whole; no gradient leads back to the first."""

    def shapes(steps: int) -> Shapes:
        net = input_text({"a": (steps, 2, 3), "b": (steps, 2)})
        return infer(connect(parse_net(net + LSTM.replace("LSTM", layer_type))))

    def part(start: int, end: int, arrays: Any) -> Run:
        return run(shapes(end - start), arrays, {0: x[start:end], 1: cont[start:end]})

    rng = np.random.default_rng(1)
    params = {key: rng.standard_normal(b.shape) for key, b in shapes(7).params.items()}
    params = {key: jnp.asarray(array, jnp.float32) for key, array in params.items()}
    x = jnp.asarray(rng.standard_normal((7, 2, 3)), jnp.float32)
    # The second stream begins anew with the second part.
    cont = jnp.ones((7, 2)).at[3, 1].set(0)
    first, whole = part(0, 3, params), part(0, 7, params)
    second = part(3, 7, {**params, **first.updates})
    close(jnp.concatenate([first.value(2), second.value(2)]), whole.value(2))
    assert second.updates.keys() == whole.updates.keys() == shapes(7).carried.keys()
    for key, array in whole.updates.items():
        close(second.updates[key], array)

    def end(params: Any, kept: Any) -> jax.Array:
        return part(3, 7, {**params, **kept}).value(2).sum()

    through = jax.grad(lambda params: end(params, part(0, 3, params).updates))(params)
    for key, gradient in jax.grad(end)(params, first.updates).items():
        close(through[key], gradient)
        assert gradient.any()


def test_a_cell_that_is_forgotten_may_be_anything() -> None:
    unit = 'layer { name: "y" type: "LSTMUnit" bottom: "a" bottom: "b" bottom: "c" top: "c1" '
    gates = [[[0, math.nan, 0, 1], [0, 1, 0, 1]]]
    cell, _ = forward(unit + 'top: "h1" }', [[[3], [3]]], gates, [[0, 0]])
    assert cell[0, 0, 0] == cell[0, 1, 0] == pytest.approx(math.tanh(1) / 2)
