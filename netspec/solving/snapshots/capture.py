"""What a snapshot holds of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from netspec.formats.manifest import Manifest
from netspec.layers.base import Array
from netspec.proto.solver_pb2 import SolverParameter
from netspec.runtime.module import Net
from netspec.solving.carried_state import carried_lists
from netspec.solving.schedules import steps_taken
from netspec.solving.snapshots.solverstate import State
from netspec.solving.snapshots.store import Snapshot
from netspec.solving.testing import TestNets
from netspec.solving.trainer import Trainer


class CapturedRun(Protocol):
    """What a snapshot holds of a solver: see `Solver` for what each means."""

    @property
    def param(self) -> SolverParameter:
        """Its settings."""

    @property
    def net(self) -> Net:
        """The net in training."""

    @property
    def trainer(self) -> Trainer:
        """Holds the update rule's arrays."""

    @property
    def iteration(self) -> int:
        """Updates made so far."""

    @property
    def losses(self) -> Sequence[Array | float]:
        """The last ``average_loss`` losses."""

    @property
    def data(self) -> Mapping[str, Any]:
        """The position in the training data."""

    @property
    def tests(self) -> TestNets:
        """The test nets."""


def capture(solver: CapturedRun) -> Snapshot:
    """Take a snapshot of a solver between two updates; all processes of a run must ask."""
    trainer, iteration = solver.trainer, solver.iteration
    return Snapshot(
        solver.net.shapes,
        trainer.arrays(),
        trainer.diffs() if solver.param.snapshot_diff else None,
        State(iteration, "", trainer.history(), steps_taken(solver.param, iteration)),
        Manifest(
            iteration=iteration,
            seed=trainer.seed,
            solver=solver.param.type,
            losses=tuple(float(loss) for loss in solver.losses),
            data=solver.data,
            tests=solver.tests.state_at(iteration),
            memory=carried_lists(solver.net),
            home=trainer.buckets.unpadded,
            dtype=solver.net.policy.dtype,
        ),
    )
