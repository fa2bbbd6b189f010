"""Who is told what happens in training: the console, a log, a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax.numpy as jnp

from netspec.layers.base import Array
from netspec.solving.evaluation import Evaluation
from netspec.solving.schedules import Schedule

if TYPE_CHECKING:
    from netspec.solving.solver import Solver


@dataclass(frozen=True)
class Step:
    """What the loop tells about a step as it goes: arrays may still be under way on the device.

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
    """Who is told what happens; the default ones say nothing."""

    def step(self, solver: Solver, step: Step) -> None:
        """An update was made."""

    def testing(self, solver: Solver, index: int) -> None:
        """Test net ``index`` is about to run."""

    def test(self, solver: Solver, index: int, result: Evaluation) -> None:
        """Test net ``index`` was run."""

    def snapshot(self, solver: Solver, paths: tuple[Path, Path]) -> None:
        """A snapshot is being written: weights, then state."""

    def snapshot_written(self, solver: Solver, paths: tuple[Path, Path]) -> None:
        """That snapshot is on disk."""

    def say(self, line: str) -> None:
        """Something worth a line."""

    def warn(self, line: str) -> None:
        """Something that went wrong, or will."""

    def end(self, solver: Solver, how: str) -> None:
        """Training is over; ``how`` it ended, or the mistake that ended it."""

    def close(self) -> None:
        """Nothing more will happen."""


class Callbacks(Callback):
    """Several listeners as one."""

    def __init__(self, listeners: Sequence[Callback]) -> None:
        self.listeners = list(listeners)

    def step(self, solver: Solver, step: Step) -> None:
        for callback in self.listeners:
            callback.step(solver, step)

    def testing(self, solver: Solver, index: int) -> None:
        for callback in self.listeners:
            callback.testing(solver, index)

    def test(self, solver: Solver, index: int, result: Evaluation) -> None:
        for callback in self.listeners:
            callback.test(solver, index, result)

    def snapshot(self, solver: Solver, paths: tuple[Path, Path]) -> None:
        for callback in self.listeners:
            callback.snapshot(solver, paths)

    def snapshot_written(self, solver: Solver, paths: tuple[Path, Path]) -> None:
        for callback in self.listeners:
            callback.snapshot_written(solver, paths)

    def say(self, line: str) -> None:
        for callback in self.listeners:
            callback.say(line)

    def warn(self, line: str) -> None:
        for callback in self.listeners:
            callback.warn(line)

    def end(self, solver: Solver, how: str) -> None:
        for callback in self.listeners:
            callback.end(solver, how)

    def close(self) -> None:
        for callback in self.listeners:
            callback.close()
