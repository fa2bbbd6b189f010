"""Logs of a training run for machines: JSON lines, and TensorBoard's event files.

A line of `JsonLog` is an object whose ``event`` says what the rest is::

    start     what runs, from which iteration; later iterations logged before are void
    step      iteration, loss, smoothed_loss, lr, images, outputs
    test      iteration, test (its index), loss, outputs, metrics
    snapshot  iteration, weights, state (their paths), once they are on disk
    warning   message

Each has ``time`` (UTC, ISO 8601) and ``seconds`` since the run began. An output of one number is a
number, one of more a list; a number that is not finite is null.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from netspec.errors import SolverError, unreadable
from netspec.formats.atomic import open_no_link
from netspec.reporting.version import __version__
from netspec.segmentation.score import Metrics
from netspec.solving.callback import Callback, TrainingRun, TrainingStep
from netspec.solving.evaluation import Evaluation

# Of an output with more numbers than this only the first are told: it is no figure.
FIGURES = 8
# What a log keeps of segmentation metrics.
_METRICS = ("pixel_accuracy", "mean_accuracy", "mean_iu", "fw_iu")


def is_displayed(solver: TrainingRun, step: TrainingStep) -> bool:
    """Whether a step is one of every ``display``; with ``display: 0`` none is."""
    return bool(solver.param.display) and step.iteration % solver.param.display == 0


def images_a_step(solver: TrainingRun) -> int:
    """Images an update: the first axis of the first fed blob, over ``iter_size`` passes."""
    shapes = solver.net.shapes
    shape = shapes[shapes.graph.fed[0]] if shapes.graph.fed else ()
    return (shape[0] if shape else 1) * solver.param.iter_size


def figures(outputs: Mapping[str, ArrayLike]) -> dict[str, list[float]]:
    """The first `FIGURES` numbers of each output."""
    return {
        name: [float(value) for value in np.asarray(array).ravel()[:FIGURES]]
        for name, array in outputs.items()
    }


class JsonLog(Callback):
    """Appends a line of JSON for each displayed step, test, snapshot and warning to a file.

    With ``display: 0`` no step is displayed, so only the others are logged. A file that cannot be
    written never ends the run: the callback warns once, and tries again with the next line.
    """

    def __init__(self, path: str | Path, warn: Callable[[str], None]) -> None:
        """path: the file, made with its folder at the first line. warn: is told of trouble."""
        self.path = Path(path)
        self._began = time.monotonic()
        self._images = 0
        # The iteration of the last event of a run that has a start line.
        self._reached: int | None = None
        self._warn = warn
        self._warned = False

    def step(self, solver: TrainingRun, step: TrainingStep) -> None:
        self._start(solver, step.iteration)
        self._images += images_a_step(solver)
        if not is_displayed(solver, step):
            return
        self._write(
            "step",
            iteration=step.iteration,
            loss=float(step.loss),
            smoothed_loss=solver.smoothed_loss(),
            lr=step.rate,
            images=self._images,
            outputs=_plain(figures(step.outputs)),
        )

    def testing(self, solver: TrainingRun, index: int) -> None:
        self._start(solver, solver.iteration)

    def test(self, solver: TrainingRun, index: int, result: Evaluation) -> None:
        self._start(solver, solver.iteration)
        self._write(
            "test",
            iteration=solver.iteration,
            test=index,
            loss=result.loss,
            outputs=_plain(figures(result.outputs)),
            metrics={blob: _metrics(metrics) for blob, metrics in result.metrics.items()},
        )

    def snapshot_written(self, solver: TrainingRun, paths: tuple[Path, Path]) -> None:
        self._start(solver, solver.iteration)
        weights, state = paths
        # It may have been written beside later steps: its name knows when it was taken.
        iteration = int(state.name.rpartition("_iter_")[2].partition(".")[0])
        self._write("snapshot", iteration=iteration, weights=str(weights), state=str(state))

    def warn(self, line: str) -> None:
        self._write("warning", message=line)

    def end(self, solver: TrainingRun, how: str) -> None:
        loss = solver.smoothed_loss() if solver.losses else None
        self._write("end", iteration=solver.iteration, smoothed_loss=loss, message=how)

    def _start(self, solver: TrainingRun, iteration: int) -> None:
        """Say what runs, before the first event, and again where the run went back."""
        if self._reached is None or iteration < self._reached:
            graph = solver.net.graph
            self._write(
                "start",
                iteration=iteration,
                net=graph.name or graph.file,
                solver=solver.text.file,
                type=solver.param.type,
                max_iter=solver.param.max_iter,
                seed=solver.seed,
                netspec=__version__,
                jax=jax.__version__,
                device=jax.devices()[0].device_kind,
            )
        self._reached = iteration

    def _write(self, event: str, **values: object) -> None:
        head = {
            "event": event,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "seconds": round(time.monotonic() - self._began, 3),
        }
        line = json.dumps(_finite({**head, **values}), allow_nan=False, ensure_ascii=False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _append(self.path, f"{line}\n".encode())
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(f"cannot write the log {unreadable(self.path, error)}")


def _append(path: Path, line: bytes) -> None:
    """Add a line in one write, after the end of what a crash may have left; raises OSError.

    A line for which the disk has no room is taken back whole.
    """
    with open(open_no_link(path), "a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        if file.write(line) != len(line):
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


class TensorBoardLog(Callback):
    """Writes what TensorBoard shows: a scalar each for loss, learning rate, outputs, metrics.

    Tags: ``loss``, ``smoothed_loss``, ``lr``, ``train/OUTPUT``, ``testN/loss``, ``testN/OUTPUT``
    and ``testN/BLOB/METRIC`` for test net N; steps are iterations. TensorBoard drops what earlier
    runs in the folder logged of the iterations that a resumed run makes again. With ``display: 0``
    only tests are logged. A disk that fails on the way ends the log, not the run.
    """

    def __init__(self, folder: str | Path, warn: Callable[[str], None]) -> None:
        """folder: gets a new event file. warn: is told of trouble.

        Raises SolverError where tensorboardX is missing or the file cannot be made.
        """
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event
        except ImportError:
            raise SolverError(
                "a log for TensorBoard needs tensorboardX: pip install tensorboardX"
            ) from None
        folder = Path(folder)
        self._event = Event
        self._warn = warn
        self._reached: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Written by this thread: tensorboardX's own thread would hide a full disk, then hang.
            self._writer: Any = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        except OSError as error:
            raise SolverError(
                f"cannot write a log for TensorBoard: {unreadable(folder, error)}"
            ) from None

    def step(self, solver: TrainingRun, step: TrainingStep) -> None:
        self._start(step.iteration)
        if is_displayed(solver, step):
            scalars = {
                "loss": float(step.loss),
                "smoothed_loss": solver.smoothed_loss(),
                "lr": step.rate,
                **dict(_tagged("train", step.outputs)),
            }
            self._write(step.iteration, scalars)

    def testing(self, solver: TrainingRun, index: int) -> None:
        self._start(solver.iteration)

    def test(self, solver: TrainingRun, index: int, result: Evaluation) -> None:
        scalars = {
            f"test{index}/loss": result.loss,
            **dict(_tagged(f"test{index}", result.outputs)),
        }
        for blob, metrics in result.metrics.items():
            for name, value in _metrics(metrics).items():
                scalars[f"test{index}/{blob}/{name}"] = value
        self._write(solver.iteration, scalars)

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()

    def _start(self, iteration: int) -> None:
        """Begin a session at the first event, and again where the run went back."""
        if self._reached is None or iteration < self._reached:
            event = self._event(wall_time=time.time(), step=iteration)
            event.session_log.status = event.session_log.START
            self._add(event)
        self._reached = iteration

    def _write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        event = self._event(wall_time=time.time(), step=iteration)
        for tag, value in scalars.items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._add(event)

    def _add(self, event: Any) -> None:
        if self._writer is None:
            return
        try:
            self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            self._warn(f"no more log for TensorBoard: {error.strerror or error}")
            self.close()


def _metrics(metrics: Metrics) -> dict[str, float]:
    return {name: getattr(metrics, name) for name in _METRICS}


def _plain(outputs: Mapping[str, list[float]]) -> dict[str, float | list[float]]:
    """Turn a list of one number into that number."""
    return {name: values[0] if len(values) == 1 else values for name, values in outputs.items()}


def _tagged(prefix: str, outputs: Mapping[str, ArrayLike]) -> Iterator[tuple[str, float]]:
    for name, values in figures(outputs).items():
        for i, value in enumerate(values):
            yield f"{prefix}/{name}" + (f"/{i}" if len(values) > 1 else ""), value


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite, which JSON has not, by None."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
