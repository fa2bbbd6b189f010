"""Updates a net by its rule, with a compiled program for each shape of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import SolverError, WeightsError, blame, require
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array, text
from netspec.proto.solver_pb2 import SolverParameter
from netspec.runtime.host_calls import runnable
from netspec.runtime.memory import of_program
from netspec.runtime.module import Net
from netspec.runtime.size_buckets import Given, SizeBuckets
from netspec.solving import updates
from netspec.solving.carried_state import set_carried
from netspec.solving.distributed.mesh import Mesh
from netspec.solving.step import (
    Batch,
    Learner,
    Program,
    StepResult,
    accumulate,
    apply_update,
    loss_of,
    whole_step,
)
from netspec.solving.updated_arrays import updated_arrays
from netspec.solving.updates import Tree

ArrayLike = np.ndarray | Array


class Trainer:
    """Updates the learned arrays of a net.

    net: holds the arrays that change. steps: what the last update added to each, if that is kept.
    healthy: whether all updates until now were finite.
    """

    def __init__(
        self,
        net: Net,
        param: SolverParameter,
        seed: int,
        buckets: SizeBuckets | None = None,
        mesh: Mesh | None = None,
        keep_all: bool = False,
    ) -> None:
        """seed: what randomness in the net starts from. buckets: the size buckets of its batches.

        mesh: the devices that take the steps. keep_all: let each update hand out all blobs, and
        the steps taken, instead of the net's outputs alone. Raises SolverError.
        """
        self.mesh = mesh or Mesh()
        self.net = net
        self.param = param
        self.buckets = buckets or SizeBuckets(net)
        self._reseed(seed)
        self._keep = tuple(net.graph.all_blobs) if keep_all else net.graph.outputs
        self._keep_steps = keep_all or param.snapshot_diff
        self._on_gradients: Callable[[Tree], Tree] | None = None
        self.steps: Tree = {}
        self._updated = updated_arrays(net.shapes, param)
        self.transformation = updates.transformation(param, self._updated.all)
        self.state = self.transformation.init({**self.learned(), **self._decayed()})
        self.recover()
        self._programs: dict[tuple[Any, ...], Program] = {}
        # The last pass, and the carried state that it began with.
        self.last: Batch | None = None
        self.carried_before: Tree = {}

    def resume(self, seed: int, home: Given, carried: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on as a run of this seed; raises WeightsError.

        home: see `SizeBuckets`; empty for none. carried: what `carried_lists` gave.
        """
        self._reseed(seed)
        if home:
            self.buckets.unpadded = home
        set_carried(self.net, carried)

    def _reseed(self, seed: int) -> None:
        self.seed = seed
        self._root_key = jax.random.key(seed)

    @property
    def learned_specs(self) -> Mapping[ParamKey, Any]:
        """The multipliers of the arrays that training changes."""
        return self._updated.learned

    @property
    def updated_specs(self) -> Mapping[ParamKey, Any]:
        """Those of all arrays that the rule keeps a history of."""
        return self._updated.all

    def learned(self) -> Tree:
        """The arrays that a step computes gradients of: no others change."""
        arrays = self.net.arrays()
        return {key: arrays[key] for key in self._updated.graded}

    def _decayed(self) -> Tree:
        """The arrays that the rule sees besides."""
        arrays = self.net.arrays()
        return {key: arrays[key] for key in self._updated.decayed}

    def fixed(self, shapes: Shapes) -> Tree:
        """All else that a run at these shapes needs: frozen arrays, and carried state."""
        frozen = {k: a for k, a in self.net.arrays().items() if k not in self._updated.graded}
        return {**frozen, **self.net.carried_for(shapes)}

    def statistics(self, shapes: Shapes) -> Tree:
        """The arrays that layers change by themselves: running statistics and carried state."""
        kept = {key for key, blob in self.net.shapes.params.items() if not blob.learned}
        return {k: a for k, a in self.fixed(shapes).items() if k in kept or k in shapes.carried}

    def params(self, shapes: Shapes) -> Tree:
        """All that a run at these shapes needs, for one device."""
        return self.mesh.sharding.local({**self.learned(), **self.fixed(shapes)})

    def batch(
        self, feeds: Mapping[str, Any], moment: int, files: str, beside: Sequence[Given] = ()
    ) -> Batch:
        """Send a batch to the device; moment: which pass of the run it is for.

        beside: the shapes of what the devices take at the same time, where there are several.
        """
        bucket = self.buckets.bucket(feeds, beside)
        arrays, sizes = self.mesh.sharding.upload((dict(bucket.feeds), bucket.sizes))
        key = jax.random.fold_in(self._root_key, moment)
        shown = self.net.shapes_for(beside[-1]) if beside else bucket.exact
        return Batch(replace(bucket, feeds=arrays, sizes=sizes), key, files, shown)

    def update(self, batches: Sequence[Batch]) -> StepResult:
        """Update by the batches' mean gradient; gives their mean loss, the last one's outputs."""
        self._settle()
        learner = Learner(self.learned(), self.state)
        passes = self.mesh.sharding.stacked(batches)
        self.last = passes[-1]
        if len(passes) == 1 and self._on_gradients is None:
            result, learner = self._whole(passes[0], learner)
        else:
            result, learner = self._accumulated(passes, learner)
        self.net.assign({**learner.arrays, **result.statistics})
        self.state, self.healthy = learner.state, result.healthy
        if self._keep_steps:
            self.steps = result.gradients
        return result

    def apply(self, gradients: Tree, iteration: int) -> None:
        """Update by gradients from elsewhere, as after ``iteration`` updates, without counting it.

        Raises SolverError where they are not finite: nothing is changed then.
        """
        program = self._program(self.net.shapes)
        learner, steps, healthy = apply_update(
            program,
            Learner(self.learned(), self.state),
            self.healthy,
            jnp.zeros(()),
            gradients,
            self._decayed(),
        )
        self.net.assign(learner.arrays)
        history = updates.rule_state(learner.state).history
        self.restore(iteration, history)
        require(healthy, "the diffs are not finite; nothing is updated", SolverError)
        if self._keep_steps:
            self.steps = steps

    def change_gradients(self, change: Callable[[Tree], Tree]) -> None:
        """Update by what ``change`` makes of the summed gradients, from now on."""
        self._on_gradients = change

    def retune(self) -> None:
        """Re-read the solver's settings, after a change of them; its type stays."""
        self._updated = updated_arrays(self.net.shapes, self.param)
        self.transformation = updates.transformation(self.param, self._updated.all)
        self.state = updates.with_arrays(self.state, {**self.learned(), **self._decayed()})
        self._programs.clear()

    def loss(self, batch: Batch) -> float:
        """The loss on a batch; changes nothing but running statistics and carried state."""
        loss, statistics = runnable(self.net.graph, loss_of)(
            batch.shapes,
            self.net.policy,
            self.params(batch.shapes),
            batch.inputs,
        )
        # Processes that keep what they saw alone would go different ways.
        if self.mesh.peers.processes == 1:
            self.net.assign(statistics)
        return float(loss)

    def arrays(self) -> Mapping[ParamKey, ArrayLike]:
        """Every learned array of the net, where the host can read it."""
        return self.mesh.sharding.fetched(self.net.arrays())

    def program_bytes(self) -> int | None:
        """The bytes that the last pass takes at its peak, if there was one and XLA says."""
        if self.last is None or self.net.graph.data_dependent:
            return None
        batch, learner = self.last, Learner(self.learned(), self.state)
        program, fixed = self._program(batch.shapes), self.fixed(batch.shapes)
        # What is compiled already is not compiled again.
        if self.param.iter_size > self.mesh.size:
            step = accumulate.program(program)
            lowered = step.lower(fixed, learner, learner.arrays, batch.inputs)
        else:
            lowered = whole_step.program(program).lower(fixed, learner, self.healthy, batch.inputs)
        return of_program(lowered.compile())

    def history(self) -> tuple[ArrayLike, ...]:
        """The rule's arrays as a .solverstate lists them; zeros for what the rule never sees."""
        rule, arrays = updates.rule_state(self.state), self.net.arrays()
        fetched = self.mesh.sharding.fetched
        return tuple(
            fetched(slot[key]) if key in slot else np.zeros(array.shape, np.float32)
            for slot in rule.history
            for key, array in arrays.items()
        )

    def history_of(self, arrays: Sequence[ArrayLike]) -> tuple[Tree, ...]:
        """Bring what `history` gave back into the rule's form; raises WeightsError."""
        keys = list(self.net.shapes.params)
        slots = len(updates.rule_state(self.state).history)
        require(
            len(arrays) == len(keys) * slots,
            f"holds {len(arrays)} history blobs; this solver keeps {len(keys) * slots}",
            WeightsError,
        )
        return tuple(
            self._history_slot(arrays[i * len(keys) : (i + 1) * len(keys)]) for i in range(slots)
        )

    def restore(self, iteration: int, history: tuple[Tree, ...]) -> None:
        """Go on as after ``iteration`` updates that left this history."""
        count = jnp.asarray(iteration, jnp.int32)
        self.state = updates.with_rule_state(self.state, updates.RuleState(count, history))
        self.recover()

    def recover(self) -> None:
        """Go on after a step that was not healthy, from the state before it."""
        self.healthy = jnp.asarray(True)
        self.steps = {}

    def finite(self) -> bool:
        """Whether all learned arrays, and all that the rule keeps of them, are finite."""
        leaves = jax.tree.leaves((self.learned(), self.state))
        return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)

    def diffs(self) -> dict[ParamKey, ArrayLike]:
        """The diffs that Caffe has after an update: minus what each step added."""
        return {
            key: -self.mesh.sharding.fetched(self.steps[key])
            if key in self.steps
            else np.zeros(array.shape, np.float32)
            for key, array in self.net.arrays().items()
        }

    def _settle(self) -> None:
        """Move what steps need to their devices, if it is not there."""
        if self.mesh.size == 1:
            return
        arrays, placed = self.net.arrays(), self.mesh.sharding.placed
        learned = self.learned()
        rest = {key: array for key, array in arrays.items() if key not in learned}
        self.net.assign({**placed(learned, learned=True), **placed(rest)})
        self.state, self.healthy = placed(self.state, learned=True), placed(self.healthy)

    def _whole(self, batch: Batch, learner: Learner) -> tuple[StepResult, Learner]:
        step = runnable(self.net.graph, whole_step)
        program, fixed = self._prepared(batch)
        result, learner = step(program, fixed, learner, self.healthy, batch.inputs)
        return _cut(result, batch), learner

    def _accumulated(
        self, batches: Sequence[Batch], learner: Learner
    ) -> tuple[StepResult, Learner]:
        passes = runnable(self.net.graph, accumulate)
        total: Tree = {}
        losses = []
        for batch in batches:
            program, fixed = self._prepared(batch)
            result: StepResult = passes(program, fixed, learner, total, batch.inputs)
            total = result.gradients
            self.net.assign(result.statistics)
            losses.append(result.loss)
        if self._on_gradients is not None:
            total = self._on_gradients(total)
        loss = sum(losses[1:], losses[0]) / len(losses)
        learner, steps, healthy = apply_update(
            program, learner, self.healthy, loss, total, self._decayed()
        )
        result = _cut(result, batch)
        return result._replace(loss=loss, gradients=steps, healthy=healthy), learner

    def _prepared(self, batch: Batch) -> tuple[Program, Tree]:
        """The program of a pass, and all that it takes besides the batch and what it learns."""
        fixed = self.fixed(batch.shapes)
        self.carried_before = {key: fixed[key] for key in batch.shapes.carried}
        return self._program(batch.shapes), fixed

    def _program(self, shapes: Shapes) -> Program:
        which = (shapes, self.net.policy)
        if which not in self._programs:
            self._programs[which] = self.mesh.program(
                *(shapes, self._keep, self.transformation, self._keep_steps, self.net.policy),
                tuple(self._updated.decayed),
            )
        return self._programs[which]

    def _history_slot(self, arrays: Sequence[ArrayLike]) -> Tree:
        slot: Tree = {}
        for (key, blob), array in zip(self.net.shapes.params.items(), arrays, strict=True):
            with blame(None, f'layer "{key.layer}"'):
                require(
                    array.size == np.prod(blob.shape, dtype=int),
                    f"the history of its {key.blob} is {text(array.shape)}, its shape "
                    f"{text(blob.shape)}",
                    WeightsError,
                )
            if key in self._updated.all:
                slot[key] = jnp.array(array.reshape(blob.shape), jnp.float32)
        return slot


def _cut(result: StepResult, batch: Batch) -> StepResult:
    """Cut the outputs of a pass to their valid regions."""
    bucket = replace(batch.bucket, exact=batch.shown)
    outputs = {name: bucket.cut(name, array) for name, array in result.outputs.items()}
    return result._replace(outputs=outputs)
