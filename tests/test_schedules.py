import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from google.protobuf import text_format

from netspec.errors import SolverError
from netspec.proto.solver_pb2 import SolverParameter
from netspec.solving.schedules import check_end, schedule, steps_taken


def solver(settings: str) -> SolverParameter:
    return text_format.Parse(settings, SolverParameter())


TIMES = (0, 1, 2, 4, 5, 6, 9, 10, 11, 99, 100, 101, 449_999)
FORMS: list[tuple[str, Callable[[int], float]]] = [
    ('lr_policy: "fixed"', lambda t: 0.02),
    ('lr_policy: "step" gamma: 0.5 stepsize: 5', lambda t: 0.02 * 0.5 ** (t // 5)),
    ('lr_policy: "step" gamma: 0.1 stepsize: 100000', lambda t: 0.02 * 0.1 ** (t // 100_000)),
    ('lr_policy: "step" gamma: 0 stepsize: 10', lambda t: 0.02 if t < 10 else 0.0),
    ('lr_policy: "exp" gamma: 0.99', lambda t: 0.02 * 0.99**t),
    ('lr_policy: "exp" gamma: 0.99999', lambda t: 0.02 * 0.99999**t),
    ('lr_policy: "inv" gamma: 0.1 power: 0.75', lambda t: 0.02 * (1 + 0.1 * t) ** -0.75),
    ('lr_policy: "inv" gamma: 0.0001 power: 2', lambda t: 0.02 * (1 + 0.0001 * t) ** -2.0),
    (
        'lr_policy: "multistep" gamma: 0.5 stepvalue: 5 stepvalue: 10 stepvalue: 100',
        lambda t: 0.02 if t < 5 else 0.01 if t < 10 else 0.005 if t < 100 else 0.0025,
    ),
    (
        # Caffe's counter passes one stepvalue an iteration, in the order of the file.
        'lr_policy: "multistep" gamma: 0.5 stepvalue: 5 stepvalue: 5 stepvalue: 2',
        lambda t: 0.02 * 0.5 ** min(max(t - 4, 0), 3),
    ),
    (
        'lr_policy: "poly" power: 0.9 max_iter: 450000',
        lambda t: 0.02 * (1 - t / 450_000) ** 0.9,
    ),
    ('lr_policy: "poly" power: 1 max_iter: 449999', lambda t: 0.02 * (1 - t / 449_999)),
    (
        'lr_policy: "sigmoid" gamma: 0.25 stepsize: 10',
        lambda t: 0.02 / (1 + math.exp(-0.25 * (t - 10))),
    ),
]


@pytest.mark.parametrize(("settings", "form"), FORMS, ids=[settings for settings, _ in FORMS])
def test_closed_forms(settings: str, form: Callable[[int], float]) -> None:
    rate = jax.jit(schedule(solver(f"base_lr: 0.02 {settings}")))
    for t in TIMES:
        # The settings are floats of single precision: 450,000 factors of one differ by so much.
        tolerance = 1e-6 + 6e-8 * t * ("exp" in settings)
        assert float(rate(t)) == pytest.approx(form(t), rel=tolerance, abs=1e-12), t


def test_a_rate_is_a_float32_scalar() -> None:
    for settings, _ in FORMS:
        found = schedule(solver(f"base_lr: 0.02 {settings}"))(jnp.asarray(3))
        assert (found.shape, found.dtype) == ((), jnp.float32), settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "base_lr: 1",
            "needs lr_policy: one of fixed, step, exp, inv, multistep, poly, sigmoid",
        ),
        ('base_lr: 1 lr_policy: "fix"', 'unknown lr_policy "fix"; did you mean "fixed"?'),
        ('base_lr: 1 lr_policy: "Step"', 'unknown lr_policy "Step"; did you mean "step"?'),
        ('base_lr: 1 lr_policy: "warmup"', 'unknown lr_policy "warmup"'),
        ('base_lr: 1 lr_policy: "step"', 'lr_policy "step" needs gamma, stepsize'),
        ('base_lr: 1 lr_policy: "step" gamma: 1', 'lr_policy "step" needs stepsize'),
        (
            'base_lr: 1 lr_policy: "step" gamma: 1 stepsize: 0',
            'lr_policy "step" needs stepsize',
        ),
        ('base_lr: 1 lr_policy: "exp"', 'lr_policy "exp" needs gamma'),
        ('base_lr: 1 lr_policy: "inv"', 'lr_policy "inv" needs gamma, power'),
        ('base_lr: 1 lr_policy: "multistep"', 'lr_policy "multistep" needs gamma, stepvalue'),
        ('base_lr: 1 lr_policy: "poly"', 'lr_policy "poly" needs power, max_iter'),
        ('base_lr: 1 lr_policy: "poly" power: 1 max_iter: 0', 'lr_policy "poly" needs max_iter'),
        ('base_lr: 1 lr_policy: "sigmoid"', 'lr_policy "sigmoid" needs gamma, stepsize'),
        ('base_lr: 1 lr_policy: "exp" gamma: -0.5', "gamma -0.5 must not be negative"),
    ],
)
def test_messages(settings: str, message: str) -> None:
    with pytest.raises(SolverError) as error:
        schedule(solver(settings))
    assert str(error.value) == message


def test_a_gamma_that_does_not_count_may_be_anything() -> None:
    rate = schedule(solver('base_lr: 1 lr_policy: "fixed" gamma: -1'))
    assert float(rate(jnp.asarray(7))) == 1


def test_poly_ends_at_max_iter() -> None:
    poly = solver('base_lr: 1 lr_policy: "poly" power: 1 max_iter: 10')
    check_end(poly, 10)
    with pytest.raises(SolverError) as error:
        check_end(poly, 11)
    assert str(error.value) == 'lr_policy "poly" ends at max_iter 10; to train until 11, raise it'
    check_end(solver('lr_policy: "fixed" max_iter: 10'), 11)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ('lr_policy: "fixed"', [0, 0, 0, 0, 0, 0, 0]),
        ('lr_policy: "step" stepsize: 2', [0, 0, 0, 1, 1, 2, 2]),
        ('lr_policy: "multistep" stepvalue: 2 stepvalue: 4', [0, 0, 0, 1, 1, 2, 2]),
        ('lr_policy: "multistep" stepvalue: 4 stepvalue: 2', [0, 0, 0, 0, 0, 1, 2]),
    ],
)
def test_steps_of_a_snapshot_are_those_of_its_last_update(settings: str, steps: list[int]) -> None:
    assert [steps_taken(solver(settings), iteration) for iteration in range(7)] == steps
