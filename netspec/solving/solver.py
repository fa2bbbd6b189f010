"""The training loop: updates, with tests and snapshots on the way.

Caffe: ``Solver::Step``, ``Solver::Solve``, ``Solver::Test`` in ``solver.cpp``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from netspec.errors import LayerError, Place, SourceError, blame
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
from netspec.solving.callback import TrainingStep
from netspec.solving.diagnosis.guard import Guard, Pending
from netspec.solving.evaluation import Evaluation
from netspec.solving.options import SolverOptions
from netspec.solving.requests import Requests
from netspec.solving.schedules import check_end, schedule
from netspec.solving.snapshots import store
from netspec.solving.snapshots.capture import capture
from netspec.solving.snapshots.store import Found, Store
from netspec.solving.testing import TestNets
from netspec.solving.trainer import Trainer
from netspec.solving.update_feed import UpdateFeed
from netspec.sources.fed_net import compile_net
from netspec.sources.feed import Feed
from netspec.weights.caffemodel import Copied, copy_into, read_weights


class Solver:
    """A net in training.

    net: the train net; its arrays are those of the last update. test_nets: the nets that `test`
    runs, on the same arrays. iteration: updates made so far. losses: the last ``average_loss``
    losses. outputs: the blobs that the last update's pass handed out. data: the position in the
    train data after the last update.
    """

    def __init__(self, text: SolverText, options: SolverOptions | None = None) -> None:
        """Build every net and open the training data; raises a NetSpecError."""
        options = options or SolverOptions()
        self.mesh, self.callback = options.mesh, options.callback
        self.text = upgrade_solver(text)
        self.param: SolverParameter = self.text.message
        with self.text.blamed():
            settings.check(self.param)
            self.param.iter_size *= self.mesh.size
            self.rate = schedule(self.param)
            train, tests = settings.net_texts(self.text)
        seed = self.mesh.agreed(settings.seed(self.param))
        graph = self.mesh.prepare(graph_of(*train))
        self.feed = Feed(graph, seed, skip_corrupt=options.skip_corrupt, share=self.mesh.share)
        self.net = compile_net(graph, as_shapes(self.mesh.agreed(self.feed.tops)), seed)
        self.net.policy = options.policy
        graphs = [graph_of(*test) for test in tests]
        self.tests = TestNets(graphs, self.net, seed, self.callback.say, self.mesh.sharding.local)
        self.mesh.check(self.net.shapes)
        with self.text.blamed():
            buckets = SizeBuckets(self.net, self.callback.say)
            self.trainer = Trainer(self.net, self.param, seed, buckets, self.mesh, options.keep_all)
        self.store = self._open_store(options.keep)
        self.guard = Guard(self, options.debug_nans)
        self._update_feed = UpdateFeed(self.feed, self.trainer)
        self.iteration = 0
        self.data: Mapping[str, Any] = self.feed.state()
        self.losses: deque[Array | float] = deque(maxlen=self.param.average_loss)
        self.outputs: Mapping[str, Array] = {}
        self._requests = Requests(self.mesh)
        for weights in self.param.weights:
            self.load_weights(weights)
        for doubt in settings.doubts(self.text):
            self.callback.warn(doubt)

    @staticmethod
    def from_file(path: str | Path, options: SolverOptions | None = None) -> Solver:
        """The solver of a prototxt file; raises a NetSpecError."""
        return Solver(read_solver(path), options)

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
            settings.check_learns(self.net.shapes, list(self.trainer.learned_specs))
            if writes:
                self.store.check(self.net.shapes)
        with self.store.claimed() if writes else nullcontext():
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
        if self._requests.ends and self.iteration == start:
            return
        self._snapshot_at_end()
        if self._requests.ends:
            return
        if self._due(self.param.display):
            # Of one more batch, as Caffe does.
            self.losses.append(self.trainer.loss(self._update_feed.one(self.iteration)))
            self.callback.say(f"Iteration {self.iteration}, loss = {self.smoothed_loss():.6g}")
        if self._due(self.param.test_interval):
            self.test_all()

    def set_inputs(self, arrays: Mapping[str, Array]) -> None:
        """Feed these to the blobs of the train net's Input layers, by name, from now on."""
        self._update_feed.set_inputs(arrays)

    def stop(self) -> None:
        """End the run after the update under way; a signal or a callback may call this."""
        self._requests.stop()

    @property
    def stopping(self) -> bool:
        """Whether the run is to end after the update under way."""
        return self._requests.stopping

    def request_snapshot(self) -> None:
        """Write a snapshot after the update under way; a signal or a callback may call this."""
        self._requests.snapshot()

    def step(self, count: int) -> None:
        """Make ``count`` updates, or fewer if `stop` is called meanwhile.

        Raises SolverError where another process is lost, or a loss or a gradient is not finite: the
        net is then as it was before that update, and a snapshot of it written.
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
                    self.tests.about_to_run(self.iteration)
                    self.test_all()
                if self._requests.ends:
                    self.stop()
                    return
                self._update()
                self.store.settle(wait=False)
                if self._requests.takes_snapshot(due=self._due(self.param.snapshot)):
                    self.guard.settle()
                    self.store.begin(capture(self))
            self.guard.settle()
        finally:
            self.store.settle(wait=True)
            # The arrays that the test nets had are gone: each update is made in place. Where a
            # device failed to make new ones, the error was raised already.
            with suppress(RuntimeError, ValueError):
                self.tests.share()

    def smoothed_loss(self) -> float:
        """The mean of the last ``average_loss`` losses."""
        return float(np.mean([np.asarray(loss) for loss in self.losses]))

    def test_all(self) -> None:
        """Run every test net on its data, unless `stop` is called meanwhile."""
        for index, batches in enumerate(self.param.test_iter):
            if self._requests.ends:
                return
            self.callback.testing(self, index)
            result = self.test(index)
            if 0 < batches == result.batches:
                self.callback.test(self, index, result)

    def test(self, index: int) -> Evaluation:
        """Run test net ``index`` for its ``test_iter`` batches, or fewer after `stop`."""
        return self.tests.run(index, self.param.test_iter[index], lambda: self.stopping)

    @property
    def newest_snapshot(self) -> int | None:
        """The iteration of the last snapshot that was written."""
        return self.store.newest

    @property
    def test_nets(self) -> list[Net]:
        """The nets that `test` runs, built when first asked for."""
        return self.tests.nets

    @property
    def seed(self) -> int:
        """The number that all randomness starts from."""
        return self.trainer.seed

    def retune(self) -> None:
        """Re-read `param`, after a change of its settings; raises SolverError."""
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

    def take(self, found: Found, dtype: str | None = None) -> None:
        """Go on from a snapshot that was read; raises WeightsError where it does not fit.

        dtype: what to compute in, if not in what the snapshot's run did: see `ComputePolicy`.
        """
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
        self.tests.forget_tests()
        self.tests.share()
        if found.manifest is not None:
            with blame(Place(str(manifest.path_beside(found.path)))), manifest.applied():
                self._go_on(found.manifest)
        if dtype is not None:
            self.net.policy = replace(self.net.policy, dtype=dtype)

    def close(self) -> None:
        """Stop the threads that read data and write snapshots."""
        self.store.settle(wait=True)
        self.feed.close()
        self.tests.close()
        self.callback.close()

    def rewind(self, pending: Pending) -> None:
        """Go back to before an update that failed, as the arrays already are."""
        self.iteration = pending.iteration
        self.data = pending.data
        self.losses = deque(pending.losses, self.losses.maxlen)
        self.net.assign(pending.statistics)
        self.trainer.recover()

    def _update(self) -> None:
        """Make one update; the guard looks at its result some steps later, when it is there."""
        batches = self._update_feed.batches(self.iteration, self._requests.wanted)
        pending = Pending(
            self.iteration,
            batches,
            self.data,
            tuple(self.losses),
            self.trainer.statistics(batches[0].shapes),
        )
        self.guard.before(pending)
        result = self.trainer.update(batches)
        self.data = self.feed.state()
        self.outputs = result.outputs
        self.losses.append(result.loss)
        self.iteration += 1
        step = TrainingStep(pending.iteration, result.loss, result.outputs, self.rate)
        self.callback.step(self, step)
        self.guard.after(pending, result)

    def _last_words(self) -> str:
        """Say what is saved of a run that ends because another process is lost."""
        # The losses of updates under way never come.
        self.losses.clear()
        return self.store.saved()

    def _due(self, interval: int) -> bool:
        return bool(interval and self.iteration % interval == 0)

    def _snapshot_at_end(self) -> None:
        """Write what was learned, if that was asked for and is not on disk already."""
        written = self.mesh.agreed(self.store.newest) == self.iteration
        if self.param.snapshot_after_train and not written:
            self.snapshot()
            # No other leaves before it is written.
            self.mesh.agreed(None)

    def _go_on(self, found: Manifest) -> None:
        self.trainer.resume(found.seed, as_shapes(found.home), found.memory)
        self.net.policy = replace(self.net.policy, dtype=found.dtype)
        self.losses.extend(found.losses)
        try:
            self.feed.restore(found.data)
            self.tests.restore(found.tests, found.seed)
        except SourceError as error:
            raise SourceError(f"{error}; to go on with other data, delete this file") from None
        self.data = found.data

    def _open_store(self, keep: int | None) -> Store:
        return Store(
            self.param,
            keep,
            lambda paths: self.callback.snapshot(self, paths),
            lambda paths: self.callback.snapshot_written(self, paths),
            self.callback.warn,
            self.mesh.first,
        )
