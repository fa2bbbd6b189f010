"""The training loop: Caffe's steps, its tests and snapshots on the way.

Caffe: ``Solver::Step``, ``Solver::Solve``, ``Solver::Test`` in ``solver.cpp``.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from netspec.errors import (
    LayerError,
    Place,
    SolverError,
    SourceError,
    blame,
    fail,
)
from netspec.formats import manifest
from netspec.formats.manifest import Manifest
from netspec.frontend.net_graph import graph_of
from netspec.frontend.prototxt import SolverText, read_solver
from netspec.frontend.upgrade import upgrade_solver
from netspec.layers.base import Array
from netspec.proto.solver_pb2 import SolverParameter
from netspec.runtime.module import Net
from netspec.runtime.size_buckets import SizeBuckets, as_shapes
from netspec.solving import settings
from netspec.solving.callback import Callback, Step
from netspec.solving.diagnosis.guard import Guard, Pending
from netspec.solving.distributed.mesh import Fed, Mesh
from netspec.solving.evaluation import Evaluation
from netspec.solving.schedules import check_end, schedule
from netspec.solving.snapshots import store
from netspec.solving.snapshots.capture import capture
from netspec.solving.snapshots.solverstate import check_writable
from netspec.solving.snapshots.store import Found, Store
from netspec.solving.step import Batch
from netspec.solving.testing import TestNets
from netspec.solving.trainer import Trainer, set_memory
from netspec.sources.fed_net import compile_net
from netspec.sources.feed import Feed
from netspec.weights.caffemodel import Copied, copy_into, read_weights
from netspec.weights.weights_hdf5 import require_hdf5_names


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
        callback: Callback | None = None,
        keep: int | None = None,
        skip_corrupt: bool = False,
        mesh: Mesh | None = None,
    ) -> None:
        """Build every net and open the training data; raises a NetSpecError.

        keep: how many snapshots stay on disk; None for all. skip_corrupt: leave out batches of
        files that cannot be read; test nets never do. mesh: the devices to train on: ``iter_size``
        is multiplied by their number.
        """
        self.mesh = mesh or Mesh()
        self.text = upgrade_solver(text)
        self.param: SolverParameter = self.text.message
        self.callback = callback or Callback()
        with self.text.blamed():
            settings.check(self.param)
            self.param.iter_size *= self.mesh.size
            self.rate = schedule(self.param)
            train, tests = settings.net_texts(self.text)
        seed = self.param.random_seed if self.param.random_seed >= 0 else _entropy()
        seed = self.mesh.agreed(seed)
        train_graph = self.mesh.prepare(graph_of(*train))
        self.feed = Feed(train_graph, seed, skip_corrupt=skip_corrupt, share=self.mesh.share)
        tops = as_shapes(self.mesh.agreed(self.feed.tops))
        self.net = compile_net(train_graph, tops, seed)
        graphs = [graph_of(*test) for test in tests]
        self.tests = TestNets(graphs, self.net, seed, self._say, self.mesh.local)
        self.mesh.check(self.net.shapes)
        with self.text.blamed():
            buckets = SizeBuckets(self.net, self._say)
            self.trainer = Trainer(self.net, self.param, seed, buckets, self.mesh)
        self.guard = Guard(self)
        self.store = Store(
            self.param.snapshot_prefix,
            ".h5" if self.param.snapshot_format == SolverParameter.HDF5 else "",
            keep,
            lambda paths: self.callback.snapshot(self, paths),
            lambda paths: self.callback.snapshot_written(self, paths),
            lambda failure: self.callback.warn(failure),
            self.mesh.first,
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
        for doubt in settings.doubts(self.text):
            self.callback.warn(doubt)

    @staticmethod
    def from_file(
        path: str | Path,
        callback: Callback | None = None,
        keep: int | None = None,
        skip_corrupt: bool = False,
        mesh: Mesh | None = None,
    ) -> Solver:
        """The solver of a prototxt file; raises a NetSpecError."""
        return Solver(read_solver(path), callback, keep, skip_corrupt, mesh)

    def load_weights(
        self, names: str, fc_to_conv: bool = False, skip_misfits: bool = False
    ) -> list[Copied]:
        """Fine-tune from weight files, comma-separated, by layer name; raises WeightsError.

        fc_to_conv, skip_misfits: as `copy_into` takes them.
        """
        copied = []
        for name in names.split(","):
            weights = read_weights(settings.find(self.text.file, name.strip()))
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
            settings.check_learns(self.net.graph, list(self.trainer.learned_specs))
            if writes and self.mesh.first:
                check_writable(self.param.snapshot_prefix)
            if writes and self.store.end:
                require_hdf5_names(self.net.shapes)
        with self.store.claimed() if writes and self.mesh.first else nullcontext():
            self._train(limit)

    def _train(self, limit: int) -> None:
        if settings.tests_before(self.param, self.iteration, limit):
            self.tests.check()
        self.feed.check(self.net.shapes)
        start = self.iteration
        try:
            self.step(limit - self.iteration)
        except (LayerError, SourceError):
            if self.iteration > start:
                self._snapshot_at_end()
            raise
        if self._ending and self.iteration == start:
            return
        self._snapshot_at_end()
        if self._ending:
            return
        if self._due(self.param.display):
            self._show_final_loss()
        if self._due(self.param.test_interval):
            self.test_all()

    def step(self, count: int) -> None:
        """Make ``count`` updates, or fewer if `stopping` is set meanwhile.

        Raises SolverError where a loss or a gradient is not finite: the net is then as it was
        before that update, and a snapshot of it written. Also where another process of the run
        is lost.
        """
        with self.mesh.needed(self._last_words):
            self._steps(count)

    def _steps(self, count: int) -> None:
        try:
            for _ in range(count):
                if self._due(self.param.test_interval) and (
                    self.iteration or self.param.test_initialization
                ):
                    self.guard.settle()
                    self._tested = self.iteration, self.tests.state()
                    self.test_all()
                if self._ending:
                    self.stopping = True
                    return
                self._update()
                self.store.settle(wait=False)
                due = self.param.snapshot and self.iteration % self.param.snapshot == 0
                if due or self.mesh.wants("snapshot", self.snapshot_wanted):
                    self.snapshot_wanted = False
                    self.guard.settle()
                    self.store.begin(capture(self))
            self.guard.settle()
        finally:
            self.store.settle(wait=True)
            # The arrays that the test nets had are gone: each update is made in place. Of those
            # that a device failed to make, it was told.
            with suppress(RuntimeError, ValueError):
                self.tests.share()

    def smoothed_loss(self) -> float:
        """The mean of the last ``average_loss`` losses."""
        return float(np.mean([np.asarray(loss) for loss in self.losses]))

    def test_all(self) -> None:
        """Run every test net on its data, unless `stopping` is set meanwhile."""
        for index, batches in enumerate(self.param.test_iter):
            if self._ending:
                return
            self.callback.testing(self, index)
            result = self.test(index)
            if result.batches == batches:
                self.callback.test(self, index, result)

    def test(self, index: int) -> Evaluation:
        """Run test net ``index`` for its ``test_iter`` batches, or fewer if `stopping` is set."""
        return self.tests.run(index, self.param.test_iter[index], lambda: self.stopping)

    @property
    def tests_stand(self) -> tuple[Mapping[str, Any], ...]:
        """Where the test nets stand for a run that goes on from here."""
        # A test that the run would make again, as it stops here, goes on from there.
        return self._tested[1] if self._tested[0] == self.iteration else self.tests.state()

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
            settings.check(self.param)
            self.rate = schedule(self.param)
            self.trainer.retune()

    def snapshot(self) -> tuple[Path, Path]:
        """Write weights and state; returns their paths. Raises SolverError if the disk will not."""
        self.guard.settle()
        return self.store.write(capture(self))

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
            found.require_type(self.param.type)
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
            with blame(Place(str(manifest.path_beside(found.path)))):
                self._go_on(found.record)

    def close(self) -> None:
        """Stop the threads that read data and write snapshots."""
        self.store.settle(wait=True)
        self.feed.close()
        self.tests.close()
        self.callback.close()

    def rewind(self, pending: Pending) -> None:
        """Be where an update found the solver that then failed, as its arrays are already."""
        self.iteration = pending.iteration
        self.data = pending.data
        self.losses = deque(pending.losses, self.losses.maxlen)
        self.net.assign(pending.statistics)
        self.trainer.recover()

    def _update(self) -> None:
        """One update; what came of it is looked at some steps later, when it is there."""
        wanted = {"stop": self.stopping, "snapshot": self.snapshot_wanted}
        fed = self.mesh.feed(self._fed, self.param.iter_size, wanted)
        batches = [self._batch(each) for each in fed]
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
        self.callback.step(self, Step(pending.iteration, micro.loss, micro.outputs, self.rate))
        self.guard.after(pending, micro)

    def _fed(self, micro: int) -> Fed:
        return Fed(micro, {**self.feed.next(self.net.shapes), **self._given()}, self.feed.current)

    def _batch(self, fed: Fed) -> Batch:
        moment = self.iteration * self.param.iter_size + fed.micro
        return self.trainer.batch(fed.feeds, moment, fed.files, fed.beside)

    @property
    def _ending(self) -> bool:
        return self.mesh.wants("stop", self.stopping)

    def _last_words(self) -> str:
        """What is saved of a run that ends as another process is lost."""
        # Those of updates under way never come.
        self.losses.clear()
        self.store.settle(wait=True)
        return self.store.saved()

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
        self.callback.say(line)

    def _due(self, interval: int) -> bool:
        return bool(interval and self.iteration % interval == 0)

    def _show_final_loss(self) -> None:
        """The loss after the last update, on one more batch, as Caffe tells it."""
        self.losses.append(self.trainer.loss(self._batch(self._fed(0))))
        self.callback.say(f"Iteration {self.iteration}, loss = {self.smoothed_loss():.6g}")

    def _snapshot_at_end(self) -> None:
        """Write what was learned, if that was asked for and is not on disk already."""
        written = self.mesh.agreed(self.store.newest) == self.iteration
        if self.param.snapshot_after_train and not written:
            self.snapshot()
            # No other leaves before it is written.
            self.mesh.agreed(None)

    def _go_on(self, found: Manifest) -> None:
        self.trainer.reseed(found.seed)
        self.net.policy = replace(self.net.policy, dtype=found.dtype)
        if found.home:
            self.trainer.buckets.unpadded = as_shapes(found.home)
        self.tests.seed = found.seed
        set_memory(self.net, found.memory)
        self.losses.extend(found.losses)
        try:
            self.feed.restore(found.data)
            self.tests.restore(found.tests)
        except SourceError as error:
            raise SourceError(f"{error}; to go on with other data, delete this file") from None
        self.data = found.data


def _entropy() -> int:
    return int.from_bytes(os.urandom(4), "little") >> 1
