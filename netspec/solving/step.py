"""One compiled training step: forward, backward, update.

Arrays that a step replaces are donated, so that it needs room for one copy of them. A step whose
loss or update is not finite leaves the learner as it is, and so does any after it: what was
learned until then is intact when the host finds out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.runtime.compute_policy import PLAIN, ComputePolicy
from netspec.runtime.masked_shapes import Bucketed
from netspec.runtime.owned import owned_jit
from netspec.runtime.run import run
from netspec.solving.updates import Tree


class PassInputs(NamedTuple):
    """The arrays that one pass is fed: blobs by name, its random key, and the true sizes of blobs.

    sizes: those of the valid regions, where arrays are larger (see `run`); None where they are not.
    """

    feeds: Mapping[str, Array]
    key: Array
    sizes: Array | None


@dataclass(frozen=True)
class Batch:
    """What one pass computes with: the arrays fed in their size bucket, and its random key.

    files: the files behind it, for messages. shown: the shapes of the batch whose outputs the pass
    hands out, which is another one where several devices take one each.
    """

    bucket: Bucketed
    key: Array
    files: str
    shown: Shapes

    @property
    def shapes(self) -> Shapes:
        """Of all values as the program holds them."""
        return self.bucket.shapes

    @property
    def inputs(self) -> PassInputs:
        """The arrays that a program is fed."""
        return PassInputs(self.bucket.feeds, self.key, self.bucket.sizes)

    @property
    def fed(self) -> tuple[Mapping[str, Array], Array] | None:
        """The arrays fed and the random key, where no array is larger than its blob."""
        return None if self.bucket.sizes is not None else (self.bucket.feeds, self.key)

    @property
    def alone(self) -> Batch:
        """The same batch for a program of its own size, without padding."""
        return replace(self, bucket=self.bucket.unpadded)


class Learner(NamedTuple):
    """What training changes: the learned arrays, and the rule's state."""

    arrays: Tree
    state: Any


class PassResult(NamedTuple):
    """What one forward and backward pass gives.

    statistics: what layers keep from run to run, after it.
    """

    loss: Array
    gradients: Tree
    statistics: Tree
    outputs: dict[str, Array]


class StepResult(NamedTuple):
    """What an update, or one pass of it, gives: the fields of `PassResult`, and its health.

    gradients: the sum over the passes until now; of an update the steps taken, if kept. healthy:
    whether loss and update are finite, and all before them were.
    """

    loss: Array
    gradients: Tree
    statistics: Tree
    outputs: dict[str, Array]
    healthy: Array


@dataclass(frozen=True, eq=False)
class Program:
    """What a compiled step depends on besides its arrays: one for each shape of the data.

    keep: the blobs that a step hands out. keep_steps: whether it hands out its updates, too.
    policy: the dtype it computes in, and whether it rematerialises. decayed: the arrays that the
    rule sees and does not change.
    """

    shapes: Shapes
    keep: tuple[str, ...]
    transformation: Any
    keep_steps: bool = False
    policy: ComputePolicy = PLAIN
    decayed: tuple[ParamKey, ...] = ()

    @property
    def _run_policy(self) -> ComputePolicy:
        """The policy, without remat where a blob inside a segment is to be handed out."""
        remat = self.policy.remat and set(self.keep) <= set(self.shapes.graph.outputs)
        return replace(self.policy, remat=remat)

    def micro(self, fixed: Tree, learned: Tree, total: Tree, inputs: PassInputs) -> StepResult:
        """Make one forward and backward pass; its gradients are added to ``total``."""
        made = self.forward_backward(fixed, learned, inputs)
        summed = {key: total[key] + g if total else g for key, g in made.gradients.items()}
        return StepResult(made.loss, summed, made.statistics, made.outputs, jnp.isfinite(made.loss))

    def forward_backward(self, fixed: Tree, learned: Tree, inputs: PassInputs) -> PassResult:
        """The loss of one pass, and its gradients with respect to the learned arrays."""

        def loss(learned: Tree) -> tuple[Array, tuple[dict[str, Array], Tree]]:
            first = self.shapes.graph.first_blobs
            given = {first[name]: array for name, array in inputs.feeds.items()}
            params = {**fixed, **learned}
            made = run(
                self.shapes,
                params,
                given,
                inputs.key,
                sizes=inputs.sizes,
                policy=self._run_policy,
            )
            blobs = self.shapes.graph.all_blobs
            outputs = {name: made.value(blobs[name]) for name in self.keep}
            return made.loss(), (outputs, made.updates)

        passes = jax.value_and_grad(loss, has_aux=True)
        with self.policy.products():
            (value, (outputs, statistics)), gradients = passes(learned)
        return PassResult(value, gradients, statistics, outputs)

    def update(
        self, learner: Learner, healthy: Array, loss: Array, gradients: Tree, frozen: Tree
    ) -> tuple[Learner, Tree, Array]:
        """The learner after one update, or as it was if not all is healthy.

        frozen: the arrays that the rule sees and does not change. Also the steps taken, if kept,
        and whether all is healthy.
        """
        healthy &= jnp.isfinite(loss)
        gradients = {**jax.tree.map(jnp.zeros_like, frozen), **gradients}
        weights = {**frozen, **learner.arrays}
        steps, state = self.transformation.update(gradients, learner.state, weights)
        steps = {key: steps[key] for key in learner.arrays}
        # A gradient that is not finite makes its step so by every rule.
        for step in steps.values():
            healthy &= jnp.all(jnp.isfinite(step))
        arrays = {key: array + steps[key] for key, array in learner.arrays.items()}
        after = Learner(
            _where(healthy, arrays, learner.arrays), _where(healthy, state, learner.state)
        )
        return after, steps if self.keep_steps else {}, healthy


def _where(healthy: Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda after, before: jnp.where(healthy, after, before), new, old)


@owned_jit(donate=2)
def whole_step(
    program: Program, fixed: Tree, learner: Learner, healthy: Array, inputs: PassInputs
) -> tuple[StepResult, Learner]:
    """Make a pass and its update, in place; the gradients handed out are the steps, if kept."""
    result = program.micro(fixed, learner.arrays, {}, inputs)
    after = {**fixed, **result.statistics}
    frozen = {key: after[key] for key in program.decayed}
    learner, steps, healthy = program.update(
        learner, healthy, result.loss, result.gradients, frozen
    )
    return result._replace(gradients=steps, healthy=healthy), learner


@owned_jit(donate=3)
def accumulate(
    program: Program, fixed: Tree, learner: Learner, total: Tree, inputs: PassInputs
) -> StepResult:
    """Make a pass whose gradients are added to ``total``, in place."""
    return program.micro(fixed, learner.arrays, total, inputs)


@owned_jit(donate=1)
def apply_update(
    program: Program, learner: Learner, healthy: Array, loss: Array, gradients: Tree, frozen: Tree
) -> tuple[Learner, Tree, Array]:
    """Update by summed gradients, in place: see `Program.update`."""
    return program.update(learner, healthy, loss, gradients, frozen)


@owned_jit(static=2)
def loss_of(
    shapes: Shapes, policy: ComputePolicy, params: Tree, inputs: PassInputs
) -> tuple[Array, Tree]:
    """The loss of one forward pass, and what layers keep from run to run after it."""
    first = shapes.graph.first_blobs
    given = {first[name]: array for name, array in inputs.feeds.items()}
    made = run(shapes, params, given, inputs.key, sizes=inputs.sizes, policy=policy)
    return made.loss(), made.updates
