"""A compiled net: loading, calling, and its learned arrays."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from module_nets import INPUT, SHARED, TWIN, TWO, Load, X, total
from module_nets import load as load

import netspec
from netspec.errors import GraphError, NetSpecError
from netspec.frontend.shapes import ParamKey
from netspec.layers.activation import ReLU
from netspec.layers.base import Array
from netspec.weights.caffemodel import write_weights

CONV = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [1, 2, 5, 7] } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
"""


# Nets that are alike in all share their programs: this one is like none of another test.
UNLIKE = 'name: "traced"\n'


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that ReLU layers are traced with, as it happens."""
    seen: list[tuple[int, ...]] = []
    apply = ReLU.apply

    def counting(self: ReLU, ctx: object, x: Array) -> Array:
        seen.append(x.shape)
        return apply(self, ctx, x)  # type: ignore[arg-type]

    monkeypatch.setattr(ReLU, "apply", counting)
    return seen


# Calling


def test_a_call_returns_every_blob(load: Load) -> None:
    net = load(TWO)
    (w1, b1), (w2, b2) = ([np.asarray(v[...]) for v in net.params[name]] for name in ("one", "two"))
    y = np.maximum(X @ w1.T + b1, 0)
    blobs = net(x=X)
    assert set(blobs) == {"x", "y", "z"}
    np.testing.assert_allclose(blobs["x"], X)
    np.testing.assert_allclose(blobs["y"], y, rtol=1e-5)
    np.testing.assert_allclose(blobs["z"], y @ w2.T + b2, rtol=1e-4, atol=1e-5)


def test_only_wanted_blobs_are_kept(load: Load) -> None:
    net = load(TWO)
    assert set(net.forward({"x": X}, ("z",))) == {"z"}
    with pytest.raises(GraphError) as error:
        net.forward({"x": X}, ("zz",))
    assert str(error.value) == 'net.prototxt: no blob "zz"; did you mean "z"?'


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "net.prototxt: the net is fed data, label; missing: data, label"),
        ({"data": X}, "net.prototxt: the net is fed data, label; missing: label"),
        (
            {"dat": X, "label": X},
            'net.prototxt: no input "dat"; did you mean "data"?',
        ),
        ({"data": X, "label": X, "y": X}, 'net.prototxt: no input "y"'),
    ],
)
def test_inputs_go_by_name(load: Load, inputs: dict[str, object], message: str) -> None:
    net = load("""
        layer { name: "in" type: "Input" top: "data" top: "label"
          input_param { shape { dim: [2, 3] } } }
        layer { name: "a" type: "Eltwise" bottom: "data" bottom: "label" top: "y" }
    """)
    with pytest.raises(GraphError) as error:
        net(**inputs)
    assert str(error.value) == message


def test_whole_numbers_may_be_fed(load: Load) -> None:
    net = load(
        INPUT + 'layer { name: "a" type: "Power" bottom: "x" top: "y" power_param { scale: 0.5 } }'
    )
    blobs = net(x=[[1, 2, 3], [5, 7, 11]])
    assert blobs["y"].dtype == jnp.float32
    np.testing.assert_array_equal(blobs["y"], [[0.5, 1, 1.5], [2.5, 3.5, 5.5]])


def test_images_of_other_sizes(load: Load) -> None:
    net = load(CONV)
    large = np.random.default_rng(1).standard_normal((3, 2, 11, 13)).astype(np.float32)
    y = net(x=large)["y"]
    assert y.shape == (3, 3, 9, 11)
    np.testing.assert_allclose(
        net(x=large[:1, :, :5, :7])["y"], y[:1, :, :3, :5], rtol=1e-4, atol=1e-5
    )
    assert net.shapes["y"] == (1, 3, 3, 5)


SIZES = [
    ((1, 2, 2, 7), "conv", "spatial axis 0: kernel extent 3 > size 2 + pad 0"),
    (
        (1, 5, 5, 7),
        "conv",
        "its weight is 3x2x3x3, but this input needs 3x5x3x3; the layer cannot work at this size",
    ),
    (
        (1, 2, 7, 7),
        "ip",
        "its weight is 5x45, but this input needs 5x75; the layer cannot work at this size",
    ),
]


@pytest.mark.parametrize(("shape", "layer", "message"), SIZES)
def test_sizes_that_a_net_cannot_work_at(
    load: Load, shape: tuple[int, ...], layer: str, message: str
) -> None:
    net = load(CONV + """
        layer { name: "ip" type: "InnerProduct" bottom: "y" top: "z"
          inner_product_param { num_output: 5 } }
    """)  # fmt: skip
    with pytest.raises(NetSpecError) as error:
        net(x=np.zeros(shape))
    kind, line = {"conv": ("Convolution", 3), "ip": ("InnerProduct", 6)}[layer]
    assert str(error.value) == f'net.prototxt:{line}: layer "{layer}" ({kind}): {message}'


def test_the_same_shapes_are_compiled_once(load: Load, traces: list[tuple[int, ...]]) -> None:
    net = load(UNLIKE + INPUT + 'layer { name: "a" type: "ReLU" bottom: "x" top: "y" }')
    for _ in range(3):
        net(x=X)
    assert traces == [(2, 3)]
    net(x=X[:1])
    assert traces == [(2, 3), (1, 3)]
    net(x=X)
    net(x=-X[:1])
    assert traces == [(2, 3), (1, 3)]


def test_new_weights_need_no_new_program(load: Load, traces: list[tuple[int, ...]]) -> None:
    net = load(UNLIKE + TWO)
    before = net(x=X)["z"]
    net.params["two"]["bias"].set_value(jnp.ones(7))
    np.testing.assert_allclose(net(x=X)["z"], before + 1, rtol=1e-5, atol=1e-6)
    assert len(traces) == 1


def test_nets_that_are_alike_need_no_new_program(load: Load, traces: list[tuple[int, ...]]) -> None:
    text = f'name: "alike"\n{TWO}'
    # Programs live as long as one of the nets does.
    nets = [load(text) for _ in range(2)]
    for net in nets:
        net(x=X)
    assert len(traces) == 1
    load(text.replace("alike", "other"))(x=X)
    assert len(traces) == 2


# Loading


def test_shapes_from_outside(load: Load) -> None:
    for shape in ((11, 3), [13, 3]):
        assert load(TWO, shapes={"x": shape}).shapes["z"] == (shape[0], 7)


def test_phase_level_and_stages_choose_layers(load: Load) -> None:
    text = INPUT + "".join(
        f'layer {{ name: "{rule}" type: "Power" bottom: "x" top: "{rule}" include {{ {rule} }} }}'
        for rule in ("phase: TRAIN", "min_level: 2", "stage: 'deploy'")
    )

    def kept(**options: object) -> set[str]:
        return set(load(text, **options).graph.blobs) - {"x"}

    assert kept() == set()
    assert kept(phase="train") == {"phase: TRAIN"}
    assert kept(phase="TRAIN", level=2) == {"phase: TRAIN", "min_level: 2"}
    assert kept(stages=["deploy", "other"]) == kept(stages="deploy") == {"stage: 'deploy'"}


def test_a_seed_settles_what_fillers_draw(load: Load) -> None:
    first, same, other = (load(TWO, seed=seed).arrays() for seed in (3, 3, 5))
    weights, bias = ParamKey("one", "weight"), ParamKey("one", "bias")
    np.testing.assert_array_equal(first[weights], same[weights])
    assert not np.any(first[weights] == other[weights])
    np.testing.assert_array_equal(first[bias], np.zeros(5))


def test_each_array_is_drawn_by_itself(load: Load) -> None:
    filled = 'bias_term: false weight_filler { type: "xavier" }'
    net = load(TWIN.format(param="", b=filled))
    assert not np.any(net.params["a"][0][...] == net.params["b"][0][...])


def test_weights_come_from_a_file(load: Load) -> None:
    net = load(TWO, seed=3)
    write_weights("net.caffemodel", net.shapes, net.arrays())
    other = load(TWO, "net.caffemodel", seed=5)
    for key, array in net.arrays().items():
        np.testing.assert_array_equal(other.arrays()[key], array)


# Learned arrays


def test_learned_arrays_by_layer_and_by_index_or_name(load: Load) -> None:
    params = load(TWO).params
    assert list(params) == ["one", "two"]
    assert len(params) == 2
    assert "one" in params
    assert "relu" not in params
    assert [name for name, _ in params.items()] == ["one", "two"]
    one = params["one"]
    assert (one[0].shape, one[1].shape, len(one)) == ((5, 3), (5,), 2)
    assert one[0] is one["weight"]
    assert one[-1] is one["bias"]
    assert [name for name, _ in one.items()] == ["weight", "bias"]
    assert all(isinstance(variable, nnx.Param) for variable in one)


def test_learned_arrays_that_are_not_there(load: Load) -> None:
    params = load(TWO).params
    with pytest.raises(KeyError, match=r'no layer "ones" with learned blobs; did you mean "one"\?'):
        params["ones"]
    with pytest.raises(KeyError, match=r'no blob "weights"; did you mean "weight"\?'):
        params["one"]["weights"]
    with pytest.raises(IndexError, match="out of range"):
        params["one"][2]


def test_shared_arrays_are_one_variable(load: Load) -> None:
    net = load(SHARED)
    assert net.params["a"][0] is net.params["b"][0]
    assert len(jax.tree.leaves(nnx.state(net, nnx.Param))) == 1
    net.params["b"][0].set_value(2 * jnp.eye(3))
    np.testing.assert_allclose(net(x=X)["z"], 4 * X, rtol=1e-6)


def test_gradients_of_shared_arrays_add_up(load: Load) -> None:
    net = load(SHARED)
    w = np.asarray(net.params["a"][0][...])
    (gradient,) = jax.tree.leaves(nnx.grad(total)(net, X))
    ones = np.ones((2, 3), np.float32)
    expected = ones.T @ (X @ w.T) + (ones @ w).T @ X
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_permissive_sharers_see_the_array_in_their_own_shape(load: Load) -> None:
    net = load("""
        layer { name: "in" type: "Input" top: "x" top: "x2"
          input_param { shape { dim: [1, 6] } shape { dim: [1, 2] } } }
        layer { name: "a" type: "InnerProduct" bottom: "x" top: "y" param { name: "w" }
          inner_product_param { num_output: 5 weight_filler { type: "xavier" } bias_term: false } }
        layer { name: "b" type: "InnerProduct" bottom: "x2" top: "z"
          param { name: "w" share_mode: PERMISSIVE }
          inner_product_param { num_output: 15 bias_term: false } }
    """)
    w = np.asarray(net.params["a"][0][...])
    x, x2 = X.reshape(1, 6), X[:1, :2]
    blobs = net(x=x, x2=x2)
    np.testing.assert_allclose(blobs["y"], x @ w.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(blobs["z"], x2 @ w.reshape(15, 2).T, rtol=1e-4, atol=1e-6)
    for name in ("net.caffemodel", "net.caffemodel.h5"):
        write_weights(name, net.shapes, net.arrays())
        again = netspec.load("net.prototxt", name, seed=5)
        np.testing.assert_array_equal(again.params["b"][0][...], w)


# The package


def test_public_names() -> None:
    assert {"Net", "NetSpecError", "Solver", "load"} <= set(dir(netspec))
    with pytest.raises(AttributeError, match="module 'netspec' has no attribute 'laod'"):
        netspec.laod  # noqa: B018


def test_stated_blobs_are_where_a_net_begins(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }
        layer {
          name: "a" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 }
          blobs { num: 1 channels: 1 height: 2 width: 3 data: [1, 2, 3, 4, 5, 6] }
          blobs { shape { dim: 2 } double_data: [7, 8] }
        }
    """)
    net = netspec.load(path)
    assert net(x=np.ones((1, 3), np.float32))["y"].tolist() == [[13, 23]]
