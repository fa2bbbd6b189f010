"""The training loop: Caffe's steps, its tests and snapshots on the way.

Caffe: ``Solver::Step``, ``Solver::Solve``, ``Solver::Test`` in ``solver.cpp``.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from netspec import build, record
from netspec.errors import (
    LayerError,
    Place,
    SolverError,
    SourceError,
    WeightsError,
    blame,
    fail,
    require,
)
from netspec.frames import Frames, as_shapes
from netspec.layers.base import Array
from netspec.module import Net
from netspec.proto.solver_pb2 import SolverParameter
from netspec.prototxt import SolverText, read_solver
from netspec.record import Record
from netspec.solving import regime, store
from netspec.solving.evaluation import Evaluation
from netspec.solving.guard import Guard, Pending
from netspec.solving.listener import Listener, Step
from netspec.solving.schedules import check_end, schedule, steps_taken
from netspec.solving.snapshot import State, check_writable
from netspec.solving.store import Found, Store
from netspec.solving.testing import TestNets
from netspec.solving.trainer import Batch, Trainer, memory_lists, set_memory
from netspec.sources.feed import Feed
from netspec.upgrade import upgrade_solver
from netspec.weights import Copied, copy_into, read_weights, require_hdf5_names


class Solver:
    """A net in training.

    net: the train net; its arrays are those of the last update. test_nets: the nets that
    `test` runs, on the same arrays. iteration: updates made so far. inputs: arrays for the blobs
    that Input layers of the train net make, if it has such; the caller sets them. outputs: what
    the last update's pass made. data: where the train data stands after the last update.
    stopping: set it, from a signal or a listener, and the run ends after the update under way.
    snapshot_wanted: set it, and a snapshot is written after the update under way.
    """

    def __init__(
        self,
        text: SolverText,
        listener: Listener | None = None,
        keep: int | None = None,
        skip_corrupt: bool = False,
    ) -> None:
        """Build every net and open the training data; raises a NetSpecError.

        keep: how many snapshots stay on disk; None for all. skip_corrupt: leave out batches of
        files that cannot be read; test nets never do.
        """
        self.text = upgrade_solver(text)
        self.param: SolverParameter = self.text.message
        self.listener = listener or Listener()
        with self.text.blamed():
            regime.check(self.param)
            self.rate = schedule(self.param)
            train, tests = regime.net_texts(self.text)
        seed = self.param.random_seed if self.param.random_seed >= 0 else _entropy()
        train_graph = build.graph_of(*train)
        self.feed = Feed(train_graph, seed, skip_corrupt=skip_corrupt)
        self.net = build.compile_net(train_graph, self.feed.tops, seed)
        graphs = [build.graph_of(*test) for test in tests]
        self.tests = TestNets(graphs, self.net, seed, self._say)
        with self.text.blamed():
            self.trainer = Trainer(self.net, self.param, seed, Frames(self.net, self._say))
        self.guard = Guard(self)
        self.store = Store(
            self.param.snapshot_prefix,
            ".h5" if self.param.snapshot_format == SolverParameter.HDF5 else "",
            keep,
            lambda paths: self.listener.snapshot(self, paths),
            lambda paths: self.listener.snapshot_written(self, paths),
            lambda failure: self.listener.warn(failure),
        )
        self.iteration = 0
        self.data: Mapping[str, Any] = self.feed.state()
        self.losses: deque[Array | float] = deque(maxlen=self.param.average_loss)
        # The iteration last tested at, and where the test nets stood before.
        self._tested: tuple[int, tuple[Mapping[str, Any], ...]] = (-1, ())
        self.inputs: Mapping[str, Array] = {}
        self.outputs: Mapping[str, Array] = {}
        self.stopping = False
        self.snapshot_wanted = False
        for weights in self.param.weights:
            self.load_weights(weights)
        for doubt in regime.doubts(self.text):
            self.listener.warn(doubt)

    @staticmethod
    def from_file(
        path: str | Path,
        listener: Listener | None = None,
        keep: int | None = None,
        skip_corrupt: bool = False,
    ) -> Solver:
        """The solver of a prototxt file; raises a NetSpecError."""
        return Solver(read_solver(path), listener, keep, skip_corrupt)

    def load_weights(
        self, names: str, fc_to_conv: bool = False, skip_misfits: bool = False
    ) -> list[Copied]:
        """Fine-tune from weight files, comma-separated, by layer name; raises WeightsError.

        fc_to_conv, skip_misfits: as `copy_into` takes them.
        """
        copied = []
        for name in names.split(","):
            weights = read_weights(regime.find(self.text.file, name.strip()))
            copied.append(
                copy_into(self.net, weights, fc_to_conv=fc_to_conv, skip_misfits=skip_misfits)
            )
            self.tests.load(weights)
        self.tests.share()
        return copied

    def solve(self, max_iter: int | None = None) -> None:
        """Train to the end, with tests and snapshots on the way and at the end.

        Raises, before the first update, what would end the run later: a SolverError if snapshots
        cannot be written or nothing can be learned, a SourceError if test data is missing. Data
        that fails on the way, or does not fit the net, ends the run with a snapshot of what was
        learned.
        """
        limit = self.param.max_iter if max_iter is None else max_iter
        writes = bool(self.param.snapshot or self.param.snapshot_after_train)
        with self.text.blamed():
            check_end(self.param, limit)
            regime.check_learns(self.net.graph, list(self.trainer.learned_specs))
            if writes:
                check_writable(self.param.snapshot_prefix)
                if self.store.end:
                    require_hdf5_names(self.net.shapes)
        with self.store.claimed() if writes else nullcontext():
            self._train(limit)

    def _train(self, limit: int) -> None:
        if regime.tests_before(self.param, self.iteration, limit):
            self.tests.check()
        self.feed.check(self.net.shapes)
        start = self.iteration
        try:
            self.step(limit - self.iteration)
        except (LayerError, SourceError):
            if self.iteration > start:
                self._snapshot_at_end()
            raise
        if self.stopping and self.iteration == start:
            return
        self._snapshot_at_end()
        if self.stopping:
            return
        if self._due(self.param.display):
            self._show_final_loss()
        if self._due(self.param.test_interval):
            self.test_all()

    def step(self, count: int) -> None:
        """Make ``count`` updates, or fewer if `stopping` is set meanwhile.

        Raises SolverError where a loss or a gradient is not finite: the net is then as it was
        before that update, and a snapshot of it written.
        """
        try:
            for _ in range(count):
                if self._due(self.param.test_interval) and (
                    self.iteration or self.param.test_initialization
                ):
                    self.guard.settle()
                    self._tested = self.iteration, self.tests.state()
                    self.test_all()
                if self.stopping:
                    return
                self._update()
                self.store.settle(wait=False)
                due = self.param.snapshot and self.iteration % self.param.snapshot == 0
                if due or self.snapshot_wanted:
                    self.snapshot_wanted = False
                    self.guard.settle()
                    self.store.begin(self._snapshot())
            self.guard.settle()
        finally:
            self.store.settle(wait=True)
            # The arrays that the test nets had are gone: each update is made in place.
            self.tests.share()

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
        return self.tests.run(index, self.param.test_iter[index], lambda: self.stopping)

    @property
    def test_nets(self) -> list[Net]:
        """The nets that `test` runs, built when first asked for."""
        return self.tests.nets

    @property
    def seed(self) -> int:
        """What all randomness starts from."""
        return self.trainer.seed

    def retune(self) -> None:
        """Heed what was changed in `param`; raises SolverError."""
        with self.text.blamed():
            regime.check(self.param)
            self.rate = schedule(self.param)
            self.trainer.retune()

    def snapshot(self) -> tuple[Path, Path]:
        """Write weights and state; returns their paths. Raises SolverError if the disk will not."""
        self.guard.settle()
        return self.store.write(self._snapshot())

    def restore(self, path: str | Path) -> None:
        """Go on from a .solverstate and the weights it names; raises WeightsError.

        From a snapshot of netspec's the run goes on as if it had never stopped; from Caffe's files
        as Caffe does, its data from the beginning.
        """
        self.take(store.read(path))

    def take(self, found: Found) -> None:
        """Go on from a snapshot that was read; raises WeightsError where it does not fit."""
        state = found.state
        with blame(Place(str(found.path))):
            self._require_same_type(found)
            history = self.trainer.history_of(state.history)
        copy_into(self.net, found.weights)
        self.trainer.restore(state.iteration, history)
        self.iteration = state.iteration
        self.losses.clear()
        self.guard.forget()
        self.store.go_on_from(found.path, state.iteration)
        self._tested = (-1, ())
        self.tests.share()
        if found.record is not None:
            with blame(Place(str(record.beside(found.path)))):
                self._go_on(found.record)

    def close(self) -> None:
        """Stop the threads that read data and write snapshots."""
        self.store.settle(wait=True)
        self.feed.close()
        self.tests.close()
        self.listener.close()

    def rewind(self, pending: Pending) -> None:
        """Be where an update found the solver that then failed, as its arrays are already."""
        self.iteration = pending.iteration
        self.data = pending.data
        self.losses = deque(pending.losses, self.losses.maxlen)
        self.net.assign(pending.statistics)
        self.trainer.recover()

    def _update(self) -> None:
        """One update; what came of it is looked at some steps later, when it is there."""
        batches = [self._batch(i) for i in range(self.param.iter_size)]
        pending = Pending(
            self.iteration,
            batches,
            self.data,
            tuple(self.losses),
            self.trainer.statistics(batches[0].shapes),
        )
        self.guard.before(pending)
        micro = self.trainer.update(batches)
        self.data = self.feed.state()
        self.outputs = micro.outputs
        self.losses.append(micro.loss)
        self.iteration += 1
        step = Step(pending.iteration, micro.loss, micro.outputs, self.rate)
        self.listener.step(self, step)
        self.guard.after(pending, micro)

    def _batch(self, micro: int) -> Batch:
        feeds = {**self.feed.next(self.net.shapes), **self._given()}
        moment = self.iteration * self.param.iter_size + micro
        return self.trainer.batch(feeds, moment, self.feed.current)

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

    def _say(self, line: str) -> None:
        self.listener.say(line)

    def _due(self, interval: int) -> bool:
        return bool(interval and self.iteration % interval == 0)

    def _show_final_loss(self) -> None:
        """The loss after the last update, on one more batch, as Caffe tells it."""
        self.losses.append(self.trainer.loss(self._batch(0)))
        self.listener.say(f"Iteration {self.iteration}, loss = {self.smoothed_loss():.6g}")

    def _snapshot_at_end(self) -> None:
        """Write what was learned, if that was asked for and is not on disk already."""
        if self.param.snapshot_after_train and self.store.newest != self.iteration:
            self.snapshot()

    def _require_same_type(self, found: Found) -> None:
        was = found.record.solver if found.record else self.param.type
        require(
            was == self.param.type,
            f"was written with type {was}, whose history means nothing to {self.param.type}; to "
            f"start from what it learned, load its weights, {found.weights.file} (--weights)",
            WeightsError,
        )

    def _go_on(self, found: Record) -> None:
        self.trainer.reseed(found.seed)
        self.net.manner = replace(self.net.manner, dtype=found.dtype)
        if found.home:
            self.trainer.frames.home = as_shapes(found.home)
        self.tests.seed = found.seed
        set_memory(self.net, found.memory)
        self.losses.extend(found.losses)
        try:
            self.feed.restore(found.data)
            self.tests.restore(found.tests)
        except SourceError as error:
            raise SourceError(f"{error}; to go on with other data, delete this file") from None
        self.data = found.data

    def _snapshot(self) -> store.Snapshot:
        return store.Snapshot(
            self.net.shapes,
            self.net.arrays(),
            self.trainer.diffs() if self.param.snapshot_diff else None,
            State(
                self.iteration,
                "",
                self.trainer.history(),
                steps_taken(self.param, self.iteration),
            ),
            Record(
                iteration=self.iteration,
                seed=self.trainer.seed,
                solver=self.param.type,
                written=time.time(),
                losses=tuple(float(loss) for loss in self.losses),
                data=self.data,
                # A test that the run would make again, as it stops here, goes on from there.
                tests=self._tested[1] if self._tested[0] == self.iteration else self.tests.state(),
                memory=memory_lists(self.net),
                home=self.trainer.frames.home,
                dtype=self.net.manner.dtype,
            ),
        )


def _entropy() -> int:
    return int.from_bytes(os.urandom(4), "little") >> 1
