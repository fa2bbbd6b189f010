"""What a snapshot holds of a solver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netspec.formats.manifest import Manifest
from netspec.solving.schedules import steps_taken
from netspec.solving.snapshots.solverstate import State
from netspec.solving.snapshots.store import Snapshot
from netspec.solving.trainer import memory_lists

if TYPE_CHECKING:
    from netspec.solving.solver import Solver


def capture(solver: Solver) -> Snapshot:
    """A solver as it stands between two updates; all processes of a run must ask."""
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
            tests=solver.tests_stand,
            memory=memory_lists(solver.net),
            home=trainer.buckets.unpadded,
            dtype=solver.net.policy.dtype,
        ),
    )
