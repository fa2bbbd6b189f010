"""Reports long work while it runs: Caffe's log lines, and a progress bar on a terminal.

Caffe: ``solver.cpp`` and ``sgd_solver.cpp`` for the lines, ``tools/extra`` for who reads them.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from netspec.inspect.summary import summarise
from netspec.layers.base import text
from netspec.reporting.event_logs import figures, images_a_step, is_displayed
from netspec.reporting.glog import glog_prefix, is_told
from netspec.runtime.memory import Prediction, capacity, predict, size
from netspec.solving import updates
from netspec.solving.callback import Callback, TrainingRun, TrainingStep
from netspec.solving.evaluation import Evaluation
from netspec.solving.solver import Solver

if TYPE_CHECKING:
    from netspec.weights.caffemodel import Copied

# A terminal shows progress about this often, in seconds.
_REFRESH = 0.5


def lasting(output: TextIO) -> TextIO:
    """Wrap an output: once it fails, as when its terminal is closed, the rest is dropped."""
    return cast(TextIO, _Lasting(output))


class _Lasting:
    def __init__(self, output: TextIO) -> None:
        self._output = output
        self.encoding = output.encoding

    def fileno(self) -> int:
        return self._output.fileno()

    def isatty(self) -> bool:
        return self._output.isatty()

    def write(self, text: str) -> int:
        try:
            return self._output.write(text)
        except OSError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        try:
            self._output.flush()
        except OSError:
            self._let_go()

    def _let_go(self) -> None:
        # What is still buffered is written at the end of the process: it has to go somewhere.
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._output.fileno())


class ConsoleReport(Callback):
    """Prints a training run, line by line, in the form that Caffe's log parsers read.

    A terminal shows a bar besides: iteration, smoothed loss, images a second, time left.
    """

    def __init__(self, console: Console, total: int, glog: bool = False) -> None:
        """total: the iteration at which the run ends. glog: begin lines as `glog_prefix` does."""
        self.console = console
        self.total = total
        self.glog = glog
        self.progress = Progress(
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(None),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            auto_refresh=False,
            disable=not console.is_terminal,
        )
        self.task: TaskID = self.progress.add_task("", total=total, note="compiling")
        # (when, iteration, images) of the steps of the last seconds.
        self.recent: deque[tuple[float, int, int]] = deque(maxlen=200)
        self.images = 0
        self.shown = 0.0

    def __enter__(self) -> ConsoleReport:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self._line(line, "I")

    def warn(self, line: str) -> None:
        """Print a warning above the bar, red on a terminal."""
        self._line(f"warning: {line}", "W", "bold red")

    def step(self, solver: TrainingRun, step: TrainingStep) -> None:
        """Count the step; print it every ``display`` iterations."""
        self.images += images_a_step(solver)
        if is_displayed(solver, step):
            self._print(solver, step)
        now = time.monotonic()
        self.recent.append((now, solver.iteration, self.images))
        if self.console.is_terminal and now - self.shown > _REFRESH:
            self.shown = now
            note = f"loss {solver.smoothed_loss():.6g}  {self._pace()}"
            self.progress.update(self.task, completed=solver.iteration, note=note)
            self.progress.refresh()

    def testing(self, solver: TrainingRun, index: int) -> None:
        """Say that a test begins."""
        self.say(f"Iteration {solver.iteration}, Testing net (#{index})")

    def test(self, solver: TrainingRun, index: int, result: Evaluation) -> None:
        """Print a test's outputs and metrics."""
        if solver.param.test_compute_loss:
            self.say(f"Test loss: {result.loss:.6g}")
        for line in evaluation_lines(result, "    Test net output"):
            self.say(line)

    def snapshot(self, solver: TrainingRun, paths: tuple[Path, Path]) -> None:
        """Say where a snapshot lies."""
        weights, state = paths
        kind = "HDF5" if weights.suffix == ".h5" else "binary proto"
        self.say(f"Snapshotting to {kind} file {weights}")
        self.say(f"Snapshotting solver state to {kind} file {state}")

    def _print(self, solver: TrainingRun, step: TrainingStep) -> None:
        # Nothing may follow the loss: there are parsers that take the rest of its line for it.
        self.say(f"Iteration {step.iteration}, loss = {solver.smoothed_loss():.6g}")
        graph = solver.net.graph
        weights = {graph.values[i].name: weight for i, weight in graph.losses}
        outputs = {name: step.outputs[name] for name in graph.outputs}
        for line in _output_lines("    Train net output", outputs, weights):
            self.say(line)
        pace = self._pace()
        rate = f"Iteration {step.iteration}, lr = {step.rate:.6g}"
        self.say(f"{rate} ({pace})" if pace else rate)

    def _line(self, text: str, severity: str, style: str | None = None) -> None:
        if self.glog and not is_told(severity):
            return
        # Each line of a longer text has its prefix: parsers look for one in every line.
        for line in text.splitlines() or [""]:
            self.console.print(
                glog_prefix(severity, datetime.now()) + line if self.glog else line,
                style=style,
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _pace(self) -> str:
        """Images a second over the last steps, and the time left at that pace."""
        if len(self.recent) < 2:
            return ""
        (start, first, seen), (end, last, now) = self.recent[0], self.recent[-1]
        if end <= start or last <= first:
            return ""
        left = (self.total - last) * (end - start) / (last - first)
        return f"{(now - seen) / (end - start):.3g} images/s, {_clock(left)} left"


def evaluation_lines(result: Evaluation, prefix: str) -> list[str]:
    """A test's outputs, one number a line as Caffe prints them, and segmentation metrics."""
    return [*_output_lines(prefix, result.outputs, result.weights), *metric_lines(result)]


def metric_lines(result: Evaluation) -> list[str]:
    """A test's segmentation metrics, a line for each score blob."""
    return [
        f"    {blob}: pixel accuracy {metrics.pixel_accuracy:.4f}, mean accuracy "
        f"{metrics.mean_accuracy:.4f}, mean IU {metrics.mean_iu:.4f}, f.w. IU "
        f"{metrics.fw_iu:.4f} over {metrics.pixels:,} pixels"
        for blob, metrics in result.metrics.items()
    ]


def _output_lines(
    prefix: str, outputs: Mapping[str, ArrayLike], weights: Mapping[str, float]
) -> Iterator[str]:
    """A line for each number; the numbering counts those left out of a large output."""
    number = 0
    for name, values in figures(outputs).items():
        weight = weights.get(name, 0.0)
        for i, value in enumerate(values):
            note = f" (* {weight:g} = {weight * value:.6g} loss)" if weight else ""
            yield f"{prefix} #{number + i}: {name} = {value:.6g}{note}"
        number += np.size(outputs[name])


def plan(solver: Solver, until: int, copied: list[Copied]) -> list[str]:
    """Describe a solver's run: the net, its data, memory, the loss's scale, the settings."""
    shapes, param = solver.net.shapes, solver.param
    graph = shapes.graph
    summary = summarise(shapes)
    frozen = sum(row.frozen for row in summary.rows)
    lines = [
        f"net       {graph.name or graph.file}: {len(graph.nodes)} layers, "
        f"{summary.params:,} parameters, {summary.learned:,} of them learned"
        + (f" ({frozen} layers frozen)" if frozen else "")
    ]
    lines += [f"data      {source.describe()}" for source in solver.feed.sources.values()]
    lines += _memory(solver)
    for each in shapes.nodes:
        if scale := each.node.layer.scoring(*each.bottoms).scaling:
            lines.append(f"loss      {each.node.name}: {scale}")
    lines += [
        f"op by op  not compiled, as what {node.who} keeps depends on data"
        for node in graph.data_dependent
    ]
    lines.append(
        f"regime    {param.type}, base_lr {param.base_lr:g} ({param.lr_policy}), "
        f"momentum {param.momentum:g}, weight_decay {param.weight_decay:g}"
        + (f", {param.iter_size} batches an update" if param.iter_size > 1 else "")
        + f"; random_seed {solver.seed}"
    )
    lines += solver.mesh.told
    lines += [f"weights   {one}" for one in copied]
    lines.append(f"training  iterations {solver.iteration} to {until}")
    # Parsers of Caffe's logs count time from here.
    lines.append(f"Solving {graph.name or graph.file}")
    lines.append(f"Learning Rate Policy: {param.lr_policy}")
    return lines


def predicted(solver: Solver, remat: bool = False) -> Prediction:
    """Predict the memory of a step; remat: as if it rematerialised."""
    policy, mesh = solver.net.policy, solver.mesh
    return predict(
        solver.net.shapes,
        replace(policy, remat=policy.remat or remat),
        updates.rule(solver.param).slots,
        sums=solver.param.iter_size > mesh.size,
        parts=mesh.size if mesh.sharding.split else 1,
    )


def _memory(solver: Solver) -> Iterator[str]:
    shapes, policy, found = solver.net.shapes, solver.net.policy, predicted(solver)
    fed = ", ".join(f"{name} {text(shapes[name])}" for name in shapes.graph.fed)
    yield (
        f"memory    about {size(found.total)} at {fed}: parameters {size(found.parameters)}, "
        f"history {size(found.history)}, data {size(found.data)}, blobs and gradients "
        f"{size(found.passes)}{' in stages' if policy.remat else ''}"
    )
    if policy.dtype != "f32":
        yield f"precision {policy.describe()}"


def memory_doubts(solver: Solver) -> Iterator[str]:
    """Warn where a step is predicted to take more memory than the device has."""
    needed, room = predicted(solver).total, capacity()
    if room is None or needed <= room:
        return
    less = predicted(solver, remat=True).total
    remedy = f"--remat takes about {size(less)}; " if less < needed else ""
    yield (
        f"a step takes about {size(needed)}, and the device has {size(room)}: {remedy}smaller "
        "images or batches take less"
    )


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
