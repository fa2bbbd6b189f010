"""Caffe's update rules as optax transformations.

The learning rate goes into the history, not onto it: after a change of rate, momentum still
carries the old one. A chain is: clip, average over ``iter_size``, decay weights, the rule. Its
state maps one-to-one onto the history blobs of a .solverstate.

Caffe: ``sgd_solver.cpp`` and its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from netspec.errors import SolverError, fail, nearest, require
from netspec.frontend.shapes import ParamKey
from netspec.layers.base import Array
from netspec.proto.layers_pb2 import ParamSpec
from netspec.proto.solver_pb2 import SolverParameter
from netspec.solving.schedules import Schedule, schedule

Tree = dict[ParamKey, Array]


class RuleState(NamedTuple):
    """``iteration``: updates made so far. ``history``: per slot, one array a learned array."""

    iteration: Array
    history: tuple[Tree, ...]


class Rule(NamedTuple):
    """One array's update: (gradient, histories, rate, t) -> (step, histories), t from 1.

    slots: how many history arrays it keeps for each learned array. scales_history: whether these
    hold gradients times the rate, so that nothing is kept where the rate is 0.
    """

    slots: int
    apply: Callable[[Array, tuple[Array, ...], Array, Array], tuple[Array, tuple[Array, ...]]]
    scales_history: bool = False


def transformation(
    solver: SolverParameter, specs: Mapping[ParamKey, ParamSpec]
) -> optax.GradientTransformation:
    """Build the whole chain for arrays with these multipliers; raises SolverError.

    Updates are what `optax.apply_updates` adds, so minus Caffe's.
    """
    return optax.chain(
        clip(solver.clip_gradients),
        optax.scale(1 / solver.iter_size) if solver.iter_size > 1 else optax.identity(),
        decay_weights(solver, {key: spec.decay_mult for key, spec in specs.items()}),
        update_by(rule(solver), schedule(solver), {k: s.lr_mult for k, s in specs.items()}),
    )


def rule_state(state: optax.OptState) -> RuleState:
    """The history inside the chain's state."""
    found: RuleState = state[-1]
    return found


def with_rule_state(state: optax.OptState, new: RuleState) -> optax.OptState:
    """The chain's state with another history."""
    return (*state[:-1], new)


def with_arrays(state: optax.OptState, arrays: Tree) -> optax.OptState:
    """The chain's state with zeros for those of some arrays that it has no history of."""
    rule, zeros = rule_state(state), jax.tree.map(jnp.zeros_like, arrays)
    history = tuple({**zeros, **slot} for slot in rule.history)
    return with_rule_state(state, rule._replace(history=history))


def clip(limit: float) -> optax.GradientTransformation:
    """Scale all gradients down to a common L2 norm of ``limit``; a negative limit means none."""
    if limit > 0:
        return optax.clip_by_global_norm(limit)
    # Gradients that are all 0 have no norm to divide by.
    return optax.set_to_zero() if limit == 0 else optax.identity()


def decay_weights(
    solver: SolverParameter, multipliers: Mapping[ParamKey, float]
) -> optax.GradientTransformation:
    """Add ``weight_decay`` times ``decay_mult`` times the weight (L2) or its sign (L1)."""
    kinds = {"L2": lambda weight: weight, "L1": jnp.sign}
    kind = solver.regularization_type
    if kind not in kinds:
        fail(f'unknown regularization_type "{kind}"{nearest(kind, kinds)}', SolverError)

    def update(
        gradients: Tree, state: optax.EmptyState, weights: Tree
    ) -> tuple[Tree, optax.EmptyState]:
        decayed = {
            key: gradient + solver.weight_decay * multipliers[key] * kinds[kind](weights[key])
            if solver.weight_decay * multipliers[key]
            else gradient
            for key, gradient in gradients.items()
        }
        return decayed, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def update_by(
    rule: Rule, rate: Schedule, multipliers: Mapping[ParamKey, float]
) -> optax.GradientTransformation:
    """Steps by ``rule`` at ``rate(iteration)`` times each array's ``lr_mult``."""

    def init(weights: Tree) -> RuleState:
        zeros = [jax.tree.map(jnp.zeros_like, weights) for _ in range(rule.slots)]
        return RuleState(jnp.zeros((), jnp.int32), tuple(zeros))

    def update(
        gradients: Tree, state: RuleState, weights: Tree | None = None
    ) -> tuple[Tree, RuleState]:
        now = rate(state.iteration)
        t = (state.iteration + 1).astype(jnp.float32)
        steps, history = {}, [dict(slot) for slot in state.history]
        for key, gradient in gradients.items():
            slots = tuple(slot[key] for slot in state.history)
            step, slots = rule.apply(gradient, slots, now * multipliers[key], t)
            steps[key] = -step
            for slot, array in zip(history, slots, strict=True):
                slot[key] = array
        return steps, RuleState(state.iteration + 1, tuple(history))

    return optax.GradientTransformation(init, update)


def rule(solver: SolverParameter) -> Rule:
    """The rule of a solver's ``type``; raises SolverError."""
    if solver.type not in RULES:
        fail(f'unknown solver type "{solver.type}"{nearest(solver.type, RULES)}', SolverError)
    return RULES[solver.type](solver)


def sgd(solver: SolverParameter) -> Rule:
    """Momentum: h = rate g + momentum h, the step is h. Caffe: ``sgd_solver.cpp``."""

    def apply(
        g: Array, h: tuple[Array, ...], rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        moved = rate * g + solver.momentum * h[0]
        return moved, (moved,)

    return Rule(1, apply, scales_history=True)


def nesterov(solver: SolverParameter) -> Rule:
    """Momentum looked ahead: the step is (1 + momentum) h - momentum (h before).

    Caffe: ``nesterov_solver.cpp``.
    """

    def apply(
        g: Array, h: tuple[Array, ...], rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        moved = rate * g + solver.momentum * h[0]
        return (1 + solver.momentum) * moved - solver.momentum * h[0], (moved,)

    return Rule(1, apply, scales_history=True)


def adagrad(solver: SolverParameter) -> Rule:
    """A sum h of g^2; the step is rate g / (sqrt(h) + delta). Caffe: ``adagrad_solver.cpp``."""
    _refuse_momentum(solver)

    def apply(
        g: Array, h: tuple[Array, ...], rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        energy = h[0] + g * g
        return rate * g / (jnp.sqrt(energy) + solver.delta), (energy,)

    return Rule(1, apply)


def rmsprop(solver: SolverParameter) -> Rule:
    """A mean h of g^2 by ``rms_decay``; the step is rate g / (sqrt(h) + delta).

    Caffe: ``rmsprop_solver.cpp``.
    """
    _refuse_momentum(solver)
    require(
        0 <= solver.rms_decay < 1,
        f"rms_decay {solver.rms_decay:g} must be 0 or more, and less than 1",
        SolverError,
    )

    def apply(
        g: Array, h: tuple[Array, ...], rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        energy = solver.rms_decay * h[0] + (1 - solver.rms_decay) * g * g
        return rate * g / (jnp.sqrt(energy) + solver.delta), (energy,)

    return Rule(1, apply)


def adadelta(solver: SolverParameter) -> Rule:
    """Means h of g^2 and k of squared steps; the step is rate g sqrt((k + delta) / (h + delta)).

    Both averages go by ``momentum``; k takes the step before the rate. Caffe:
    ``adadelta_solver.cpp``.
    """

    def apply(
        g: Array, h: tuple[Array, ...], rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        energy = solver.momentum * h[0] + (1 - solver.momentum) * g * g
        step = g * jnp.sqrt((h[1] + solver.delta) / (energy + solver.delta))
        travel = solver.momentum * h[1] + (1 - solver.momentum) * step * step
        return rate * step, (energy, travel)

    return Rule(2, apply)


def adam(solver: SolverParameter) -> Rule:
    """Means m of g by ``momentum`` and v of g^2 by ``momentum2``, corrected for their start.

    The step is rate sqrt(1 - momentum2^t) / (1 - momentum^t) m / (sqrt(v) + delta).
    Caffe: ``adam_solver.cpp``.
    """

    def apply(
        g: Array, h: tuple[Array, ...], rate: Array, t: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        beta1, beta2 = solver.momentum, solver.momentum2
        mean = beta1 * h[0] + (1 - beta1) * g
        energy = beta2 * h[1] + (1 - beta2) * g * g
        correction = jnp.sqrt(1 - jnp.power(beta2, t)) / (1 - jnp.power(beta1, t))
        return rate * correction * mean / (jnp.sqrt(energy) + solver.delta), (mean, energy)

    return Rule(2, apply)


def _refuse_momentum(solver: SolverParameter) -> None:
    require(
        solver.momentum == 0,
        f"type {solver.type} takes no momentum, but it is {solver.momentum:g}",
        SolverError,
    )


RULES: dict[str, Callable[[SolverParameter], Rule]] = {
    "SGD": sgd,
    "Nesterov": nesterov,
    "AdaGrad": adagrad,
    "RMSProp": rmsprop,
    "AdaDelta": adadelta,
    "Adam": adam,
}
