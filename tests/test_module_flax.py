"""A compiled net as a Flax module: gradients, randomness and carried state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from module_nets import INPUT, SHARED, TWO, Load, X, total
from module_nets import load as load

import netspec
from netspec.errors import GraphError
from netspec.frontend.shapes import ParamKey
from netspec.layers.base import Array
from netspec.runtime.module import Carried

# As a Flax module


def test_jit_and_grad(load: Load) -> None:
    net = load(TWO)
    np.testing.assert_allclose(nnx.jit(total)(net, X), total(net, X), rtol=1e-5)
    gradients = nnx.grad(total)(net, X)
    bias = gradients["params"]["_layers"]["two"]["bias"]
    np.testing.assert_allclose(bias[...], np.full(7, 2.0), rtol=1e-6)
    gradient = jax.grad(lambda x: total(net, x))(X)
    active = np.asarray(net(x=X)["y"]) > 0
    w1, w2 = (np.asarray(net.params[name]["weight"][...]) for name in ("one", "two"))
    np.testing.assert_allclose(gradient, (w2.sum(0) * active) @ w1, rtol=1e-4, atol=1e-5)


def test_an_optax_step(load: Load) -> None:
    net = load(TWO)
    before = net.arrays()
    optimiser = nnx.Optimizer(net, optax.sgd(0.25), wrt=nnx.Param)

    @nnx.jit
    def step(net: netspec.Net, optimiser: nnx.Optimizer) -> Array:
        loss, gradients = nnx.value_and_grad(total)(net, X)
        optimiser.update(net, gradients)
        return loss

    losses = [float(step(net, optimiser)) for _ in range(2)]
    assert losses[1] < losses[0]
    bias = ParamKey("two", "bias")
    np.testing.assert_allclose(net.arrays()[bias], before[bias] - 2 * 0.25 * 2, rtol=1e-6)


def test_a_net_survives_split_and_merge(load: Load) -> None:
    net = load(SHARED)
    graph, state = nnx.split(net)
    again = nnx.merge(graph, state)
    assert again.params["a"][0] is again.params["b"][0]
    np.testing.assert_array_equal(again(x=X)["z"], net(x=X)["z"])


def test_propagate_down_stops_gradients(load: Load) -> None:
    """Only on the way through that bottom: ``sum`` has x twice, once stopped."""
    text = (
        INPUT
        + """
    layer { name: "scale" type: "Power" bottom: "x" top: "y" power_param { scale: 3 } }
    layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "y" top: "z" PROPAGATE }
    """
    )

    def gradient(propagate: str) -> Array:
        net = load(text.replace("PROPAGATE", propagate))
        np.testing.assert_allclose(net(x=X)["z"], 4 * X, rtol=1e-6)
        return jax.grad(lambda x: total(net, x))(X)

    for propagate, expected in (
        ("", 4),
        ("propagate_down: true propagate_down: false", 1),
        ("propagate_down: false propagate_down: true", 3),
        ("propagate_down: false propagate_down: false", 0),
    ):
        np.testing.assert_array_equal(gradient(propagate), np.full((2, 3), expected, np.float32))


# Randomness

DROPOUT = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [40, 50] } } }
layer { name: "drop" type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.25 } }
layer { name: "again" type: "Dropout" bottom: "x" top: "z" dropout_param { dropout_ratio: 0.25 } }
"""
ONES = np.ones((40, 50), np.float32)


def test_dropout_draws_anew_at_each_call_and_in_each_layer(load: Load) -> None:
    net = load(DROPOUT, phase="train", seed=3)
    first, second = net(x=ONES), net(x=ONES)
    for mask in (first["y"], first["z"], second["y"]):
        kept = np.asarray(mask) != 0
        np.testing.assert_allclose(mask[kept], 4 / 3, rtol=1e-6)
        assert 0.70 < kept.mean() < 0.80
    assert np.any(first["y"] != first["z"])
    assert np.any(first["y"] != second["y"])


def test_dropout_is_reproducible(load: Load) -> None:
    runs = [
        [net(x=ONES)["y"] for _ in range(2)]
        for net in (load(DROPOUT, phase="train", seed=seed) for seed in (3, 3, 5))
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.any(np.asarray(runs[0]) != np.asarray(runs[2]))


def test_dropout_under_jit_draws_anew(load: Load) -> None:
    net = load(DROPOUT, phase="train")
    run = nnx.jit(lambda net, x: net(x=x)["y"])
    assert np.any(run(net, ONES) != run(net, ONES))


def test_dropout_is_nothing_in_test(load: Load) -> None:
    net = load(DROPOUT)
    assert net.rngs is None
    np.testing.assert_array_equal(net(x=ONES)["y"], ONES)


def test_dropout_of_nothing_in_train(load: Load) -> None:
    net = load(DROPOUT.replace("0.25", "0"), phase="train")
    np.testing.assert_array_equal(net(x=ONES)["y"], ONES)


# Carried

LSTM = """
layer { name: "in" type: "Input" top: "x" top: "cont"
  input_param { shape { dim: [2, 3, 5] } shape { dim: [2, 3] } } }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
  recurrent_param { num_output: 7 weight_filler { type: "xavier" } } }
"""
STEPS = np.random.default_rng(2).standard_normal((4, 3, 5)).astype(np.float32)


def cont(*starts: int) -> np.ndarray:
    """(steps, 3), 0 where sequences start."""
    return np.tile(np.float32(starts)[:, None], (1, 3))


def test_what_a_run_leaves_is_no_weight(load: Load) -> None:
    net = load(LSTM)
    assert {str(key) for key in net.arrays()} == {"lstm.W_xc", "lstm.b_c", "lstm.W_hc"}
    assert len(jax.tree.leaves(nnx.state(net, Carried))) == 2
    assert len(jax.tree.leaves(nnx.state(net, nnx.Param))) == 3
    assert [(n, v.shape) for n, v in net.carried["lstm"].items()] == [("h", (3, 7)), ("c", (3, 7))]
    assert not any(variable[...].any() for variable in net.carried["lstm"])


def test_a_net_goes_on_where_its_last_run_ended(load: Load) -> None:
    net = load(LSTM)
    whole = net(x=STEPS, cont=cont(0, 1, 1, 1))["h"]
    parts = [
        net(x=STEPS[:2], cont=cont(0, 1))["h"],
        nnx.jit(lambda net: net(x=STEPS[2:3], cont=cont(1))["h"])(net),
        net(x=STEPS[3:], cont=cont(1))["h"],
    ]
    np.testing.assert_allclose(jnp.concatenate(parts), whole, rtol=1e-4, atol=1e-6)
    # A sequence that starts needs nothing of what was before.
    np.testing.assert_array_equal(net(x=STEPS[:2], cont=cont(0, 1))["h"], parts[0])
    net.carried["lstm"]["h"].set_value(jnp.ones((3, 7)))
    again = net(x=STEPS[2:3], cont=cont(1))["h"]
    assert np.all(again != parts[1])


def test_other_streams_start_from_zero(load: Load) -> None:
    net = load(LSTM)
    first = net(x=STEPS[:2, :1], cont=cont(1, 1)[:, :1])["h"]
    net(x=STEPS[:2], cont=cont(1, 1))
    assert net.carried["lstm"]["h"].shape == (3, 7)
    np.testing.assert_array_equal(net(x=STEPS[:2, :1], cont=cont(1, 1)[:, :1])["h"], first)
    assert {key: a.shape for key, a in net.carried_for(net.shapes).items()} == net.shapes.carried


def test_jax_cannot_keep_what_a_run_leaves(load: Load) -> None:
    net = load(LSTM)
    for transform in (jax.jit, jax.grad):
        with pytest.raises(GraphError) as caught:
            transform(lambda x: net(x=x, cont=cont(0, 1))["h"].sum())(STEPS[:2])
        assert str(caught.value) == (
            "net.prototxt: a run changes lstm.c, lstm.h, which JAX's own transformations cannot "
            "keep; use nnx.jit and nnx.grad, and hand them the net"
        )


def test_layers_that_share_statistics_go_on_from_each_other(load: Load) -> None:
    """Sums that decay by half: of the batch's 1, then of both batches' 1."""
    norm = """layer { name: "%s" type: "BatchNorm" bottom: "x" top: "%s" %s
      batch_norm_param { moving_average_fraction: 0.5 } }"""
    names = "".join(f'param {{ name: "{name}" lr_mult: 0 }}' for name in "mvs")
    net = load(INPUT + "".join(norm % (name, name, names) for name in "ab"), phase="train")
    net(x=X)
    assert net.params["b"]["scale_factor"][...].tolist() == [1.5]
