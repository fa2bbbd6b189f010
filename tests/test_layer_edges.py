"""Values and gradients at ties, steps and edges, which a table of cases cannot say."""

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import DECONVOLUTION, Case, input_text, layer_text
from layer_runs import Trial, close, compiled, forward
from numpy.typing import NDArray

from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import infer
from netspec.layers.fillers import fill
from netspec.layers.lowering import windows
from netspec.proto.layers_pb2 import BlobProto
from netspec.runtime import layer_pass
from netspec.runtime.run import run

# Algorithms that small cases do not reach


@pytest.mark.parametrize(
    "case", [case for case in DECONVOLUTION if "group:" in case.net], ids=lambda case: case.name
)
def test_great_grouped_deconvolutions(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a number of weights, zeros between the groups are not worth their room."""
    trial = Trial(case)
    dense = trial.compute()
    monkeypatch.setattr(windows, "_DENSE_LIMIT", 0)
    for dense_arrays, grouped in zip(dense, trial.compute(), strict=True):
        for i in grouped:
            close(grouped[i], dense_arrays[i])


def gradients(text: str, seed: Any, *arrays: Any) -> list[NDArray]:
    """Gradients of the bottoms for ``seed`` as the gradient of the first top."""

    def objective(arrays: Any) -> jax.Array:
        return jnp.vdot(jnp.asarray(seed, jnp.float32), forward(text, *arrays)[0])

    found = compiled(jax.grad(objective))([jnp.asarray(array, jnp.float32) for array in arrays])
    return [np.asarray(gradient) for gradient in found]


@pytest.mark.parametrize(("slope", "at_zero"), [(0, 0), (0.25, 0.25)])
def test_relu_at_zero(slope: float, at_zero: float) -> None:
    layer = f"""layer {{ name: "y" type: "ReLU" bottom: "a" top: "y"
        relu_param {{ negative_slope: {slope} }} }}"""
    (gradient,) = gradients(layer, [3, 3, 3], [-1, 0, 1])
    assert gradient.tolist() == [3 * slope, 3 * at_zero, 3]


@pytest.mark.parametrize("slope", [0, 0.25])
def test_relu_passes_what_is_no_number(slope: float) -> None:
    layer = f"""layer {{ name: "y" type: "ReLU" bottom: "a" top: "y"
        relu_param {{ negative_slope: {slope} }} }}"""
    (top,) = forward(layer, [math.nan, -1, 2])
    np.testing.assert_array_equal(top, [math.nan, -slope, 2])


@pytest.mark.parametrize(
    ("settings", "x", "top", "gradient"),
    [
        ("power: -1 scale: 0", [5, -5], [math.inf, math.inf], [0, 0]),
        ("power: 0.5 scale: 0 shift: -1", [5, -5], [math.nan, math.nan], [0, 0]),
        ("power: 0 scale: 0", [5, 0], [1, 1], [0, 0]),
        ("power: 0", [0, -5], [1, 1], [0, 0]),
        ("power: 2", [0, -5], [0, 25], [0, -10]),
        ("power: 0.5", [-4, 4], [math.nan, 2], [math.nan, 0.25]),
    ],
)
def test_power_at_edges(
    settings: str, x: list[float], top: list[float], gradient: list[float]
) -> None:
    layer = f"""layer {{ name: "y" type: "Power" bottom: "a" top: "y"
        power_param {{ {settings} }} }}"""
    np.testing.assert_array_equal(forward(layer, x)[0], top)
    np.testing.assert_array_equal(gradients(layer, [1, 1], x)[0], gradient)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    "kernel", ["kernel_h: 1 kernel_w: 2", "kernel_h: 1 kernel_w: 20 pad_h: 0 pad_w: 18"]
)
def test_the_first_of_equal_maxima_has_the_gradient(
    kernel: str, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows overlap, so that one pixel can win several of them."""
    if not channels_last:
        monkeypatch.setattr(layer_pass, "computes_channels_last", lambda node, bottoms: False)
    layer = f"""layer {{ name: "y" type: "Pooling" bottom: "a" top: "y" top: "mask"
        pooling_param {{ {kernel} }} }}"""
    x = np.array([4, 4, 1, 4], np.float32).reshape(1, 1, 1, 4)
    top, mask = forward(layer, x)
    # The wide windows see pixels 0 to 1, 0 to 2, then all, 1 to 3, 2 to 3.
    winners = [0] * 19 + [1, 3] if "20" in kernel else [0, 1, 3]
    assert np.ravel(mask).tolist() == winners
    assert set(np.ravel(top)) == {4}
    (gradient,) = gradients(layer, np.ones(top.shape), x)
    assert gradient.ravel().tolist() == [winners.count(i) for i in range(4)]


@pytest.mark.parametrize(
    ("settings", "least"),
    [("kernel_size: 1 stride: 2", 4), ("kernel_size: 5 stride: 7", 6)],
)
def test_a_window_beyond_the_image(settings: str, least: int) -> None:
    """Caffe rounds sizes up and clips only where there is padding."""
    layer = f"""layer {{ name: "y" type: "Pooling" bottom: "a" top: "y" top: "mask"
        pooling_param {{ {settings} }} }}"""
    x = np.arange(1.0, 1 + least * least).reshape(1, 1, least, least)
    top, mask = forward(layer, x)
    assert top[0, 0, -1, -1] == top[0, 0, 0, -1] == np.finfo(np.float32).min
    assert mask[0, 0, -1, -1] == mask[0, 0, 0, -1] == -1
    assert (mask[0, 0, :-1, :-1] >= 0).all()
    (gradient,) = gradients(layer, np.ones(top.shape), x)
    assert gradient.sum() == (top.shape[2] - 1) ** 2


def test_of_equal_maxima_the_second_bottom_has_the_gradient() -> None:
    layer = """layer { name: "y" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "y"
        eltwise_param { operation: MAX } }"""
    a, b, c = gradients(layer, [2, 3, 5, 7], [1, 1, 0, 1], [1, 0, 1, 0], [1, 1, 1, 2])
    assert a.tolist() == [0, 3, 0, 0]
    assert b.tolist() == [2, 0, 5, 0]
    assert c.tolist() == [0, 0, 0, 7]


@pytest.mark.parametrize(
    ("stable", "expected"), [("true", [[12, 0], [0, 0]]), ("false", [[12, math.nan], [0, 0]])]
)
def test_the_product_of_a_zero(stable: str, expected: list[list[float]]) -> None:
    """By division, 0 / 0 for the bottom that is zero, as Caffe."""
    layer = f"""layer {{ name: "y" type: "Eltwise" bottom: "a" bottom: "b" top: "y"
        eltwise_param {{ operation: PROD stable_prod_grad: {stable} }} }}"""
    a, b = gradients(layer, [2, 2], [0.5, 0], [6, 0])
    np.testing.assert_array_equal(a, expected[0])
    np.testing.assert_array_equal(b, [1, expected[0][1]])


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_of_equal_values_the_last_is_the_greatest(top_k: int) -> None:
    """The two zeros are equal too."""
    layer = layer_text("ArgMax", f"axis: 1 top_k: {top_k}", ["a"])
    rows = [[3, 3, 1, 3], [0.0, -0.0, 0.0, -0.0], [-0.0, 0.0, -1, 0.0]]
    best = [[3, 1, 0, 2], [3, 2, 1, 0], [3, 1, 0, 2]]
    assert forward(layer, rows)[0].tolist() == [row[:top_k] for row in best]


@pytest.mark.parametrize(
    ("how", "gradient"),
    [
        ("SUM", [-3, -3, -3]),
        ("MEAN", [-1, -1, -1]),
        ("ASUM", [3, 0, -3]),
        ("SUMSQ", [12, 0, -30]),
    ],
)
def test_the_gradient_of_a_reduction(how: str, gradient: list[float]) -> None:
    layer = layer_text("Reduction", f"operation: {how} coeff: -1", ["a"])
    assert gradients(layer, 3, [-2, 0, 5])[0].tolist() == gradient


def test_an_item_picked_twice_has_both_gradients() -> None:
    layer = layer_text("BatchReindex", "", "ab")
    picked, indices = gradients(layer, [[1, 2], [3, 5], [7, 11]], [[0, 0]] * 3, [2, 0, 2])
    assert picked.tolist() == [[3, 5], [0, 0], [8, 13]]
    assert not indices.any()


@pytest.mark.differs("embed-outside")
@pytest.mark.differs("reindex-outside")
@pytest.mark.parametrize("index", [-1, -0.5, 3, 1e12, math.nan, math.inf])
def test_an_index_outside_picks_nan(index: float) -> None:
    """A wrong number would go unseen."""
    layer = layer_text("BatchReindex", "", "ab")
    (top,) = forward(layer, [[1], [2], [3]], [index, 2.75])
    np.testing.assert_array_equal(top, [[math.nan], [3]])
    assert gradients(layer, [[5], [7]], [[1], [2], [3]], [index, 1])[0].tolist() == [[0], [7], [0]]
    embed = layer_text("Embed", "num_output: 2 input_dim: 3", ["a"])
    shapes = infer(connect(parse_net(f"{input_text({'a': (2,)})}\n{embed}")))
    rows = {key: jnp.ones(blob.shape) for key, blob in shapes.params.items()}
    made = run(shapes, rows, {0: jnp.asarray([index, 2])}).value(1)
    np.testing.assert_array_equal(made, [[math.nan] * 2, [2, 2]])


LOSS = """layer { name: "y" type: "SoftmaxWithLoss" bottom: "a" bottom: "b" top: "y" top: "p"
    loss_weight: 1 loss_weight: 0 loss_param { %s } }"""


def test_a_loss_has_a_greatest_value_and_a_gradient_beyond_it() -> None:
    loss, probabilities = forward(LOSS % "", [[0, 200.0]], [0])
    assert loss == pytest.approx(87.3365, abs=1e-4)
    assert probabilities.tolist() == [[0, 1]]
    assert gradients(LOSS % "", 3, [[0, 200.0]], [0])[0].tolist() == [[-3, 3]]


def test_probabilities_beside_a_loss_have_no_gradient() -> None:
    beside = LOSS % "" + layer_text("Power", "", ["p"])
    assert not gradients(beside, [[3, 5]], [[1, 2]], [0])[0].any()


@pytest.mark.differs("label-outside")
@pytest.mark.parametrize("label", [-1, 2, 255])
def test_a_label_outside_the_classes_makes_the_loss_nan(label: int) -> None:
    """Where the host did not refuse it; a wrong number would go unseen."""
    assert np.isnan(forward(LOSS % "", [[1, 2], [2, 1]], [0, label])[0])
    assert forward(LOSS % f"ignore_label: {label}", [[1, 1]], [label])[0] == 0


def test_ignored_predictions_have_no_gradient() -> None:
    scores, labels = [[1, 2], [3, 4], [5, 7]], [0, 9, 1]
    gradient, _ = gradients(LOSS % "ignore_label: 9", 1, scores, labels)
    assert gradient[1].tolist() == [0, 0]
    assert gradient[0].any()
    assert gradient[2].any()
    assert not gradients(LOSS % "ignore_label: 9", 1, scores, [9, 9, 9])[0].any()


@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 1, 4, 3), (2, 4, 1, 3), (2, 4, 3, 1), (2, 12)])
def test_labels_lie_in_caffes_order_whatever_their_axes(shape: tuple[int, ...]) -> None:
    """A channels-last run must not turn rows of labels into channels."""
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((2, 5, 4, 3))
    labels = rng.integers(0, 5, (2, 4, 3))
    net = """layer { name: "carry" type: "Pooling" bottom: "a" top: "s"
                 pooling_param { kernel_size: 1 } }
             layer { name: "y" type: "%s" bottom: "s" bottom: "b" top: "y" }"""
    for layer_type in ("SoftmaxWithLoss", "Accuracy"):
        (want,) = forward(net % layer_type, scores, labels)
        (got,) = forward(net % layer_type, scores, labels.reshape(shape))
        assert got == want


@pytest.mark.parametrize(
    ("layer_type", "settings", "x", "gradient"),
    [
        ("AbsVal", "", [-2, 0, 3], [-1, 0, 1]),
        ("ELU", "alpha: 0.25", [-1e9, 0, 1e9], [0, 0.25, 1]),
        ("BNLL", "", [-1e9, 0, 1e9], [0, 0.5, 1]),
        ("Clip", "min: -1 max: 2", [-2, -1, 0, 2, 3], [0, 1, 1, 1, 0]),
        ("Threshold", "threshold: 1", [0, 1, 2], [0, 0, 0]),
        ("Sigmoid", "", [-1e9, 0, 1e9], [0, 0.25, 0]),
    ],
)
def test_gradients_at_kinks_and_far_away(
    layer_type: str, settings: str, x: list[float], gradient: list[float]
) -> None:
    layer = layer_text(layer_type, settings, "a")
    assert np.isfinite(forward(layer, x)[0]).all()
    assert gradients(layer, np.ones(len(x)), x)[0].tolist() == gradient


def test_a_threshold_is_to_be_passed() -> None:
    assert forward(layer_text("Threshold", "threshold: 1", "a"), [0, 1, 2])[0].tolist() == [0, 0, 1]


def test_prelu_at_zero_and_its_shared_slope() -> None:
    text = f"{input_text({'a': (1, 3)})} {layer_text('PReLU', 'channel_shared: true', 'a')}"
    shapes = infer(connect(parse_net(text)))
    (key,) = shapes.params
    assert shapes.params[key].shape == ()
    assert fill(shapes.params[key].filler, (), jax.random.key(0)) == 0.25

    def top(slope: jax.Array, x: jax.Array) -> jax.Array:
        return run(shapes, {key: slope}, {0: x}).value(1).sum()

    slope, x = jax.grad(top, (0, 1))(jnp.float32(0.5), jnp.asarray([[-2.0, 0, 3]]))
    assert slope == -2
    assert x.tolist() == [[0.5, 0.5, 1]]


def test_batch_norm_without_statistics_divides_by_eps_alone() -> None:
    """A new net's statistics are sums of nothing."""
    text = f"{input_text({'a': (2, 3)})} {layer_text('BatchNorm', 'eps: 0.25', 'a')}"
    shapes = infer(connect(parse_net(f"state {{ phase: TEST }} {text}")))
    new = {key: fill(b.filler, b.shape, jax.random.key(0)) for key, b in shapes.params.items()}
    assert run(shapes, new, {0: jnp.ones((2, 3))}).value(1).tolist() == [[2] * 3] * 2


def test_mvn_has_caffes_gradient() -> None:
    """It takes the deviation with its eps for the deviation; where nothing varies, it is finite."""
    layer = layer_text("MVN", "eps: 0.5", "a")
    rng = np.random.default_rng(7)
    x, seed = rng.standard_normal((2, 2, 3, 3, 5))
    x[1, 2] = 4
    (top,) = forward(layer, x)
    axes = {"axis": (2, 3), "keepdims": True}
    through = seed - seed.mean(**axes) - top * np.mean(seed * top, **axes)
    close(gradients(layer, seed, x)[0], through / (x.std(**axes) + 0.5))


def test_hinges_that_only_touch_have_no_gradient() -> None:
    for norm in ("L1", "L2"):
        layer = layer_text("HingeLoss", f"norm: {norm}", "ab")
        assert forward(layer, [[1, -1, -2]], [0])[0] == 0
        assert not gradients(layer, 1, [[1, -1, -2]], [0])[0].any()


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("layer_type", ["HingeLoss", "MultinomialLogisticLoss", "InfogainLoss"])
def test_a_label_outside_makes_other_losses_nan_too(layer_type: str, label: int) -> None:
    arrays = [np.full((2, 3), 0.5), [0, label], np.ones((3, 3))]
    bottoms = "abc" if layer_type == "InfogainLoss" else "ab"
    layer = layer_text(layer_type, "", bottoms)
    assert np.isnan(forward(layer, *arrays[: len(bottoms)])[0])


def test_pairs_in_one_place_have_a_finite_gradient() -> None:
    layer = layer_text("ContrastiveLoss", "", "abc")
    a, b, _ = gradients(layer, 1, [[1, 2], [3, 4]], [[1, 2], [3, 4.5]], [0, 0])
    assert a[0].tolist() == b[0].tolist() == [0, 0]
    # The distance is 1/2, the margin 1.
    close(a[1], [0, 0.5 / (0.5 + 1e-4) * 0.5 / 2], 1e-6)
    close(b[1], -a[1])


def test_legacy_pairs_at_the_margin_have_no_gradient() -> None:
    layer = layer_text("ContrastiveLoss", "margin: 4 legacy_version: true", "abc")
    assert not gradients(layer, 1, [[2.0]], [[0.0]], [0])[0].any()


def test_floors_of_log_losses() -> None:
    layer = layer_text("MultinomialLogisticLoss", "", "ab")
    assert forward(layer, [[0, 1]], [0])[0] == pytest.approx(-math.log(1e-20))
    gradient = gradients(layer, 1, [[0, 1]], [0])[0]
    np.testing.assert_allclose(gradient, [[-1e20, 0]], rtol=1e-6)
    layer = layer_text("InfogainLoss", "", "abc")
    assert forward(layer, [[0, 200]], [0], np.eye(2))[0] == pytest.approx(-math.log(1e-20))
    assert gradients(layer, 1, [[0, 200]], [0], np.eye(2))[0].tolist() == [[-1, 1]]


@pytest.mark.parametrize("double", [False, True])
def test_an_infogain_matrix_from_a_file(tmp_path: Path, double: bool) -> None:
    matrix = np.asarray([[1, 0.5, 0], [0.25, 2, 0], [0.5, 0, 3]])
    numbers = {"double_data" if double else "data": matrix.ravel()}
    proto = BlobProto(num=1, channels=1, height=3, width=3, **numbers)
    (tmp_path / "H.binaryproto").write_bytes(proto.SerializeToString())
    scores, labels = np.random.default_rng(1).standard_normal((5, 3)), [0, 1, 2, 2, 1]
    (want,) = forward(layer_text("InfogainLoss", "", "abc"), scores, labels, matrix)
    source = f'source: "{tmp_path}/H.binaryproto"'
    (got,) = forward(layer_text("InfogainLoss", source, "ab"), scores, labels)
    assert got == want
