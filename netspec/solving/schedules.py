"""Learning rates over the course of training: ``lr_policy``.

Caffe: ``SGDSolver::GetLearningRate``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax.numpy as jnp

from netspec.errors import SolverError, fail, nearest, require
from netspec.layers.base import Array
from netspec.proto.solver_pb2 import SolverParameter

Schedule = Callable[[Array], Array]


def schedule(solver: SolverParameter) -> Schedule:
    """Make a function from the iteration to the learning rate, before any ``lr_mult``.

    Raises SolverError where the policy is unknown or lacks a setting.
    """
    policy = solver.lr_policy
    require(policy, f"needs lr_policy: one of {', '.join(POLICIES)}", SolverError)
    if policy not in POLICIES:
        fail(f'unknown lr_policy "{policy}"{nearest(policy, POLICIES)}', SolverError)
    rule, needs = POLICIES[policy]
    missing = [name for name in needs if not _given(solver, name)]
    require(not missing, f'lr_policy "{policy}" needs {", ".join(missing)}', SolverError)
    require(
        "gamma" not in needs or solver.gamma >= 0,
        f"gamma {solver.gamma:g} must not be negative",
        SolverError,
    )
    return lambda iteration: solver.base_lr * rule(solver, jnp.asarray(iteration, jnp.float32))


def _given(solver: SolverParameter, name: str) -> bool:
    if name in ("stepsize", "max_iter"):
        return bool(getattr(solver, name) > 0)
    return name in (field.name for field, _ in solver.ListFields())


def check_end(solver: SolverParameter, limit: int) -> None:
    """Raise SolverError if the policy has no rate left before ``limit`` updates are made."""
    require(
        solver.lr_policy != "poly" or limit <= solver.max_iter,
        f'lr_policy "poly" ends at max_iter {solver.max_iter}; to train until {limit}, raise it',
        SolverError,
    )


def steps_taken(solver: SolverParameter, iteration: int) -> int:
    """How often the rate has been stepped down in ``iteration`` updates, for a .solverstate."""
    if iteration and solver.lr_policy == "step":
        return (iteration - 1) // solver.stepsize
    if solver.lr_policy == "multistep":
        return sum(iteration > first for first in _effective(solver.stepvalue))
    return 0


def gamma_in_parts(solver: SolverParameter, parts: float) -> float:
    """The ``gamma`` that keeps the rate's fall where an iteration becomes ``parts`` of them."""
    rule = _IN_PARTS.get(solver.lr_policy)
    return rule(solver.gamma, parts) if rule else solver.gamma


def _effective(stepvalues: Iterable[int]) -> list[int]:
    """The iterations at which Caffe's counter passes each stepvalue.

    It compares with one of them an iteration: one that does not exceed those before has to wait.
    """
    effective: list[int] = []
    for value in stepvalues:
        effective.append(max(value, effective[-1] + 1) if effective else value)
    return effective


def fixed(solver: SolverParameter, t: Array) -> Array:
    """The rate stays ``base_lr``: 1."""
    return jnp.ones_like(t)


def step(solver: SolverParameter, t: Array) -> Array:
    """Steps at equal distances: gamma ^ floor(t / stepsize)."""
    return jnp.power(solver.gamma, jnp.floor(t / solver.stepsize))


def exp(solver: SolverParameter, t: Array) -> Array:
    """Exponential decay: gamma ^ t."""
    return jnp.power(solver.gamma, t)


def inv(solver: SolverParameter, t: Array) -> Array:
    """Inverse decay: (1 + gamma t) ^ -power."""
    return jnp.power(1 + solver.gamma * t, -solver.power)


def multistep(solver: SolverParameter, t: Array) -> Array:
    """Steps at given iterations: gamma ^ (how many stepvalues are reached)."""
    reached = jnp.sum(t >= jnp.asarray(_effective(solver.stepvalue), jnp.float32))
    return jnp.power(solver.gamma, reached.astype(jnp.float32))


def poly(solver: SolverParameter, t: Array) -> Array:
    """Polynomial decay to 0 at the end: (1 - t / max_iter) ^ power."""
    # Not 1 - t / max_iter: near the end little would be left but rounding.
    return jnp.power((solver.max_iter - t) / solver.max_iter, solver.power)


def sigmoid(solver: SolverParameter, t: Array) -> Array:
    """A sigmoid's rise around stepsize: 1 / (1 + exp(-gamma (t - stepsize)))."""
    return 1 / (1 + jnp.exp(-solver.gamma * (t - solver.stepsize)))


Policy = Callable[[SolverParameter, Array], Array]
POLICIES: dict[str, tuple[Policy, tuple[str, ...]]] = {
    "fixed": (fixed, ()),
    "step": (step, ("gamma", "stepsize")),
    "exp": (exp, ("gamma",)),
    "inv": (inv, ("gamma", "power")),
    "multistep": (multistep, ("gamma", "stepvalue")),
    "poly": (poly, ("power", "max_iter")),
    "sigmoid": (sigmoid, ("gamma", "stepsize")),
}
# The policies whose gamma says what an iteration does.
_IN_PARTS: dict[str, Callable[[float, float], float]] = {
    "exp": lambda gamma, parts: gamma ** (1 / parts),
    "inv": lambda gamma, parts: gamma / parts,
    "sigmoid": lambda gamma, parts: gamma / parts,
}
