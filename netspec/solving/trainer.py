"""A net and its update rule: batches in, updates out, a compiled program for each shape of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
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
from netspec.solving.distributed.mesh import Mesh
from netspec.solving.step import (
    Batch,
    Learner,
    Micro,
    Program,
    accumulate,
    apply_update,
    loss_of,
    whole_step,
)
from netspec.solving.updates import Tree

ArrayLike = np.ndarray | Array


class Trainer:
    """Takes steps.

    net: holds the arrays that change. keep: the blobs that a step hands out; all steps of one
    ``keep`` share their programs. keep_steps: whether each step hands out its updates.
    on_gradients: is given the summed gradients before each update, and returns what to take.
    """

    def __init__(
        self,
        net: Net,
        param: SolverParameter,
        seed: int,
        buckets: SizeBuckets | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        """seed: what randomness in the net starts from. frames: of the batches to come.

        mesh: the devices that take the steps. Raises SolverError.
        """
        self.mesh = mesh or Mesh()
        self.net = net
        self.param = param
        self.buckets = buckets or SizeBuckets(net)
        self.reseed(seed)
        self.keep: tuple[str, ...] = net.graph.outputs
        self.keep_steps = param.snapshot_diff
        self.on_gradients: Callable[[Tree], Tree] | None = None
        self.steps: Tree = {}
        self.transformation = updates.transformation(param, self.learned_specs)
        self.state = self.transformation.init(self.learned())
        self.recover()
        self._programs: dict[tuple[Any, ...], Program] = {}
        self._last: Batch | None = None

    def reseed(self, seed: int) -> None:
        """Start what is random in the net from ``seed``."""
        self.seed = seed
        self._root_key = jax.random.key(seed)

    @cached_property
    def learned_specs(self) -> dict[ParamKey, Any]:
        """The arrays that training changes: no gradient is computed for the others."""
        shapes = self.net.shapes
        return {
            key: spec
            for key, spec in shapes.param_specs.items()
            if spec.lr_mult and shapes.params[key].learned
        }

    def learned(self) -> Tree:
        """The arrays that training changes."""
        arrays = self.net.arrays()
        return {key: arrays[key] for key in self.learned_specs}

    def fixed(self, shapes: Shapes) -> Tree:
        """All else that a run at these shapes needs: frozen arrays, and what layers remember."""
        frozen = {k: a for k, a in self.net.arrays().items() if k not in self.learned_specs}
        return {**frozen, **self.net.carried_for(shapes)}

    def statistics(self, shapes: Shapes) -> Tree:
        """What layers keep from run to run by themselves."""
        kept = {key for key, blob in self.net.shapes.params.items() if not blob.learned}
        return {k: a for k, a in self.fixed(shapes).items() if k in kept or k in shapes.carried}

    def params(self, shapes: Shapes) -> Tree:
        """All that a run at these shapes needs, for one device."""
        return self.mesh.local({**self.learned(), **self.fixed(shapes)})

    def batch(
        self, feeds: Mapping[str, Any], moment: int, files: str, beside: Sequence[Given] = ()
    ) -> Batch:
        """A batch on its way to the device; moment: which pass of the run it is for.

        beside: the shapes of what the devices take at the same time, where there are several.
        """
        bucket = self.buckets.bucket(feeds, beside)
        arrays, sizes = self.mesh.upload((dict(bucket.feeds), bucket.sizes))
        key = jax.random.fold_in(self._root_key, moment)
        shown = self.net.shapes_for(beside[-1]) if beside else bucket.exact
        return Batch(replace(bucket, feeds=arrays, sizes=sizes), key, files, shown)

    def update(self, batches: Sequence[Batch]) -> Micro:
        """One update by the mean gradient of these batches; their mean loss, the last's outputs."""
        self._settle()
        learner = Learner(self.learned(), self.state)
        passes = self.mesh.passes(batches)
        self._last = passes[-1]
        if len(passes) == 1 and self.on_gradients is None:
            micro, learner = self._whole(passes[0], learner)
        else:
            micro, learner = self._accumulated(passes, learner)
        self.net.assign({**learner.arrays, **micro.statistics})
        self.state, self.healthy = learner.state, micro.healthy
        if self.keep_steps:
            self.steps = micro.gradients
        return micro

    def apply(self, gradients: Tree, iteration: int) -> None:
        """One update by gradients from elsewhere, as after ``iteration`` updates; it counts none.

        Raises SolverError where they are not finite: nothing is changed then.
        """
        program = self._program(self.net.shapes)
        learner, steps, healthy = apply_update(
            program,
            Learner(self.learned(), self.state),
            self.healthy,
            jnp.zeros(()),
            gradients,
        )
        self.net.assign(learner.arrays)
        history = updates.rule_state(learner.state).history
        self.restore(iteration, history)
        require(healthy, "the diffs are not finite; nothing is updated", SolverError)
        if self.keep_steps:
            self.steps = steps

    def retune(self) -> None:
        """Heed a change of the solver's settings; its type stays."""
        self.transformation = updates.transformation(self.param, self.learned_specs)
        self._programs.clear()

    def loss(self, batch: Batch) -> float:
        """The loss on a batch; nothing changes but what layers keep from run to run."""
        loss, statistics = runnable(self.net.graph, loss_of)(
            batch.shapes,
            self.net.policy,
            self.params(batch.shapes),
            batch.bucket.feeds,
            batch.key,
            batch.bucket.sizes,
        )
        # Processes that keep what they saw alone would go different ways.
        if self.mesh.peers.processes == 1:
            self.net.assign(statistics)
        return float(loss)

    def arrays(self) -> Mapping[ParamKey, ArrayLike]:
        """Every learned array of the net, for the host to read."""
        return self.mesh.fetched(self.net.arrays())

    def program_bytes(self) -> int | None:
        """What the last pass's program takes at its peak, if there was one and XLA says."""
        if self._last is None or self.net.graph.data_dependent:
            return None
        batch, learner = self._last, Learner(self.learned(), self.state)
        program, fixed = self._program(batch.shapes), self.fixed(batch.shapes)
        fed = (batch.bucket.feeds, batch.key, batch.bucket.sizes)
        # What is compiled already is not compiled again.
        if self.param.iter_size > self.mesh.size:
            lowered = accumulate.lower(program, fixed, learner, learner.arrays, *fed)
        else:
            lowered = whole_step.lower(program, fixed, learner, self.healthy, *fed)
        return of_program(lowered.compile())

    def history(self) -> tuple[ArrayLike, ...]:
        """The rule's arrays as a .solverstate lists them; zeros for what training leaves alone."""
        rule, arrays = updates.rule_state(self.state), self.net.arrays()
        return tuple(
            self.mesh.fetched(slot[key]) if key in slot else np.zeros(array.shape, np.float32)
            for slot in rule.history
            for key, array in arrays.items()
        )

    def history_of(self, arrays: Sequence[ArrayLike]) -> tuple[Tree, ...]:
        """What `history` gave, for the arrays that training changes; raises WeightsError."""
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
        """Be as after ``iteration`` updates that left this history."""
        count = jnp.asarray(iteration, jnp.int32)
        self.state = updates.with_rule_state(self.state, updates.RuleState(count, history))
        self.recover()

    def recover(self) -> None:
        """Take steps again after one that was not healthy; all before it stands."""
        self.healthy = jnp.asarray(True)
        self.steps = {}

    def finite(self) -> bool:
        """Whether all learned arrays and all that the rule keeps of them are."""
        leaves = jax.tree.leaves((self.learned(), self.state))
        return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves)

    def diffs(self) -> dict[ParamKey, ArrayLike]:
        """What Caffe calls the diffs after an update: the steps taken, downhill positive."""
        return {
            key: -self.mesh.fetched(self.steps[key])
            if key in self.steps
            else np.zeros(array.shape, np.float32)
            for key, array in self.net.arrays().items()
        }

    def _settle(self) -> None:
        """Bring what steps need to where they are taken, if it is not there."""
        if self.mesh.size == 1:
            return
        arrays, placed = self.net.arrays(), self.mesh.placed
        learned = self.learned()
        rest = {key: array for key, array in arrays.items() if key not in learned}
        self.net.assign({**placed(learned, learned=True), **placed(rest)})
        self.state, self.healthy = placed(self.state, learned=True), placed(self.healthy)

    def _whole(self, batch: Batch, learner: Learner) -> tuple[Micro, Learner]:
        step = runnable(self.net.graph, whole_step)
        micro, learner = step(
            self._program(batch.shapes),
            self.fixed(batch.shapes),
            learner,
            self.healthy,
            batch.bucket.feeds,
            batch.key,
            batch.bucket.sizes,
        )
        return _cut(micro, batch), learner

    def _accumulated(self, batches: Sequence[Batch], learner: Learner) -> tuple[Micro, Learner]:
        passes = runnable(self.net.graph, accumulate)
        total: Tree = {}
        losses = []
        for batch in batches:
            program, fixed = self._program(batch.shapes), self.fixed(batch.shapes)
            micro: Micro = passes(
                program, fixed, learner, total, batch.bucket.feeds, batch.key, batch.bucket.sizes
            )
            total = micro.gradients
            self.net.assign(micro.statistics)
            losses.append(micro.loss)
        if self.on_gradients is not None:
            total = self.on_gradients(total)
        loss = sum(losses[1:], losses[0]) / len(losses)
        learner, steps, healthy = apply_update(program, learner, self.healthy, loss, total)
        micro = _cut(micro, batch)
        return micro._replace(loss=loss, gradients=steps, healthy=healthy), learner

    def _program(self, shapes: Shapes) -> Program:
        which = (shapes, self.keep, self.keep_steps, self.net.policy)
        if which not in self._programs:
            self._programs[which] = self.mesh.program(
                shapes, self.keep, self.transformation, self.keep_steps, self.net.policy
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
            if key in self.learned_specs:
                slot[key] = jnp.array(array.reshape(blob.shape), jnp.float32)
        return slot


def _cut(micro: Micro, batch: Batch) -> Micro:
    """The outputs of a pass in their own sizes."""
    bucket = replace(batch.bucket, exact=batch.shown)
    outputs = {name: bucket.cut(name, array) for name, array in micro.outputs.items()}
    return micro._replace(outputs=outputs)


def memory_lists(net: Net) -> dict[str, dict[str, Any]]:
    """What layers remember and no weight file holds: layer -> name -> nested lists."""
    return {
        layer: {name: np.asarray(held[...]).tolist() for name, held in arrays.items()}
        for layer, arrays in net.carried.items()
    }


def set_memory(net: Net, memory: Mapping[str, Mapping[str, Any]]) -> None:
    """Set what `memory_lists` gave; raises WeightsError where the net has no such."""
    for layer, arrays in memory.items():
        for name, values in arrays.items():
            key = ParamKey(layer, name)
            require(
                key in net.shapes.carried,
                f"remembers {key}, which the net does not have",
                WeightsError,
            )
            net.assign({key: jnp.asarray(values, jnp.float32)})
