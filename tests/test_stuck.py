"""Why a loss stays at chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from single_steps import DATA, LOSS, ONES, RELU, TWO, Step, layer, product

from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TRAIN
from netspec.solving.diagnosis.measure import look
from netspec.solving.diagnosis.stuck import StuckWatch, why_stuck
from netspec.sources.fed_net import compile_net

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


# An LSTM whose weights are frozen at 0 and whose bias, "b_c", is 0 until the next update.
ZERO_LSTM = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 1 dim: 3 } } }
layer { name: "cont" type: "Input" top: "cont" input_param { shape { dim: 2 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 5 axis: 2 weight_filler { type: "xavier" } } }
layer { name: "lstm" type: "LSTM" bottom: "ip" bottom: "cont" top: "y"
  param { lr_mult: 0 } param { lr_mult: 1 } param { lr_mult: 0 }
  recurrent_param { num_output: 4 } }
layer { name: "z" type: "Power" bottom: "y" top: "z" power_param { shift: 1 power: 2 } }
layer { name: "loss" type: "Reduction" bottom: "z" top: "loss" loss_weight: 1 }
"""


def test_a_bias_at_zero_does_not_promise_gradients_to_what_lies_below() -> None:
    text = parse_net(ZERO_LSTM, "net.prototxt")
    net = compile_net(graph_of(text, state_of(text, TRAIN)))
    params = {**net.arrays(), **net.carried_for(net.shapes)}
    learned = [key for key, spec in net.shapes.param_specs.items() if spec.lr_mult]
    feeds = {"x": jnp.asarray(np.ones((2, 1, 3))), "cont": jnp.ones((2, 1))}
    seen = look(net.shapes, params, learned, feeds, jax.random.key(0))
    assert not next(g for key, g in seen.gradients.items() if key.blob == "b_c").zero
    lines = why_stuck(seen, net.shapes)
    assert lines[0].startswith("the arrays lstm.W_xc, lstm.W_hc are all zero: ")
    assert lines[-1] == "no gradient reaches ip.weight, ip.bias"
