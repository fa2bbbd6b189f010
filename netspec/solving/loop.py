"""The training loop: Caffe's steps, each one compiled program.

Caffe: ``Solver::Step``, ``Solver::Solve``, ``Solver::Test`` in ``solver.cpp``.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from netspec import build
from netspec.errors import Place, SolverError, SourceError, WeightsError, blame, fail, require
from netspec.layers.base import Array, text
from netspec.module import Net
from netspec.proto.solver_pb2 import SolverParameter
from netspec.prototxt import SolverText, read_solver
from netspec.runner import runnable
from netspec.shapes import ParamKey, Shapes
from netspec.solving import regime, updates
from netspec.solving.evaluation import Evaluation, evaluate
from netspec.solving.listener import Listener, Step
from netspec.solving.program import Micro, Program, accumulate, apply_update, whole_step
from netspec.solving.schedules import check_end, schedule, steps_taken
from netspec.solving.snapshot import (
    State,
    check_writable,
    find_weights,
    read_state,
    write_state,
)
from netspec.solving.updates import Tree
from netspec.sources.feed import Feed
from netspec.upgrade import upgrade_solver
from netspec.weights import Copied, copy_into, read_weights, write_weights


class Solver:
    """A net in training.

    net: the train net; its arrays are those of the last update. test_nets: the nets that
    `test` runs, on the same arrays. iteration: updates made so far. inputs: arrays for the blobs
    that Input layers of the train net make, if it has such; the caller sets them.
    stopping: set it, from a signal or a listener, and the run ends after the update under way.
    """

    def __init__(self, text: SolverText, listener: Listener | None = None) -> None:
        """Build every net and open the training data; raises a NetSpecError."""
        self.text = upgrade_solver(text)
        self.param: SolverParameter = self.text.message
        self.listener = listener or Listener()
        with blame(Place(text.file)):
            regime.check(self.param)
            self.rate = schedule(self.param)
            train, tests = regime.net_texts(self.text)
        self.seed = self.param.random_seed if self.param.random_seed >= 0 else _entropy()
        train_graph = build.graph_of(*train)
        self.feed = Feed(train_graph, self.seed)
        self.net = build.compile_net(train_graph, self.feed.tops, self.seed)
        self.keep: tuple[str, ...] = self.net.graph.outputs
        self.test_graphs = [build.graph_of(*test) for test in tests]
        self.iteration = 0
        self.losses: deque[Array] = deque(maxlen=self.param.average_loss)
        self.inputs: Mapping[str, Array] = {}
        self.outputs: Mapping[str, Array] = {}
        with blame(Place(text.file)):
            self.transformation = updates.transformation(self.param, self._learned_specs)
        self.state = self.transformation.init(self._learned())
        self.stopping = False
        for weights in self.param.weights:
            self.load_weights(weights)

    @staticmethod
    def from_file(path: str | Path, listener: Listener | None = None) -> Solver:
        """The solver of a prototxt file; raises a NetSpecError."""
        return Solver(read_solver(path), listener)

    def load_weights(self, names: str) -> list[Copied]:
        """Fine-tune from weight files, comma-separated, by layer name; raises WeightsError."""
        paths = [regime.find(self.text.file, name.strip()) for name in names.split(",")]
        return [copy_into(self.net, read_weights(path)) for path in paths]

    def solve(self, max_iter: int | None = None) -> None:
        """Train to the end, with tests and snapshots on the way and at the end.

        Raises, before the first update, what would end the run later: a SolverError if snapshots
        cannot be written or nothing can be learned, a SourceError if test data is missing. Data
        that fails on the way ends the run with a snapshot of what was learned.
        """
        limit = self.param.max_iter if max_iter is None else max_iter
        with blame(Place(self.text.file)):
            check_end(self.param, limit)
            regime.check_learns(self.net.graph, list(self._learned_specs))
            if self.param.snapshot or self.param.snapshot_after_train:
                check_writable(self.param.snapshot_prefix)
        if regime.tests_before(self.param, self.iteration, limit):
            _ = self.test_nets
        start = self.iteration
        try:
            self.step(limit - self.iteration)
        except SourceError:
            if self.iteration > start and self.param.snapshot_after_train:
                self.snapshot()
            raise
        every = self.param.snapshot
        if self.param.snapshot_after_train and (not every or self.iteration % every):
            self.snapshot()
        if not self.stopping and self._due(self.param.test_interval):
            self.test_all()

    def step(self, count: int) -> None:
        """Make ``count`` updates, or fewer if `stopping` is set meanwhile."""
        try:
            for _ in range(count):
                if self._due(self.param.test_interval) and (
                    self.iteration or self.param.test_initialization
                ):
                    self.test_all()
                if self.stopping:
                    return
                self._update()
                if self.param.snapshot and self.iteration % self.param.snapshot == 0:
                    self.snapshot()
        finally:
            # The arrays that the test nets had are gone: each update is made in place.
            for net in self.__dict__.get("test_nets", ()):
                self._share_with(net)

    def smoothed_loss(self) -> float:
        """The mean of the last ``average_loss`` losses."""
        return float(np.mean([np.asarray(loss) for loss in self.losses]))

    def test_all(self) -> None:
        """Run every test net on its data, unless `stopping` is set meanwhile."""
        for index, batches in enumerate(self.param.test_iter):
            if self.stopping:
                return
            self.listener.testing(self, index)
            result = self.test(index)
            if result.batches == batches:
                self.listener.test(self, index, result)

    def test(self, index: int) -> Evaluation:
        """Run test net ``index`` for its ``test_iter`` batches, or fewer if `stopping` is set."""
        net, batches = self.test_nets[index], self.param.test_iter[index]
        self._share_with(net)
        return evaluate(net, self.test_feeds[index], batches, lambda: self.stopping)

    @cached_property
    def test_nets(self) -> list[Net]:
        """The nets that `test` runs, built when first asked for."""
        feeds = zip(self.test_graphs, self.test_feeds, strict=True)
        return [build.compile_net(graph, feed.tops, self.seed) for graph, feed in feeds]

    @cached_property
    def test_feeds(self) -> list[Feed]:
        """The data of the test nets; each goes on where its last test ended, as Caffe's does."""
        return [Feed(graph, self.seed) for graph in self.test_graphs]

    def snapshot(self) -> tuple[Path, Path]:
        """Write weights and state; returns their paths. Raises SolverError if the disk will not."""
        end = ".h5" if self.param.snapshot_format == SolverParameter.HDF5 else ""
        stem = f"{self.param.snapshot_prefix}_iter_{self.iteration}"
        weights, state = Path(f"{stem}.caffemodel{end}"), Path(f"{stem}.solverstate{end}")
        arrays = self.net.arrays()
        rule = updates.rule_state(self.state)
        history = tuple(
            slot.get(key, jnp.zeros_like(array))
            for slot in rule.history
            for key, array in arrays.items()
        )
        steps = steps_taken(self.param, self.iteration)
        try:
            write_weights(weights, self.net.shapes, arrays)
            write_state(state, State(self.iteration, str(weights), history, steps))
        except OSError as error:
            raise SolverError(f"cannot write snapshot {stem}: {error.strerror or error}") from None
        self.listener.snapshot(self, (weights, state))
        return weights, state

    def restore(self, path: str | Path) -> None:
        """Go on from a .solverstate and the weights it names; raises WeightsError."""
        state = read_state(path)
        weights = read_weights(find_weights(state, path))
        rule = updates.rule_state(self.state)
        keys = list(self.net.shapes.params)
        with blame(Place(str(path))):
            require(
                len(state.history) == len(keys) * len(rule.history),
                f"holds {len(state.history)} history blobs; this solver keeps "
                f"{len(keys) * len(rule.history)}",
                WeightsError,
            )
            slots = tuple(
                self._history_slot(state.history[i * len(keys) : (i + 1) * len(keys)])
                for i in range(len(rule.history))
            )
        copy_into(self.net, weights)
        count = jnp.asarray(state.iteration, jnp.int32)
        self.state = updates.with_rule_state(self.state, updates.RuleState(count, slots))
        self.iteration = state.iteration
        self.losses.clear()

    def close(self) -> None:
        """Stop the threads that read data."""
        self.feed.close()
        for feed in self.__dict__.get("test_feeds", ()):
            feed.close()

    def _due(self, interval: int) -> bool:
        return bool(interval and self.test_graphs and self.iteration % interval == 0)

    def _update(self) -> None:
        iteration, learned = self.iteration, self._learned()
        fixed = {k: a for k, a in self.net.arrays().items() if k not in learned}
        if self.param.iter_size == 1:
            program, feeds, key = self._batch(0)
            step = runnable(self.net.graph, whole_step)
            micro, learned, self.state = step(program, fixed, learned, self.state, feeds, key)
        else:
            micro, learned, self.state = self._accumulated(fixed, learned)
        self.net.assign({**learned, **micro.statistics})
        self.outputs = micro.outputs
        self.losses.append(micro.loss)
        self.iteration += 1
        self.listener.step(self, Step(iteration, micro.loss, micro.outputs, self.rate))

    def _accumulated(self, fixed: Tree, learned: Tree) -> tuple[Micro, Tree, Any]:
        """``iter_size`` passes, their gradients summed; the loss is their mean."""
        total: Tree = {}
        losses = []
        for i in range(self.param.iter_size):
            program, feeds, key = self._batch(i)
            micro = runnable(self.net.graph, accumulate)(program, fixed, learned, total, feeds, key)
            total = micro.gradients
            fixed = {**fixed, **micro.statistics}
            losses.append(micro.loss)
        learned, state = apply_update(program, learned, self.state, total)
        loss = sum(losses[1:], losses[0]) / self.param.iter_size
        return micro._replace(loss=loss), learned, state

    def _batch(self, micro: int) -> tuple[Program, Mapping[str, Array], Array]:
        """The next batch on its way to the device, and the program for its shapes."""
        feeds: dict[str, Any] = {**self.feed.next(self.net.shapes), **self._given()}
        shapes = self.net.shapes_for({name: array.shape for name, array in feeds.items()})
        moment = self.iteration * self.param.iter_size + micro
        key = jax.random.fold_in(self._root_key, moment)
        return self._program(shapes), jax.device_put(feeds), key

    def _given(self) -> Mapping[str, Array]:
        """What the caller hands in for Input layers."""
        graph = self.net.graph
        missing = [name for name in graph.inputs if name not in self.inputs]
        if missing:
            fail(
                f"{graph.file}: nothing feeds the Input blobs {', '.join(missing)}; train on a "
                "data layer (one for TRAIN may stand beside the Input layer for TEST)",
                SolverError,
            )
        return {name: self.inputs[name] for name in graph.inputs}

    def _program(self, shapes: Shapes) -> Program:
        if (shapes, self.keep) not in self._programs:
            self._programs[shapes, self.keep] = Program(shapes, self.keep, self.transformation)
        return self._programs[shapes, self.keep]

    @cached_property
    def _programs(self) -> dict[tuple[Shapes, tuple[str, ...]], Program]:
        return {}

    @cached_property
    def _root_key(self) -> Array:
        return jax.random.key(self.seed)

    @cached_property
    def _learned_specs(self) -> dict[ParamKey, Any]:
        """The arrays that training changes: no gradient is computed for the others."""
        shapes = self.net.shapes
        return {
            key: spec
            for key, spec in shapes.param_specs.items()
            if spec.lr_mult and shapes.params[key].learned
        }

    def _learned(self) -> Tree:
        arrays = self.net.arrays()
        return {key: arrays[key] for key in self._learned_specs}

    def _history_slot(self, arrays: tuple[Any, ...]) -> Tree:
        slot: Tree = {}
        for (key, blob), array in zip(self.net.shapes.params.items(), arrays, strict=True):
            with blame(None, f'layer "{key.layer}"'):
                require(
                    array.size == np.prod(blob.shape, dtype=int),
                    f"the history of its {key.blob} is {text(array.shape)}, its shape "
                    f"{text(blob.shape)}",
                    WeightsError,
                )
            if key in self._learned_specs:
                slot[key] = jnp.array(array.reshape(blob.shape), jnp.float32)
        return slot

    def _share_with(self, net: Net) -> None:
        """Give a test net the train net's arrays, by layer name. Caffe: ``ShareTrainedLayersWith``.

        Raises SolverError where shapes differ.
        """
        arrays = self.net.arrays()
        mine = {
            (node.name, blob): arrays[key]
            for node, keys in zip(self.net.graph.nodes, self.net.shapes.keys, strict=True)
            for blob, key in keys.items()
        }
        shared = {}
        for node, keys in zip(net.graph.nodes, net.shapes.keys, strict=True):
            for blob, key in keys.items():
                if (node.name, blob) not in mine:
                    continue
                array, shape = mine[node.name, blob], net.shapes.params[key].shape
                with blame(node.place, node.who):
                    require(
                        array.shape == shape,
                        f"its {blob} is {text(shape)} in the test net, {text(array.shape)} in the "
                        "train net",
                        SolverError,
                    )
                shared[key] = array
        net.assign(shared)


def _entropy() -> int:
    return int.from_bytes(os.urandom(4), "little") >> 1
