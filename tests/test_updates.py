import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from netspec.errors import SolverError
from netspec.frontend.shapes import ParamKey
from netspec.proto.layers_pb2 import ParamSpec
from netspec.proto.solver_pb2 import SolverParameter
from netspec.solving.updates import RuleState, rule_state, transformation, with_rule_state

Arrays = dict[ParamKey, NDArray[np.float64]]

CONV, BIAS, SCORE = ParamKey("conv", "weight"), ParamKey("conv", "bias"), ParamKey("score", "w")
SHAPES = {CONV: (2, 3), BIAS: (5,), SCORE: (3, 1, 2)}
SPECS = {
    CONV: ParamSpec(),
    BIAS: ParamSpec(lr_mult=2, decay_mult=0),
    SCORE: ParamSpec(lr_mult=0.5, decay_mult=3),
}
STEPS = 4


def solver(settings: str) -> SolverParameter:
    message = SolverParameter(base_lr=0.1, lr_policy="fixed")
    message.MergeFrom(text_format.Parse(settings, SolverParameter()))
    return message


def drawn(seed: int) -> Arrays:
    draw = np.random.default_rng(seed)
    return {key: draw.standard_normal(shape) for key, shape in SHAPES.items()}


def ours(settings: str) -> tuple[Arrays, Any]:
    """The arrays, and the chain's state, after some updates."""
    chain = transformation(solver(settings), SPECS)
    weights = {key: jnp.asarray(array, jnp.float32) for key, array in drawn(0).items()}
    state = chain.init(weights)
    for step in range(1, STEPS + 1):
        gradients = {key: jnp.asarray(array, jnp.float32) for key, array in drawn(step).items()}
        updates, state = chain.update(gradients, state, weights)
        weights = optax.apply_updates(weights, updates)
    return {key: np.asarray(array, np.float64) for key, array in weights.items()}, state


def sgd(g: float, h: list[float], rate: float, t: int, momentum: float = 0.0) -> float:
    h[0] = rate * g + momentum * h[0]
    return h[0]


def nesterov(g: float, h: list[float], rate: float, t: int) -> float:
    before = h[0]
    h[0] = rate * g + 0.9 * before
    return 1.9 * h[0] - 0.9 * before


def adagrad(g: float, h: list[float], rate: float, t: int) -> float:
    h[0] += g**2
    return rate * g / (math.sqrt(h[0]) + 0.01)


def rmsprop(g: float, h: list[float], rate: float, t: int) -> float:
    h[0] = 0.8 * h[0] + 0.2 * g**2
    return rate * g / (math.sqrt(h[0]) + 0.01)


def adadelta(g: float, h: list[float], rate: float, t: int) -> float:
    h[0] = 0.9 * h[0] + 0.1 * g**2
    step = g * math.sqrt((h[1] + 0.01) / (h[0] + 0.01))
    h[1] = 0.9 * h[1] + 0.1 * step**2
    return rate * step


def adam(g: float, h: list[float], rate: float, t: int) -> float:
    h[0] = 0.9 * h[0] + 0.1 * g
    h[1] = 0.99 * h[1] + 0.01 * g**2
    return rate * math.sqrt(1 - 0.99**t) / (1 - 0.9**t) * h[0] / (math.sqrt(h[1]) + 0.01)


def by_loops(
    rule: Callable[..., float] = sgd,
    rates: tuple[float, ...] = (0.1,) * STEPS,
    decay: float = 0.0,
    norm: str = "L2",
    clip: float = -1.0,
    iter_size: int = 1,
) -> tuple[Arrays, list[Arrays]]:
    """The same, number by number as Caffe's solvers do it, in double precision."""
    weights = drawn(0)
    histories = [{key: np.zeros(shape) for key, shape in SHAPES.items()} for _ in range(2)]
    for t, rate in enumerate(rates, start=1):
        gradients = drawn(t)
        square = 0.0
        for array in gradients.values():
            for number in array.flat:
                square += number * number
        shrink = clip / square**0.5 if 0 <= clip < square**0.5 else 1.0
        for key, array in weights.items():
            spec = SPECS[key]
            for i in np.ndindex(array.shape):
                gradient = gradients[key][i] * shrink / iter_size
                sign = int(array[i] > 0) - int(array[i] < 0)
                gradient += decay * spec.decay_mult * (array[i] if norm == "L2" else sign)
                h = [history[key][i] for history in histories]
                array[i] -= rule(gradient, h, rate * spec.lr_mult, t)
                for history, value in zip(histories, h, strict=True):
                    history[key][i] = value
    return weights, histories


HEAVY = partial(sgd, momentum=0.9)
CASES: dict[str, dict[str, Any]] = {
    "": {},
    "momentum: 0.9": {"rule": HEAVY},
    "weight_decay: 0.05": {"decay": 0.05},
    "momentum: 0.9 weight_decay: 0.05": {"rule": HEAVY, "decay": 0.05},
    'weight_decay: 0.05 regularization_type: "L1"': {"decay": 0.05, "norm": "L1"},
    "clip_gradients: 1.5": {"clip": 1.5},
    "clip_gradients: 100": {"clip": 100},
    "clip_gradients: 0": {"clip": 0},
    "iter_size: 3": {"iter_size": 3},
    # The norm is that of the summed gradients, and decay is neither clipped nor divided.
    "iter_size: 3 clip_gradients: 1.5 weight_decay: 0.05 momentum: 0.9": {
        "iter_size": 3,
        "clip": 1.5,
        "decay": 0.05,
        "rule": HEAVY,
    },
    # After a change of rate, momentum still carries the old one.
    'momentum: 0.9 lr_policy: "step" gamma: 0.1 stepsize: 2': {
        "rule": HEAVY,
        "rates": (0.1, 0.1, 0.01, 0.01),
    },
    'type: "Nesterov" momentum: 0.9 weight_decay: 0.05': {"rule": nesterov, "decay": 0.05},
    'type: "AdaGrad" delta: 0.01': {"rule": adagrad},
    'type: "RMSProp" rms_decay: 0.8 delta: 0.01': {"rule": rmsprop},
    'type: "AdaDelta" momentum: 0.9 delta: 0.01': {"rule": adadelta},
    'type: "Adam" momentum: 0.9 momentum2: 0.99 delta: 0.01': {"rule": adam},
    'type: "Adam" momentum: 0.9 momentum2: 0.99 delta: 0.01 clip_gradients: 1 weight_decay: 0.05': {
        "rule": adam,
        "clip": 1,
        "decay": 0.05,
    },
}


@pytest.mark.parametrize("settings", CASES)
def test_updates_are_those_of_the_plain_loop(settings: str) -> None:
    weights, state = ours(settings)
    expected, histories = by_loops(**CASES[settings])
    for key in SHAPES:
        np.testing.assert_allclose(weights[key], expected[key], rtol=1e-5, atol=1e-6)
        for kept, history in zip(rule_state(state).history, histories, strict=False):
            np.testing.assert_allclose(kept[key], history[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "slots"),
    [("SGD", 1), ("Nesterov", 1), ("AdaGrad", 1), ("RMSProp", 1), ("AdaDelta", 2), ("Adam", 2)],
)
def test_how_many_histories_a_rule_keeps(rule: str, slots: int) -> None:
    chain = transformation(solver(f'type: "{rule}"'), SPECS)
    state = chain.init({key: jnp.ones(shape) for key, shape in SHAPES.items()})
    assert len(rule_state(state).history) == slots


def test_the_state_is_updates_made_and_a_history() -> None:
    _, state = ours("momentum: 0.9")
    found = rule_state(state)
    assert found.iteration == STEPS
    assert [sorted(slot) for slot in found.history] == [sorted(SHAPES)]
    other = RuleState(found.iteration + 1, ({},))
    assert rule_state(with_rule_state(state, other)) is other


def test_a_restored_state_goes_on() -> None:
    chain = transformation(solver('momentum: 0.5 lr_policy: "exp" gamma: 0.5'), SPECS)
    weights = {key: jnp.ones(shape) for key, shape in SHAPES.items()}
    history = {key: jnp.full(shape, 2.0) for key, shape in SHAPES.items()}
    restored = RuleState(jnp.asarray(3, jnp.int32), (history,))
    state = with_rule_state(chain.init(weights), restored)
    updates, state = chain.update(weights, state, weights)
    # 0.1 * 0.5 ** 3 * lr_mult * 1 + 0.5 * 2
    for key, step in {CONV: 1.0125, BIAS: 1.025, SCORE: 1.00625}.items():
        np.testing.assert_allclose(updates[key], np.full(SHAPES[key], -step), rtol=1e-6)
    assert rule_state(state).iteration == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('type: "sgd"', 'unknown solver type "sgd"; did you mean "SGD"?'),
        ('type: "Lion"', 'unknown solver type "Lion"'),
        (
            'regularization_type: "l1"',
            'unknown regularization_type "l1"; did you mean "L1"?',
        ),
        ('regularization_type: "none"', 'unknown regularization_type "none"'),
        ('type: "AdaGrad" momentum: 0.9', "type AdaGrad takes no momentum, but it is 0.9"),
        ('type: "RMSProp" momentum: 0.5', "type RMSProp takes no momentum, but it is 0.5"),
        (
            'type: "RMSProp" rms_decay: 1',
            "rms_decay 1 must be 0 or more, and less than 1",
        ),
        ('lr_policy: "stepp"', 'unknown lr_policy "stepp"; did you mean "step"?'),
    ],
)
def test_messages(settings: str, message: str) -> None:
    with pytest.raises(SolverError) as error:
        transformation(solver(settings), SPECS)
    assert str(error.value) == message
