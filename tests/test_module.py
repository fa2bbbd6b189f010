from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import netspec
from netspec.errors import GraphError, NetSpecError
from netspec.frontend.shapes import ParamKey
from netspec.layers.activation import ReLU
from netspec.layers.base import Array
from netspec.runtime.module import Carried
from netspec.weights.caffemodel import write_weights

Load = Callable[..., netspec.Net]

X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [2, 3] } } }\n'
TWO = (
    INPUT
    + """
layer { name: "one" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
layer { name: "two" type: "InnerProduct" bottom: "y" top: "z"
  inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
"""
)
# Two layers of one shape.
TWIN = (
    INPUT.replace("{", "{{").replace("}", "}}")
    + """
layer {{ name: "a" type: "InnerProduct" bottom: "x" top: "y" {param}
  inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} bias_term: false }} }}
layer {{ name: "b" type: "InnerProduct" bottom: "y" top: "z" {param}
  inner_product_param {{ num_output: 3 {b} }} }}
"""
)
SHARED = TWIN.format(param='param { name: "w" }', b="bias_term: false")
CONV = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [1, 2, 5, 7] } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Text to net; its file is called net.prototxt."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *args: object, **options: object) -> netspec.Net:
        Path("net.prototxt").write_text(text)
        return netspec.load("net.prototxt", *args, **options)  # type: ignore[arg-type]

    return load


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


def total(net: netspec.Net, x: object) -> Array:
    return net(x=x)["z"].sum()


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
    for _ in range(2):
        load(text)(x=X)
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
    with pytest.raises(IndexError):
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
    assert {key: a.shape for key, a in net.memory_for(net.shapes).items()} == net.shapes.carried


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
