"""The battery that every row of ``cases.py`` earns, and what a table cannot say."""

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from cases import CASES, DECONVOLUTION, GOLDEN, GOLDEN_CASES, Case, input_text, layer_text
from numpy.typing import ArrayLike, NDArray
from reference import batch_statistics, carried_on, evaluate, in_phase

from netspec import caffe
from netspec.errors import LayerError
from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import Shapes, infer
from netspec.layers import REGISTRY
from netspec.layers.base import Layout
from netspec.layers.fillers import fill
from netspec.layers.lowering import windows
from netspec.proto.layers_pb2 import BlobProto
from netspec.runtime.run import Run, run

# A right generator is blamed for one test in a million; keys are fixed, so none of these is.
SIGNIFICANCE = 1e-6


def close(got: ArrayLike, want: ArrayLike, tolerance: float = 1e-5) -> None:
    """Assert that arrays have one shape and differ by no more than rounding does."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    scale = max(np.abs(want).max(initial=0), 1e-3)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * scale)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` compiled in haste: there are hundreds, and each runs once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


# The battery


class Trial:
    """A case, run forward and backward."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.inputs = {i: jnp.asarray(array) for i, array in case.inputs.items()}
        self.params = {key: jnp.asarray(array) for key, array in case.params.items()}

    def run(self, inputs: Any, params: Any) -> Run:
        """The net as it is; a key would change nothing."""
        return run(self.case.shapes, params, inputs)

    def values(self, inputs: Any, params: Any) -> dict[int, jax.Array]:
        """What the layers make, in Caffe's layout."""
        made = self.run(inputs, params)
        return {i: made.value(i) for i in made.values if i not in inputs}

    def objective(self, inputs: Any, params: Any) -> tuple[jax.Array, dict[int, jax.Array]]:
        """The losses and the seeded outputs, summed; and all values."""
        made = self.run(inputs, params)
        seeded = [jnp.vdot(seed, made.value(i)) for i, seed in self.case.seeds.items()]
        values = {i: made.value(i) for i in made.values if i not in inputs}
        return sum(seeded, start=made.loss()), values

    def compute(self) -> tuple[Any, Any, Any]:
        """Values, gradients of the inputs, gradients of the params."""
        # A function of its own for each call: JAX would hand out what it compiled before.
        step = jax.grad(lambda *a: self.objective(*a), argnums=(0, 1), has_aux=True)
        (inputs, params), values = compiled(step)(self.inputs, self.params)
        return values, inputs, params

    @cached_property
    def computed(self) -> tuple[Any, Any, Any]:
        """What `compute` gives in the layout that runs have."""
        return self.compute()

    def reference(self, inputs: Mapping[int, Any], params: Mapping[Any, Any]) -> float:
        """The objective, by the plain loops."""
        values = evaluate(self.case.shapes, params, inputs)
        losses = sum(weight * values[i].sum() for i, weight in self.case.graph.losses)
        unheard = {self.case.graph.blobs[name] for name in self.case.unheard}
        seeds = {i: seed for i, seed in self.case.seeds.items() if i not in unheard}
        return losses + sum(np.vdot(seed, values[i]) for i, seed in seeds.items())

    def turned(self) -> set[int]:
        """The values that a run makes channels-last."""
        turned: set[int] = set()

        def look(inputs: Any, params: Any) -> None:
            made = self.run(inputs, params)
            turned.update(i for i, held in made.values.items() if held.last is not None)

        jax.eval_shape(look, self.inputs, self.params)
        return turned


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def trial(request: pytest.FixtureRequest) -> Trial:
    return Trial(request.param)


def test_shapes_are_those_of_the_arrays(trial: Trial) -> None:
    made = jax.eval_shape(trial.values, trial.inputs, trial.params)
    for i, value in made.items():
        assert value.shape == trial.case.shapes.values[i]
        assert value.dtype == jnp.float32
    assert len(made) == len(trial.case.shapes.values) - len(trial.inputs)


def test_forward_is_right(trial: Trial) -> None:
    """As the plain loops have it, and as Caffe has it, which proves the loops too."""
    expected = evaluate(trial.case.shapes, trial.case.params, trial.case.inputs)
    for i, value in trial.computed[0].items():
        close(value, expected[i])
    for name, array in trial.case.written_by_caffe("out/").items():
        close(trial.computed[0][trial.case.graph.blobs[name]], array)


def test_backward_is_right(trial: Trial) -> None:
    """As Caffe has it, or else as the plain loops' slope along random directions."""
    case = trial.case
    _, inputs, params = trial.computed
    if case.golden is not None and "has_backward" in case.golden:
        for name, array in case.written_by_caffe("bottomdiff/").items():
            close(inputs[case.graph.first_blobs[name]], array)
        for name, array in case.written_by_caffe("paramdiff/").items():
            close(params[case.param_key(name)], array)
        return
    for i in case.indices:
        assert not inputs[i].any()
    if not case.smooth:
        assert all(np.isfinite(gradient).all() for gradient in (*inputs.values(), *params.values()))
        return
    rng = np.random.default_rng(0)
    for i in inputs.keys() - case.indices:
        for direction in rng.choice([-1.0, 1.0], (2, *inputs[i].shape)):
            slope = _slope(
                lambda x, i=i: trial.reference({**case.inputs, i: x}, case.params),
                case.inputs[i],
                direction,
            )
            _close_slope(inputs[i], direction, slope)
    for key in params:
        if not case.shapes.params[key].learned:
            assert not params[key].any()
            continue
        for direction in rng.choice([-1.0, 1.0], (2, *params[key].shape)):
            slope = _slope(
                lambda w, key=key: trial.reference(case.inputs, {**case.params, key: w}),
                case.params[key],
                direction,
            )
            _close_slope(params[key], direction, slope)


def test_statistics_are_kept(trial: Trial) -> None:
    """Statistics and memory, as the plain loops have it, and as Caffe has it."""
    case = trial.case
    updates = compiled(lambda *a: trial.run(*a).updates)(trial.inputs, trial.params)
    kept = {**case.params, **updates}
    for name, array in case.written_by_caffe("param_after/").items():
        close(kept[case.param_key(name)], array)
    expected = dict(case.params)
    values = evaluate(case.shapes, case.params, case.inputs)
    for node, keys in zip(case.graph.nodes, case.shapes.keys, strict=True):
        if node.type == "BatchNorm":
            blobs = [np.asarray(case.params[key], np.float64) for key in keys.values()]
            layer = in_phase(case.graph, node)
            statistics = batch_statistics(layer, blobs, values[node.bottoms[0]])
            expected.update(zip(keys.values(), statistics, strict=True))
    expected |= carried_on(case.shapes, case.params, values)
    for key, array in kept.items():
        close(array, expected[key])


def _slope(function: Any, at: NDArray, direction: NDArray) -> float:
    step = 1e-5
    ahead, behind = (function(at.astype(np.float64) + s * direction) for s in (step, -step))
    return (ahead - behind) / (2 * step)


def _close_slope(gradient: ArrayLike, direction: NDArray, slope: float) -> None:
    gradient = np.asarray(gradient, np.float64)
    error = abs(np.vdot(gradient, direction) - slope)
    assert error <= 2e-5 * max(np.linalg.norm(gradient), abs(slope), 1e-3)


def test_layout_changes_nothing(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    assert windows.channels_last(jax.default_backend())
    turned = trial.turned()
    monkeypatch.setattr(windows, "channels_last", lambda backend: False)
    assert not trial.turned()
    if not turned:
        return  # the same program
    for ours, others in zip(trial.computed, trial.compute(), strict=True):
        assert ours.keys() == others.keys()
        for i in ours:
            close(ours[i], others[i])


def test_images_are_channels_last_where_a_layer_can() -> None:
    """Every type that says so takes part in the comparison above."""
    seen = {
        case.graph.nodes[case.graph.values[i].producer].type
        for case in CASES
        for i in Trial(case).turned()
    }
    able = {
        name
        for name, layer in REGISTRY.items()
        if layer.layout is not Layout.CHANNELS_FIRST
        and not layer.is_source
        and name not in ("Filter", "Silence")
    }
    # A loss and Accuracy make scalars, but read what is channels-last.
    scalar = {name for name in able if REGISTRY[name].is_loss} | {"Accuracy"}
    assert able - scalar <= seen


FIRST_OF_TYPE = {case.graph.nodes[-1].type: case for case in reversed(CASES)}


@pytest.mark.parametrize("name", sorted(FIRST_OF_TYPE))
def test_jit_changes_nothing(name: str) -> None:
    trial = Trial(FIRST_OF_TYPE[name])
    jitted = jax.jit(trial.values)(trial.inputs, trial.params)
    for i, value in trial.values(trial.inputs, trial.params).items():
        close(jitted[i], value, 1e-6)


# It asks no layer's type, so that one case of each will do.
FACE = {case.graph.nodes[-1].type: case for case in GOLDEN_CASES}
FACE["whole"] = next(case for case in GOLDEN_CASES if case.name == "Caffe fcn_head")


@pytest.mark.parametrize("case", FACE.values(), ids=lambda case: case.name)
def test_the_pycaffe_face_is_caffes(case: Case) -> None:
    assert case.golden is not None
    path = GOLDEN / f"{case.name.removeprefix('Caffe ')}.prototxt"
    net = caffe.Net(str(path), getattr(caffe, str(case.golden["phase"])))
    for name, array in case.written_by_caffe("in/").items():
        net.blobs[name].data[...] = array
    for name, array in case.written_by_caffe("param/").items():
        layer, i = name.rsplit("/", 1)
        net.params[layer][int(i)].data[...] = array
    net.forward()
    for name, array in case.written_by_caffe("param_after/").items():
        layer, i = name.rsplit("/", 1)
        close(net.params[layer][int(i)].data, array)
    for name, array in case.written_by_caffe("out/").items():
        close(net.blobs[name].data, array)
    if "has_backward" in case.golden:
        net.backward(**case.written_by_caffe("topdiff/"))
        for name, array in case.written_by_caffe("bottomdiff/").items():
            close(net.blobs[name].diff, array)
        for name, array in case.written_by_caffe("paramdiff/").items():
            layer, i = name.rsplit("/", 1)
            close(net.params[layer][int(i)].diff, array)


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


# Values and gradients at ties, steps and edges


def forward(
    text: str, *arrays: Any, phase: str = "TEST", key: jax.Array | None = None
) -> list[jax.Array]:
    """The tops of one layer whose bottoms are a, b, c, ..., fed these arrays."""
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        + " ".join(f"dim: {n}" for n in np.shape(array))
        + " } } }\n"
        for name, array in zip("abc", arrays, strict=False)
    )
    shapes = infer(connect(parse_net(f"state {{ phase: {phase} }}\n{inputs}{text}", "net")))

    def tops(key: jax.Array | None, *arrays: jax.Array) -> list[jax.Array]:
        made = run(shapes, {}, dict(enumerate(arrays)), key)
        return [made.value(i) for i in shapes.graph.nodes[-1].tops]

    return jax.jit(tops)(key, *(jnp.asarray(array, jnp.float32) for array in arrays))


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
    monkeypatch.setattr(windows, "channels_last", lambda backend: channels_last)
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
    loss_param { %s } }"""


def test_a_loss_has_a_greatest_value_and_a_gradient_beyond_it() -> None:
    loss, probabilities = forward(LOSS % "", [[0, 200.0]], [0])
    assert loss == pytest.approx(87.3365, abs=1e-4)
    assert probabilities.tolist() == [[0, 1]]
    assert gradients(LOSS % "", 3, [[0, 200.0]], [0])[0].tolist() == [[-3, 3]]


def test_probabilities_beside_a_loss_have_no_gradient() -> None:
    beside = LOSS % "" + layer_text("Power", "", ["p"])
    assert not gradients(beside, [[3, 5]], [[1, 2]], [0])[0].any()


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


# Random layers


DROPOUT = """layer { name: "y" type: "Dropout" bottom: "a" top: "y"
    dropout_param { dropout_ratio: 0.3 } }"""
STOCHASTIC = """layer { name: "y" type: "Pooling" bottom: "a" top: "y"
    pooling_param { pool: STOCHASTIC %s } }"""


def binomial(successes: int, trials: int, probability: float) -> None:
    """Assert that a count is one that `SIGNIFICANCE` lets pass."""
    test = scipy.stats.binomtest(successes, trials, probability)
    assert test.pvalue > SIGNIFICANCE


def test_dropout_keeps_each_element_by_chance() -> None:
    x = np.full((2, 10, 100, 50), 2.0)
    (top,) = forward(DROPOUT, x, phase="TRAIN", key=jax.random.key(1))
    kept = np.asarray(top) > 0
    close(np.asarray(top)[kept], np.full(kept.sum(), 2 / 0.7), 1e-6)
    assert not np.asarray(top)[~kept].any()
    binomial(kept.sum(), kept.size, 0.7)
    for axis in range(4):  # neighbours know nothing of each other
        first, second = (np.take(kept, range(i, kept.shape[axis] - 1 + i), axis) for i in (0, 1))
        # Disjoint pairs, so that the trials are independent.
        both = np.take(first & second, range(0, first.shape[axis], 2), axis)
        binomial(both.sum(), both.size, 0.49)


def test_random_layers_draw_anew_by_run_and_by_layer() -> None:
    twice = DROPOUT + DROPOUT.replace('"y"', '"z"')
    shapes = infer(
        connect(
            parse_net(
                'state { phase: TRAIN } layer { name: "a" type: "Input" top: "a" '
                f"input_param {{ shape {{ dim: 1000 }} }} }} {twice}"
            )
        )
    )

    def masks(seed: int) -> tuple[NDArray, NDArray]:
        made = run(shapes, {}, {0: jnp.ones(1000)}, jax.random.key(seed))
        return np.asarray(made.value(1)) > 0, np.asarray(made.value(2)) > 0

    (first, second), (other, _), (again, _) = masks(1), masks(2), masks(1)
    assert (first == again).all()
    for mask in (second, other):
        binomial((first == mask).sum(), 1000, 0.7**2 + 0.3**2)


def test_dropout_has_the_gradient_of_its_mask() -> None:
    x = jnp.arange(1.0, 101)
    key = jax.random.key(5)
    top, pull = jax.vjp(lambda x: forward(DROPOUT, x, phase="TRAIN", key=key)[0], x)
    close(pull(jnp.ones(100))[0], top / x, 1e-6)


def test_random_layers_need_a_key() -> None:
    with pytest.raises(LayerError) as caught:
        forward(DROPOUT, [1.0], phase="TRAIN")
    assert str(caught.value) == (
        'net:3: layer "y" (Dropout): draws random numbers, but this run was given no key'
    )


def test_each_level_of_a_pyramid_draws_anew() -> None:
    x = np.arange(1.0, 1 + 3000 * 4).reshape(3000, 1, 2, 2)
    layer = layer_text("SPP", "pool: STOCHASTIC pyramid_height: 2", ["a"])
    (top,) = forward(layer, np.ones_like(x), phase="TRAIN", key=jax.random.key(1))
    assert (np.asarray(top) == 1).all()
    x = np.tile([1.0, 2.0] * 4, (3000, 1)).reshape(3000, 1, 2, 4)
    first = forward(layer, x, phase="TRAIN", key=jax.random.key(1))[0]
    whole, bins = first[:, 0] == 2, first[:, 1:] == 2
    binomial(int(whole.sum()), 3000, 2 / 3)
    for i in range(4):
        binomial(int((whole == bins[:, i]).sum()), 3000, 5 / 9)


@pytest.mark.parametrize("channels_last", [True, False])
def test_stochastic_pooling_picks_in_proportion(
    channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "channels_last", lambda backend: channels_last)
    x = np.tile([[1.0, 0], [2, 5]], (100, 50)).reshape(2, 5, 20, 100)
    layer = STOCHASTIC % "kernel_size: 2 stride: 2"
    (top,) = forward(layer, x, phase="TRAIN", key=jax.random.key(2))
    values, counts = np.unique(top, return_counts=True)
    assert values.tolist() == [1, 2, 5]
    test = scipy.stats.chisquare(counts, np.array([1, 2, 5]) / 8 * top.size)
    assert test.pvalue > SIGNIFICANCE


def test_stochastic_pooling_picks_inside_the_image_and_passes_gradients_to_the_pick() -> None:
    x = jnp.arange(1.0, 1 + 6 * 8).reshape(1, 1, 6, 8)
    layer = STOCHASTIC % "kernel_size: 3 stride: 2"
    key = jax.random.key(4)
    top, pull = jax.vjp(lambda x: forward(layer, x, phase="TRAIN", key=key)[0], x)
    assert top.shape == (1, 1, 3, 4)
    for h in range(3):
        for w in range(4):
            assert top[0, 0, h, w] in np.asarray(x)[0, 0, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3]
    (gradient,) = pull(jnp.ones(top.shape))
    picks, times = np.unique(top, return_counts=True)
    expected = dict(zip(picks.tolist(), times.tolist(), strict=True))
    assert {
        float(value): int(g) for value, g in zip(x.ravel(), gradient.ravel(), strict=True) if g
    } == expected


# Recurrent layers


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
