"""``net.train()`` and ``net.eval()`` are Flax's switches of dropout and batch statistics."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import netspec
from netspec.errors import LayerError

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [2, 3, 6, 6] } } }'
DROPOUT = 'layer { name: "a" type: "Dropout" bottom: "x" top: "y" %s }'
POOLING = """layer { name: "a" type: "Pooling" bottom: "x" top: "y" %s
  pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 } }"""
NORM = 'layer { name: "a" type: "BatchNorm" bottom: "x" top: "y" batch_norm_param { %s } }'
X = jax.random.uniform(jax.random.key(3), (2, 3, 6, 6))


def loaded(folder: Path, layers: str, phase: str = "test") -> netspec.Net:
    path = folder / "net.prototxt"
    path.write_text(INPUT + layers)
    return netspec.load(path, phase=phase)


def draws(net: netspec.Net) -> bool:
    first, second = (np.asarray(net(x=X)["y"]) for _ in range(2))
    return bool((first != second).any())


@pytest.mark.parametrize("phase", ["train", "test"])
@pytest.mark.parametrize("layer", [DROPOUT, POOLING])
def test_random_layers_draw_in_train_only(tmp_path: Path, layer: str, phase: str) -> None:
    net = loaded(tmp_path, layer % "", phase)
    calm = np.asarray(loaded(tmp_path, layer % "")(x=X)["y"])
    assert draws(net) == (phase == "train")
    for _ in range(2):
        net.train()
        assert draws(net)
        net.eval()
        np.testing.assert_array_equal(net(x=X)["y"], calm)


@pytest.mark.parametrize("phase", ["train", "test"])
def test_half_is_dropped_and_the_rest_doubled(tmp_path: Path, phase: str) -> None:
    net = loaded(tmp_path, DROPOUT % "", phase)
    net.train()
    top = np.asarray(net(x=X)["y"])
    assert 0.3 < (top == 0).mean() < 0.7
    np.testing.assert_allclose(top[top != 0], 2 * np.asarray(X)[top != 0], rtol=1e-6)


@pytest.mark.parametrize("phase", ["train", "test"])
def test_statistics_are_the_batchs_in_train_only(tmp_path: Path, phase: str) -> None:
    net = loaded(tmp_path, NORM % "", phase)
    net.train()
    np.testing.assert_allclose(net(x=X)["y"].mean((0, 2, 3)), np.zeros(3), atol=1e-5)
    kept = [np.asarray(blob[...]) for blob in net.params["a"]]
    assert kept[2] == 1
    net.eval()
    mean, variance, _ = (blob.reshape(1, 3, 1, 1) if blob.size > 1 else blob for blob in kept)
    np.testing.assert_allclose(net(x=X)["y"], (X - mean) / np.sqrt(variance + 1e-5), rtol=1e-4)
    for before, blob in zip(kept, net.params["a"], strict=True):
        np.testing.assert_array_equal(before, blob[...])


@pytest.mark.parametrize("given", ["true", "false"])
def test_what_the_prototxt_says_of_statistics_wins(tmp_path: Path, given: str) -> None:
    net = loaded(tmp_path, NORM % f"use_global_stats: {given}")
    for switch in (net.train, net.eval):
        before = float(net.params["a"]["scale_factor"][0])
        switch()
        net(x=X)
        moved = float(net.params["a"]["scale_factor"][0]) != before
        assert moved == (given == "false")


def test_a_layers_own_phase_wins(tmp_path: Path) -> None:
    net = loaded(tmp_path, DROPOUT % "phase: TEST", "train")
    net.train()
    assert not draws(net)


def test_each_switch_by_itself(tmp_path: Path) -> None:
    net = loaded(tmp_path, DROPOUT % "" + (NORM % "").replace('"a"', '"b"').replace('"y"', '"z"'))
    assert net.deterministic
    assert net.use_running_average
    net.set_attributes(deterministic=False)
    assert draws(net)
    assert net.params["b"]["scale_factor"][0] == 0
    net.set_attributes(deterministic=True, use_running_average=False)
    assert not draws(net)
    assert net.params["b"]["scale_factor"][0] > 0


def test_inside_another_module_and_compiled(tmp_path: Path) -> None:
    class Model(nnx.Module):
        def __init__(self, net: netspec.Net) -> None:
            self.net = net
            self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.net(x=x)["y"]

    model = Model(loaded(tmp_path, DROPOUT % "", "train"))
    run = nnx.jit(lambda model, x: model(x))
    assert (np.asarray(run(model, X)) == 0).any()
    model.eval()
    np.testing.assert_array_equal(run(model, X), X)
    model.train()
    first, second = (np.asarray(run(model, X)) for _ in range(2))
    assert (first == 0).any()
    assert (first != second).any()
    gradient = nnx.grad(lambda model, x: model(x).sum(), argnums=1)(model, X)
    assert set(np.unique(gradient)) == {0.0, 2.0}


def test_switched_off_a_net_runs_in_jaxs_own_transformations(tmp_path: Path) -> None:
    net = loaded(tmp_path, DROPOUT % "", "train")
    net.eval()
    gradient = jax.grad(lambda x: net(x=x)["y"].sum())(X)
    np.testing.assert_array_equal(gradient, jnp.ones_like(X))


def test_a_switched_net_survives_split_and_merge(tmp_path: Path) -> None:
    net = loaded(tmp_path, DROPOUT % "", "train")
    net.eval()
    again = nnx.merge(*nnx.split(net))
    np.testing.assert_array_equal(again(x=X)["y"], X)
    again.train()
    assert draws(again)


def test_nothing_is_added_to_a_test_nets_state(tmp_path: Path) -> None:
    net = loaded(tmp_path, DROPOUT % "")
    assert not jax.tree.leaves(nnx.state(net))


def test_what_cannot_train_says_so(tmp_path: Path) -> None:
    net = loaded(tmp_path, DROPOUT % "dropout_param { dropout_ratio: 1.5 }")
    net(x=X)
    net.train()
    with pytest.raises(LayerError, match=r'layer "a" \(Dropout\): dropout_ratio 1.5 must be 0 to'):
        net(x=X)


def test_the_same_program_serves_a_net_switched_back(tmp_path: Path) -> None:
    net = loaded(tmp_path, DROPOUT % "", "train")
    shapes = []
    for _ in range(2):
        net.eval()
        shapes.append(netspec.runtime.phase_switch.switched(net.shapes, True, True))
        net.train()
        shapes.append(netspec.runtime.phase_switch.switched(net.shapes, False, False))
    assert shapes[0] is shapes[2] is not net.shapes
    assert shapes[1] is shapes[3] is net.shapes
