import jax
import jax.numpy as jnp
import numpy as np
import pytest

from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import ParamKey, Shapes, infer
from netspec.runtime.module import initial
from netspec.runtime.run import run, run_layers, value_gradients
from netspec.runtime.values import Held, Params, Run

NET = """
layer { name: "in" type: "Input" top: "x" top: "t"
  input_param { shape { dim: [2, 3, 5, 7] } shape { dim: [2, 4, 5, 7] } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "h" convolution_param {
  num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.3 } } }
layer { name: "r" type: "ReLU" bottom: "h" top: "h" }
layer { name: "p" type: "Power" bottom: "h" top: "y" power_param { power: 2 } }
layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "l" }
"""
# The numbers of layers, and of the values that they make.
CONV, RELU, POWER, LOSS = 1, 2, 3, 4
X, T, H, PASSED, Y = range(5)


@pytest.fixture
def shapes() -> Shapes:
    return infer(connect(parse_net(NET)))


@pytest.fixture
def params(shapes: Shapes) -> Params:
    return initial(shapes, 1)


@pytest.fixture
def fed(shapes: Shapes) -> dict[int, jax.Array]:
    draw = np.random.default_rng(0)
    return {i: jnp.asarray(draw.standard_normal(shapes.values[i]), jnp.float32) for i in (X, T)}


def test_layers_chained_by_vjp_have_the_gradients_of_the_net(
    shapes: Shapes, params: Params, fed: dict[int, jax.Array]
) -> None:
    """A run of layers from values as another holds them, back through the residuals of each."""

    def first(params: Params, given: dict[int, jax.Array]) -> dict[int, Held]:
        return {PASSED: run_layers(shapes, [CONV, RELU], params, given).values[PASSED]}

    def last(values: dict[int, Held]) -> jax.Array:
        return run_layers(shapes, [POWER, LOSS], {}, {**values, T: fed[T]}).loss()

    held, back_to_start = jax.vjp(first, params, {X: fed[X]})
    loss, back_to_middle = jax.vjp(last, held)
    (diffs,) = back_to_middle(jnp.ones(()))
    gradients, inputs = back_to_start(diffs)
    want_loss, (want, want_inputs) = jax.value_and_grad(
        lambda params, given: run(shapes, params, {**given, T: fed[T]}).loss(), (0, 1)
    )(params, {X: fed[X]})
    np.testing.assert_allclose(loss, want_loss, rtol=1e-6)
    for got, expected in ((gradients, want), (inputs, want_inputs)):
        assert got.keys() == expected.keys()
        for name in got:
            np.testing.assert_allclose(got[name], expected[name], rtol=1e-5, atol=1e-6)


def test_layers_leave_what_they_are_given_as_it_is(
    shapes: Shapes, params: Params, fed: dict[int, jax.Array]
) -> None:
    """Another layout that a layer needs is not put into the caller's object."""
    given = {X: Held(fed[X])}
    made = run_layers(shapes, [CONV], params, given)
    assert made.values[H].last is not None
    assert given[X].last is None


def test_gradients_by_values(shapes: Shapes, params: Params, fed: dict[int, jax.Array]) -> None:
    """Of what is fed and of what is made; a replacement stands for a value, and hands on."""
    weight = ParamKey("c", "weight")
    instead = jnp.full(shapes.values[Y], 2.0)

    def objective(made: Run) -> tuple[jax.Array, jax.Array]:
        return made.loss(), made.value(PASSED)

    loss, passed, gradients, diffs = value_gradients(
        shapes,
        range(5),
        params,
        fed,
        objective,
        [weight],
        [X, PASSED, Y],
        replacements={Y: instead},
    )
    batch = fed[T].shape[0]
    np.testing.assert_allclose(loss, np.sum((instead - fed[T]) ** 2) / 2 / batch, rtol=1e-5)
    np.testing.assert_allclose(diffs[Y], (instead - fed[T]) / batch, rtol=1e-5)
    np.testing.assert_allclose(diffs[PASSED], diffs[Y] * 2 * passed, rtol=1e-5, atol=1e-6)
    assert diffs[X].shape == fed[X].shape
    assert gradients.keys() == {weight}
    assert np.any(gradients[weight])
