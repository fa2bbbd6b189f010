"""Learning rates over the course of training: ``lr_policy``.

Caffe: ``SGDSolver::GetLearningRate``.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from netspec.errors import SolverError, fail, nearest, require
from netspec.layers.base import Array
from netspec.proto.solver_pb2 import SolverParameter

Schedule = Callable[[Array], Array]


def schedule(solver: SolverParameter) -> Schedule:
    """iteration -> learning rate, before any ``lr_mult``; raises SolverError."""
    require(solver.HasField("base_lr"), "needs base_lr", SolverError)
    policy = solver.lr_policy
    require(policy, f"needs lr_policy: one of {', '.join(POLICIES)}", SolverError)
    if policy not in POLICIES:
        fail(f'unknown lr_policy "{policy}"{nearest(policy, POLICIES)}', SolverError)
    rule, needs = POLICIES[policy]
    missing = [name for name in needs if not _given(solver, name)]
    require(not missing, f'lr_policy "{policy}" needs {", ".join(missing)}', SolverError)
    return lambda iteration: solver.base_lr * rule(solver, jnp.asarray(iteration, jnp.float32))


def _given(solver: SolverParameter, name: str) -> bool:
    if name == "stepvalue":
        return bool(solver.stepvalue)
    if name in ("stepsize", "max_iter"):
        return getattr(solver, name) > 0
    return solver.HasField(name)  # type: ignore[arg-type]


def fixed(solver: SolverParameter, t: Array) -> Array:
    """1."""
    return jnp.ones_like(t)


def step(solver: SolverParameter, t: Array) -> Array:
    """gamma ^ floor(t / stepsize)."""
    return jnp.power(solver.gamma, jnp.floor(t / solver.stepsize))


def exp(solver: SolverParameter, t: Array) -> Array:
    """gamma ^ t."""
    return jnp.power(solver.gamma, t)


def inv(solver: SolverParameter, t: Array) -> Array:
    """(1 + gamma t) ^ -power."""
    return jnp.power(1 + solver.gamma * t, -solver.power)


def multistep(solver: SolverParameter, t: Array) -> Array:
    """gamma ^ (how many stepvalues are reached)."""
    reached = jnp.sum(t >= jnp.asarray(solver.stepvalue, jnp.float32))
    return jnp.power(solver.gamma, reached.astype(jnp.float32))


def poly(solver: SolverParameter, t: Array) -> Array:
    """(1 - t / max_iter) ^ power."""
    return jnp.power(1 - t / solver.max_iter, solver.power)


def sigmoid(solver: SolverParameter, t: Array) -> Array:
    """1 / (1 + exp(-gamma (t - stepsize)))."""
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
