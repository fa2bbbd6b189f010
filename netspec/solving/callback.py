"""Callbacks: what the console, a log or a script is told of a training run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax.numpy as jnp

from netspec.frontend.prototxt import SolverText
from netspec.layers.base import Array
from netspec.proto.solver_pb2 import SolverParameter
from netspec.runtime.module import Net
from netspec.solving.evaluation import Evaluation
from netspec.solving.schedules import Schedule


class TrainingRun(Protocol):
    """What a callback may ask of the solver that calls it: see `Solver` for what each means."""

    @property
    def text(self) -> SolverText:
        """The solver prototxt."""

    @property
    def param(self) -> SolverParameter:
        """Its settings."""

    @property
    def net(self) -> Net:
        """The net in training."""

    @property
    def seed(self) -> int:
        """The number that all randomness starts from."""

    @property
    def iteration(self) -> int:
        """Updates made so far."""

    @property
    def losses(self) -> Sequence[Array | float]:
        """The last ``average_loss`` losses."""

    def smoothed_loss(self) -> float:
        """Their mean."""

    def stop(self) -> None:
        """End the run after the update under way."""

    def request_snapshot(self) -> None:
        """Write a snapshot after the update under way."""


@dataclass(frozen=True)
class TrainingStep:
    """An update that was made; its arrays may still be computed on the device.

    iteration: the updates made before it. outputs: of the last pass.
    """

    iteration: int
    loss: Array
    outputs: Mapping[str, Array]
    schedule: Schedule

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self.schedule(jnp.asarray(self.iteration)))


class Callback:
    """Is told what happens in a training run; a subclass overrides the events that it wants."""

    def step(self, solver: TrainingRun, step: TrainingStep) -> None:
        """An update was made."""

    def testing(self, solver: TrainingRun, index: int) -> None:
        """Test net ``index`` is about to run."""

    def test(self, solver: TrainingRun, index: int, result: Evaluation) -> None:
        """Test net ``index`` was run."""

    def snapshot(self, solver: TrainingRun, paths: tuple[Path, Path]) -> None:
        """A snapshot is being written: weights, then state."""

    def snapshot_written(self, solver: TrainingRun, paths: tuple[Path, Path]) -> None:
        """That snapshot is on disk."""

    def say(self, line: str) -> None:
        """Something worth a line."""

    def warn(self, line: str) -> None:
        """Something that went wrong, or will."""

    def end(self, solver: TrainingRun, how: str) -> None:
        """Training is over; ``how`` it ended, or the mistake that ended it."""

    def close(self) -> None:
        """Nothing more will happen."""


class Callbacks(Callback):
    """Several callbacks as one: each is told every event, in their order."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self.callbacks = list(callbacks)

    def add(self, *callbacks: Callback) -> None:
        """Tell these, too, from now on."""
        self.callbacks += callbacks


def _tell_each(event: str) -> Callable[..., None]:
    def tell(self: Callbacks, *details: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*details)

    return tell


# Not method by method: an event that is added later would be forgotten.
for _event in [name for name in vars(Callback) if not name.startswith("_")]:
    setattr(Callbacks, _event, _tell_each(_event))
