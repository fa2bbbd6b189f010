"""The battery that every row of ``cases.py`` earns, and what a table cannot say."""

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from cases import CASES, DECONVOLUTION, GOLDEN, GOLDEN_CASES, Case, layer_text
from numpy.typing import ArrayLike, NDArray
from reference import evaluate

from netspec import caffe
from netspec.errors import LayerError
from netspec.graph import connect
from netspec.layers import REGISTRY, lowering
from netspec.layers.base import Layout
from netspec.layers.window import Window
from netspec.prototxt import parse_net
from netspec.runner import Run, run
from netspec.shapes import infer

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
        return losses + sum(np.vdot(seed, values[i]) for i, seed in self.case.seeds.items())

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
        for direction in rng.choice([-1.0, 1.0], (2, *params[key].shape)):
            slope = _slope(
                lambda w, key=key: trial.reference(case.inputs, {**case.params, key: w}),
                case.params[key],
                direction,
            )
            _close_slope(params[key], direction, slope)


def _slope(function: Any, at: NDArray, direction: NDArray) -> float:
    step = 1e-5
    ahead, behind = (function(at.astype(np.float64) + s * direction) for s in (step, -step))
    return (ahead - behind) / (2 * step)


def _close_slope(gradient: ArrayLike, direction: NDArray, slope: float) -> None:
    gradient = np.asarray(gradient, np.float64)
    error = abs(np.vdot(gradient, direction) - slope)
    assert error <= 2e-5 * max(np.linalg.norm(gradient), abs(slope), 1e-3)


def test_layout_changes_nothing(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lowering.channels_last(jax.default_backend())
    turned = trial.turned()
    monkeypatch.setattr(lowering, "channels_last", lambda backend: False)
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
        if layer.layout is not Layout.CHANNELS_FIRST and not layer.is_source and name != "Silence"
    }
    # A loss and Accuracy make scalars, but read what is channels-last.
    assert able - {"SoftmaxWithLoss", "Accuracy"} <= seen


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


def test_image_layers_take_their_own_weight_gradient() -> None:
    """On a CPU; the plain rows with few channels take this path."""
    window = Window((3, 2), (1, 1), (1, 0), (1, 1))
    chosen = lowering.choose_weight_gradient((5, 3, 3, 2), window, 1)
    assert chosen == ("rows" if jax.default_backend() == "cpu" else "direct")
    for weights, other, groups in (
        ((5, 7, 3, 2), window, 1),
        ((6, 3, 3, 2), window, 2),
        ((5, 3, 3, 2), Window((3, 2), (2, 1), (1, 0), (1, 1)), 1),
        ((5, 3, 3, 2), Window((3, 2), (1, 1), (1, 0), (1, 2)), 1),
    ):
        assert lowering.choose_weight_gradient(weights, other, groups) == "direct"


@pytest.mark.parametrize(
    "case", [case for case in DECONVOLUTION if "group:" in case.net], ids=lambda case: case.name
)
def test_great_grouped_deconvolutions(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a number of weights, zeros between the groups are not worth their room."""
    trial = Trial(case)
    dense = trial.compute()
    monkeypatch.setattr(lowering, "_DENSE_LIMIT", 0)
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
    monkeypatch.setattr(lowering, "channels_last", lambda backend: channels_last)
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


@pytest.mark.parametrize("channels_last", [True, False])
def test_stochastic_pooling_picks_in_proportion(
    channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lowering, "channels_last", lambda backend: channels_last)
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
