"""Watches a run: numbers that are not finite, a loss that does not move, Caffe's debug_info.

The host looks at a step's health some steps later, so that the device never waits for it. Until
then it holds the step's batch, and a step that is not finite leaves the arrays as they were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from netspec.errors import SolverError, fail
from netspec.layers.base import Array
from netspec.proto.solver_pb2 import SolverParameter
from netspec.solving.callback import Callback
from netspec.solving.diagnosis.debug_info import debug_info_lines
from netspec.solving.diagnosis.measure import Look, look
from netspec.solving.diagnosis.not_finite import culprit
from netspec.solving.diagnosis.stuck import StuckWatch, why_stuck
from netspec.solving.step import Batch, StepResult
from netspec.solving.trainer import Trainer
from netspec.solving.updates import Tree

# How many steps may be under way before the host waits for the first: their batches stay in memory.
_UNDER_WAY = 2


@dataclass(frozen=True)
class Pending:
    """An update, and the state of the solver before it.

    data: the position in the train data. statistics: running statistics and carried state.
    """

    iteration: int
    batches: Sequence[Batch]
    data: Mapping[str, Any]
    losses: Sequence[Array | float]
    statistics: Tree


class Agreement(Protocol):
    """The processes of a run, as far as all must say the same of what went wrong: see `Mesh`."""

    def agreed(self, value: Any) -> Any:
        """What process 0 says."""

    def found_by_any(self, value: Any) -> Any:
        """The first of what the processes say that is not empty."""


class WatchedRun(Protocol):
    """What `Guard` needs of a solver: see `Solver` for what each means."""

    @property
    def param(self) -> SolverParameter:
        """Its settings."""

    @property
    def callback(self) -> Callback:
        """Is told what happens."""

    @property
    def trainer(self) -> Trainer:
        """Makes the updates."""

    @property
    def mesh(self) -> Agreement:
        """The processes that take part."""

    @property
    def iteration(self) -> int:
        """Updates made so far."""

    @property
    def newest_snapshot(self) -> int | None:
        """The iteration of the last snapshot that was written."""

    def rewind(self, pending: Pending) -> None:
        """Go back to before an update."""

    def snapshot(self) -> tuple[Path, Path]:
        """Write a snapshot; returns its paths."""


class Guard:
    """Watches the updates of a solver."""

    def __init__(self, solver: WatchedRun, debug_nans: bool = False) -> None:
        """debug_nans: look at every blob and gradient before each update, in a second pass."""
        self.solver = solver
        self._debug_nans = debug_nans
        self._waiting: deque[tuple[Pending, StepResult]] = deque()
        self._watch = StuckWatch()

    def before(self, pending: Pending) -> None:
        """Look at an update that is about to be made, if `debug_nans` or debug_info asks for it."""
        param = self.solver.param
        if self._debug_nans:
            self.settle()
            found = self._culprit(pending)
            if found is not None:
                self._stop(pending, found)
        if param.debug_info and param.display and pending.iteration % param.display == 0:
            batch = pending.batches[-1].alone
            for line in debug_info_lines(self._look(batch, self._params(batch)), batch.shapes):
                self.solver.callback.say(line)

    def after(self, pending: Pending, result: StepResult) -> None:
        """Watch an update under way; raises SolverError for an earlier one that failed."""
        self._waiting.append((pending, result))
        while len(self._waiting) > _UNDER_WAY:
            self._confirm(*self._waiting.popleft())
        if self._watch.due(pending.iteration):
            self._warn_if_stuck(pending.batches[0].alone, float(result.loss))

    def settle(self) -> None:
        """Wait for all updates; raises SolverError for one that failed."""
        while self._waiting:
            self._confirm(*self._waiting.popleft())

    def forget(self) -> None:
        """The solver was set to another state."""
        self._waiting.clear()

    def _confirm(self, pending: Pending, result: StepResult) -> None:
        if not bool(result.healthy):
            self._stop(pending, None)

    def _stop(self, pending: Pending, found: str | None) -> NoReturn:
        """Rewind the solver to before the update, save that, and say what went wrong."""
        solver = self.solver
        self._waiting.clear()
        solver.rewind(pending)
        found = found or self._culprit(pending)
        files = ", ".join(dict.fromkeys(batch.files for batch in pending.batches if batch.files))
        fail(
            f"iteration {pending.iteration}: not finite: {found or self._update()}"
            + (f"; the batch is {files}" if files else "")
            # The other processes wait for it.
            + f"; {solver.mesh.agreed(self._saved())}",
            SolverError,
        )

    def _culprit(self, pending: Pending) -> str | None:
        """The first of the batches' blobs and gradients that is not finite."""
        found: str | None = self.solver.mesh.found_by_any(self._own_culprit(pending))
        return found

    def _own_culprit(self, pending: Pending) -> str | None:
        """The same, of the batches that this process took."""
        for batch in (batch.alone for batch in pending.batches):
            params = self._params(batch)
            look = self._look(batch, params)
            found = culprit(look, batch.shapes, params, batch.bucket.feeds, batch.key)
            if found is not None:
                return found
        return None

    def _update(self) -> str:
        param = self.solver.param
        return (
            "the update, though loss and gradients are finite: look at base_lr "
            f"{param.base_lr:g} and the other settings of type {param.type}, and whether the "
            "history is of such a solver"
        )

    def _params(self, batch: Batch) -> Tree:
        return self.solver.trainer.params(batch.shapes)

    def _look(self, batch: Batch, params: Tree) -> Look:
        learned = self.solver.trainer.learned_specs
        return look(batch.shapes, params, learned, batch.bucket.feeds, batch.key)

    def _saved(self) -> str:
        """Write a snapshot of what was learned until now, if the solver writes any; says where."""
        solver = self.solver
        newest = solver.mesh.agreed(solver.newest_snapshot)
        if newest == solver.iteration > 0:
            return "all before it is in the last snapshot"
        if not (solver.param.snapshot or solver.param.snapshot_after_train):
            return "what was learned is not saved, as the solver writes no snapshots"
        if not solver.iteration:
            return "nothing was learned before"
        if not solver.trainer.finite():
            return "what was learned is not finite either, and not saved" + (
                f"; the last snapshot is that of iteration {newest}" if newest else ""
            )
        try:
            _, state = solver.snapshot()
        except SolverError as error:
            return str(error)
        return f"all before it is saved in {state}"

    def _warn_if_stuck(self, batch: Batch, loss: float) -> None:
        params = self._params(batch)
        if self._watch.stays(loss, batch.shapes, params, batch.bucket.feeds):
            for line in why_stuck(self._look(batch, params), batch.shapes):
                self.solver.callback.warn(
                    f"the loss stays at {loss:g}, that of equal scores: {line}"
                )
