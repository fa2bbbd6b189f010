import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike

from netspec import build
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.proto.layers_pb2 import TRAIN
from netspec.runtime.module import Net
from netspec.solving.diagnosis.debug_info import debug_info_lines
from netspec.solving.diagnosis.not_finite import Look, culprit, look
from netspec.solving.diagnosis.stuck import StuckWatch, chance, why_stuck

X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
LABEL = np.array([1, 3], np.float32)
XAVIER = 'weight_filler { type: "xavier" }'
DATA = """layer { name: "data" type: "Input" top: "x" top: "label"
  input_param { shape { dim: [2, 3] } shape { dim: 2 } } }
"""
LOSS = """layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""


def product(name: str, bottom: str, outputs: int, filler: str = XAVIER, more: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more}\n'
        f"  inner_product_param {{ num_output: {outputs} {filler} }} }}\n"
    )


def layer(name: str, kind: str, bottom: str, top: str, more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {more} }}\n'


RELU = layer("relu", "ReLU", "ip", "ip")
SUM = layer("sum", "Reduction", "y", "loss", "loss_weight: 1")


@dataclass
class Step:
    """A net in file net.prototxt, and all that one step of it reads."""

    text: str
    arrays: Mapping[str, ArrayLike] = field(default_factory=dict)
    x: ArrayLike = field(default_factory=X.copy)
    label: ArrayLike = field(default_factory=LABEL.copy)

    @cached_property
    def net(self) -> Net:
        text = parse_net(self.text, "net.prototxt")
        return build.compile_net(build.graph_of(text, state_of(text, TRAIN)))

    @property
    def shapes(self) -> Shapes:
        return self.net.shapes

    @cached_property
    def params(self) -> Mapping[ParamKey, Array]:
        params = self.net.arrays()
        for name, array in self.arrays.items():
            key = ParamKey(*name.split("."))
            shape = params[key].shape
            params[key] = jnp.broadcast_to(jnp.asarray(array, jnp.float32), shape)
        return params

    @property
    def feeds(self) -> Mapping[str, Array]:
        feeds = {"x": jnp.asarray(self.x), "label": jnp.asarray(self.label, jnp.float32)}
        return {name: feeds[name] for name in self.net.graph.fed}

    @property
    def learned(self) -> list[ParamKey]:
        specs = self.shapes.param_specs
        return [k for k, blob in self.shapes.params.items() if blob.learned and specs[k].lr_mult]

    def look(self) -> Look:
        return look(self.shapes, self.params, self.learned, self.feeds, jax.random.key(0))

    def chance(self) -> float | None:
        return chance(self.shapes, self.params, self.feeds)

    def culprit(self) -> str | None:
        seen = self.look()
        return culprit(seen, self.shapes, self.params, self.feeds, jax.random.key(0))

    def why_stuck(self) -> list[str]:
        return why_stuck(self.look(), self.shapes)


TWO = DATA + product("ip", "x", 5) + RELU + product("score", "ip", 4) + LOSS
FREEZE = "param { lr_mult: 0 } param { lr_mult: 0 }"


# A number as Caffe prints it, after a colon or in the brackets of the norms.
FIGURE = re.compile(r"(?<=[:(,] )[-+.\de]+|(?<=\()[-+.\de]+")


def figures(line: str) -> list[float]:
    return [float(figure) for figure in FIGURE.findall(line)]


# Against numpy


def test_debug_info_says_what_numpy_computes() -> None:
    """An in-place layer, an array that two layers share, a frozen one, and two losses."""
    step = Step(
        DATA
        + product("a", "x", 3, more='param { name: "w" } param { lr_mult: 0 }')
        + layer("relu", "ReLU", "a", "a")
        + product("b", "a", 3, f"bias_term: false {XAVIER}", 'param { name: "w" }')
        + 'layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "x" top: "loss" }\n'
        + layer("sum", "Reduction", "b", "sum", "loss_weight: 0.5"),
        {"a.bias": 0.25},
    )
    w = np.asarray(step.params[ParamKey("a", "weight")], np.float64)
    x = X.astype(np.float64)
    a = x @ w.T + 0.25
    relu = np.maximum(a, 0)
    b = relu @ w.T
    loss, total = np.sum((b - x) ** 2) / 4, np.sum(b)
    db = (b - x) / 2 + 0.5
    drelu = db @ w
    da = drelu * (a > 0)
    dw = da.T @ x + db.T @ relu

    def mean(array: ArrayLike) -> str:
        return f"{np.mean(np.abs(array)):g}"

    pairs = ((w, dw), (np.full(3, 0.25), np.zeros(3)))
    l1 = [sum(np.abs(pair[i]).sum() for pair in pairs) for i in (0, 1)]
    l2 = [np.sqrt(sum((pair[i] ** 2).sum() for pair in pairs)) for i in (0, 1)]
    expected = f"""
    [Forward] Layer data, top blob x data: {mean(x)}
    [Forward] Layer a, top blob a data: {mean(a)}
    [Forward] Layer a, param blob w data: {mean(w)}
    [Forward] Layer a, param blob 1 data: 0.25
    [Forward] Layer relu, top blob a data: {mean(relu)}
    [Forward] Layer b, top blob b data: {mean(b)}
    [Forward] Layer b, param blob w data: {mean(w)}
    [Forward] Layer loss, top blob loss data: {mean(loss)}
    [Forward] Layer sum, top blob sum data: {mean(total)}
    [Backward] Layer sum, bottom blob b diff: {mean(db)}
    [Backward] Layer loss, bottom blob b diff: {mean(db)}
    [Backward] Layer b, bottom blob a diff: {mean(drelu)}
    [Backward] Layer b, param blob 0 diff: {mean(dw)}
    [Backward] Layer relu, bottom blob a diff: {mean(da)}
    [Backward] Layer a, param blob 0 diff: {mean(dw)}
    [Backward] All net params (data, diff): L1 norm = ({l1[0]:g}, {l1[1]:g}); \
L2 norm = ({l2[0]:g}, {l2[1]:g})
    [Update] Layer a, param w data: {mean(w)}; diff: 0.125
    [Update] Layer a, param 1 data: 0.25; diff: 0
    [Update] Layer b, param blob w (owned by layer a, param w) diff: 0.125
""".strip("\n").split("\n")
    steps = {ParamKey("a", "weight"): jnp.full((3, 3), -0.125)}
    found = debug_info_lines(step.look(), step.shapes, steps)
    found = [line for line in found if "blob label" not in line]
    assert [FIGURE.sub("#", line) for line in found] == [FIGURE.sub("#", x) for x in expected]
    for line, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(figures(line), figures(wanted), rtol=1e-4, err_msg=line)
    assert step.look().loss == pytest.approx(loss + 0.5 * total, rel=1e-5)


def test_a_look_sees_the_step_that_training_takes() -> None:
    """Frozen arrays get no gradient, nor does what lies below them alone."""
    frozen = Step(DATA + product("ip", "x", 5, more=FREEZE) + RELU + TWO.split(RELU)[1])
    seen, graph = frozen.look(), frozen.shapes.graph
    assert set(seen.gradients) == {ParamKey("score", "weight"), ParamKey("score", "bias")}
    assert {graph.values[i].name for i in seen.diffs} == {"score", "loss"}
    assert set(seen.params) == set(frozen.shapes.params)
    forced = Step("force_backward: true\n" + frozen.text)
    names = {forced.shapes.graph.values[i].name for i in forced.look().diffs}
    assert names == {"x", "ip", "score", "loss"}


# What is not finite


NAN = X.copy()
NAN[1, 2] = np.nan
ONES = np.ones((2, 3), np.float32)
HALF = np.array([[1, 0, 4], [1, 1, 1]], np.float32)
LARGE = (
    "numbers this large mostly come of updates that are too large: lower base_lr, or set "
    "clip_gradients"
)
CULPRITS = {
    "data": (
        Step(TWO, x=NAN),
        'net.prototxt:1: layer "data" (Input): its top "x" is fed nan at (1, 2); the data itself, '
        "or how it is made, is at fault",
    ),
    "label": (
        Step(TWO, label=[1, np.inf]),
        'net.prototxt:1: layer "data" (Input): its top "label" is fed inf at (1); the data '
        "itself, or how it is made, is at fault",
    ),
    "weight": (
        Step(TWO, {"score.bias": [0, np.nan, np.nan, 0]}),
        'net.prototxt:6: layer "score" (InnerProduct): its bias holds numbers that are not finite '
        "before the step: nan at (1) and 1 more; an update made them (lower base_lr, or set "
        "clip_gradients), or the weights that were loaded hold them",
    ),
    "log of zero": (
        Step(DATA + product("ip", "x", 3) + layer("log", "Log", "x", "y") + SUM, x=HALF),
        'net.prototxt:5: layer "log" (Log): its top "y" is the first blob that is not finite: '
        '-inf at (0, 1); its bottom "x" ranges from 0 to 4; the layer computes '
        "y = log_base(shift + scale x): keep its bottom where that is finite",
    ),
    "slope of a root at zero": (
        Step(
            DATA
            + product("ip", "x", 3, "bias_term: false")
            + layer("root", "Power", "ip", "y", "power_param { power: 0.5 }")
            + SUM
        ),
        'net.prototxt:5: layer "root" (Power): all blobs are finite, but the gradient of its '
        'bottom "ip" is the first, going backward, that is not: it holds inf; its bottom "ip" is '
        '0 everywhere; the gradient of its top "y" is 1 everywhere; the layer has the slope of '
        "y = (shift + scale x) ^ power: keep its bottom where that is finite",
    ),
    "exploded weights": (
        Step(TWO, {"ip.weight": 100, "score.weight": 1e38}, ONES),
        'net.prototxt:6: layer "score" (InnerProduct): its top "score" is the first blob that is '
        'not finite: inf at (0, 0) and 7 more; its bottom "ip" is 300 everywhere; its weight is '
        f'1e+38 everywhere; its bias is 0 everywhere; {LARGE} (the loss of layer "loss" is a sum '
        "over 2 predictions / the predictions whose label counts)",
    ),
    "a loss at infinity": (
        Step(
            DATA
            + product("ip", "x", 3, "bias_term: false")
            + 'layer { name: "l2" type: "EuclideanLoss" bottom: "ip" bottom: "x" top: "loss" }\n',
            {"ip.weight": 1e20},
            ONES,
        ),
        'net.prototxt:5: layer "l2" (EuclideanLoss): its top "loss" is the first blob that is not '
        'finite: inf; its bottom "ip" is 3e+20 everywhere; its bottom "x" is 1 everywhere; '
        f'{LARGE} (the loss of layer "l2" is a ',
    ),
    "a label outside": (
        Step(TWO, label=[1, 4]),
        'net.prototxt:8: layer "loss" (SoftmaxWithLoss): its top "loss" is the first blob that is '
        'not finite: nan; its bottom "score" ranges from ',
    ),
    "a loss weight": (
        Step(TWO.replace('top: "loss"', 'top: "loss" loss_weight: 3e38')),
        "net.prototxt: the total loss is inf though every blob is finite: it is 3e+38 x 1.",
    ),
    "a gradient that overflows": (
        Step(
            DATA
            + product("ip", "x", 1)
            + layer("sum", "Reduction", "ip", "s", "loss_weight: 3e38"),
            # The gradient of the weight is 3e38 times the sum of the rows, that of the bias twice.
            {"ip.weight": 1e-3},
            ONES,
        ),
        'net.prototxt:3: layer "ip" (InnerProduct): all blobs are finite, but the gradient of its '
        "weight is the first, going backward, that is not: it holds inf",
    ),
}


@pytest.mark.parametrize("case", CULPRITS)
def test_culprits(case: str) -> None:
    step, message = CULPRITS[case]
    found = step.culprit()
    assert found is not None
    assert found.startswith(message)


def test_labels_outside_are_named() -> None:
    found = Step(TWO, label=[1, 4]).culprit()
    assert found is not None
    assert found.endswith('; its bottom "label" ranges from 1 to 4; labels must be classes 0..3')


# What does not learn


FCN = (
    DATA
    + product("ip", "x", 5)
    + RELU
    + product("score", "ip", 4, "")
    + layer("up", "Scale", "score", "up", "param { lr_mult: 0 }")
    + LOSS.replace('"score"', '"up"')
)
NO_FILLER = "they have no weight_filler and no weights were loaded; gradients cannot pass"
STUCK: dict[str, tuple[Step, list[str]]] = {
    "a healthy net": (Step(TWO), []),
    "a score layer that starts at zero": (Step(FCN), []),
    "two layers at zero": (
        Step(DATA + product("ip", "x", 5, "") + RELU + product("score", "ip", 4, "") + LOSS),
        [
            f"the weights of ip, score are all zero: {NO_FILLER}",
            'net.prototxt:8: layer "loss" (SoftmaxWithLoss): its scores "score" are 0 everywhere',
            "no gradient reaches ip.weight, ip.bias, score.weight",
        ],
    ),
    "upsampling frozen at zero": (
        Step(
            DATA
            + product("ip", "x", 5)
            + product("score", "ip", 4, "bias_term: false", "param { lr_mult: 0 }")
            + LOSS
        ),
        [
            "the weights of score are all zero: they have no weight_filler, no weights were "
            "loaded; lr_mult: 0 keeps them so; gradients cannot pass",
            'net.prototxt:7: layer "loss" (SoftmaxWithLoss): its scores "score" are 0 everywhere',
            "no gradient reaches any learned array",
        ],
    ),
    "dead units": (
        Step(TWO, {"ip.weight": 1, "ip.bias": -100}, ONES),
        [
            'net.prototxt:5: layer "relu" (ReLU): no gradient passes to its bottom "ip", which is '
            "-97 everywhere, and its tops are all zero",
            'net.prototxt:6: layer "score" (InnerProduct): its bottom "ip" is all zero, so its '
            "weight has no gradient",
            'net.prototxt:8: layer "loss" (SoftmaxWithLoss): its scores "score" are 0 everywhere',
            "no gradient reaches ip.weight, ip.bias, score.weight",
        ],
    ),
    "propagate_down: false": (
        Step(
            DATA
            + product("ip", "x", 5)
            + RELU
            + product("score", "ip", 4, more="propagate_down: false")
            + LOSS
        ),
        [
            'net.prototxt:3: layer "ip" (InnerProduct): propagate_down: false keeps gradients '
            'from it in layer "score"',
            "no gradient reaches ip.weight, ip.bias",
        ],
    ),
    "a branch without a loss": (
        Step(TWO + product("aside", "ip", 2)),
        [
            'net.prototxt:9: layer "aside" (InnerProduct): no loss hangs on what it makes',
            "no gradient reaches aside.weight, aside.bias",
        ],
    ),
}


@pytest.mark.parametrize("case", STUCK)
def test_why_stuck(case: str) -> None:
    step, lines = STUCK[case]
    assert step.why_stuck() == lines


SECOND = """layer { name: "more" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "more"
  loss_weight: 0.5 }
"""
IGNORE = "loss_param { ignore_label: 3 normalization: NONE } }"
CHANCES: dict[str, tuple[str, float | None]] = {
    "one loss": (TWO, np.log(4)),
    "two losses": (TWO + SECOND, np.log(4) + 0.5 * np.log(5)),
    "a label ignored": (TWO.replace('top: "loss" }', f'top: "loss" {IGNORE}'), np.log(4)),
    "Accuracy beside it": (
        TWO + 'layer { name: "a" type: "Accuracy" bottom: "score" bottom: "label" top: "a" }',
        np.log(4),
    ),
    "another loss beside it": (TWO + layer("s", "Reduction", "ip", "s", "loss_weight: 1"), None),
    "labels that are computed": (
        TWO.replace(RELU, RELU + layer("p", "Power", "label", "label")),
        None,
    ),
    "probabilities": (
        TWO.replace("SoftmaxWithLoss", "MultinomialLogisticLoss"),
        None,
    ),
    "no loss": (DATA + product("ip", "x", 5), None),
}


@pytest.mark.parametrize("case", CHANCES)
def test_chance(case: str) -> None:
    text, expected = CHANCES[case]
    found = Step(text).chance()
    assert found == (expected and pytest.approx(expected, rel=1e-6))


@pytest.mark.parametrize(
    ("losses", "stuck"),
    [
        ([1.386, 1.38, 1.39], True),
        ([1.386, 1.38, 1.36], False),
        ([1.386, 1.2, 1.386], False),
        ([2.3, 1.386, 1.386], False),
        ([np.nan, 1.386, 1.386], False),
    ],
)
def test_the_watch_wants_three_losses_at_chance(losses: list[float], stuck: bool) -> None:
    step, watch = Step(TWO), StuckWatch()
    wanted: list[int] = []
    said: list[bool] = []
    for iteration in range(100):
        if watch.due(iteration):
            loss = losses[len(wanted)]
            wanted.append(iteration)
            said.append(watch.stays(loss, step.shapes, step.params, step.feeds))
    assert wanted == [0, 9, 19][: len(wanted)]
    assert said == [False] * (len(said) - 1) + [stuck]


def test_the_watch_leaves_other_runs_alone() -> None:
    watch = StuckWatch()
    assert not any(watch.due(iteration) for iteration in range(1, 100))


def test_a_net_whose_shapes_hang_on_its_data() -> None:
    step = Step(
        DATA
        + product("ip", "x", 4)
        + 'layer { name: "keep" type: "Filter" bottom: "ip" bottom: "label" top: "kept" }\n'
        + layer("sum", "Reduction", "kept", "loss", "loss_weight: 1"),
        label=[0, 1],
    )
    seen, values = step.look(), step.net.graph.blobs
    assert seen.values[values["kept"]].shape == (1, 4)
    assert seen.diffs[values["ip"]].total == 4
    assert step.culprit() is None
    assert step.chance() is None
