"""What long work says while it runs: Caffe's log lines, and a progress bar on a terminal."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from netspec.inspect.summary import mebibytes, summarise
from netspec.layers.base import text
from netspec.solving import updates
from netspec.solving.evaluation import Evaluation
from netspec.solving.listener import Listener, Step
from netspec.solving.loop import Solver

if TYPE_CHECKING:
    from netspec.weights import Copied

# A terminal shows progress about this often, in seconds.
_REFRESH = 0.5


class Report(Listener):
    """Prints a training run, line by line, in the form that Caffe's log parsers read.

    A terminal shows a bar besides: iteration, smoothed loss, images a second, time left.
    """

    def __init__(self, console: Console, total: int) -> None:
        """total: the iteration at which the run ends."""
        self.console = console
        self.total = total
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

    def __enter__(self) -> Report:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def step(self, solver: Solver, step: Step) -> None:
        """Count the step; print it every ``display`` iterations."""
        self.images += _batch_size(solver) * solver.param.iter_size
        if solver.param.display and step.iteration % solver.param.display == 0:
            self._print(solver, step)
        now = time.monotonic()
        self.recent.append((now, solver.iteration, self.images))
        if self.console.is_terminal and now - self.shown > _REFRESH:
            self.shown = now
            note = f"loss {solver.smoothed_loss():.6g}  {self._pace()}"
            self.progress.update(self.task, completed=solver.iteration, note=note)
            self.progress.refresh()

    def testing(self, solver: Solver, index: int) -> None:
        """Say that a test begins."""
        self.say(f"Iteration {solver.iteration}, Testing net (#{index})")

    def test(self, solver: Solver, index: int, result: Evaluation) -> None:
        """Print a test's outputs and metrics."""
        if solver.param.test_compute_loss:
            self.say(f"Test loss: {result.loss:.6g}")
        for line in evaluation_lines(result, "    Test net output"):
            self.say(line)

    def snapshot(self, solver: Solver, paths: tuple[Path, ...]) -> None:
        """Say where a snapshot lies."""
        self.say(f"Snapshotting to {paths[0]} and {paths[1]}")

    def _print(self, solver: Solver, step: Step) -> None:
        pace = self._pace()
        self.say(
            f"Iteration {step.iteration}, loss = {solver.smoothed_loss():.6g}"
            + (f" ({pace})" if pace else "")
        )
        weights = {solver.net.graph.values[i].name: w for i, w in solver.net.graph.losses}
        number = 0
        for name in solver.net.graph.outputs:
            for value in np.asarray(step.outputs[name]).ravel()[:_FIGURES]:
                note = _weighted(float(value), weights.get(name, 0.0))
                self.say(f"    Train net output #{number}: {name} = {value:.6g}{note}")
                number += 1
        self.say(f"Iteration {step.iteration}, lr = {step.rate:.6g}")

    def _pace(self) -> str:
        """Images a second over the last steps, and the time left at that pace."""
        if len(self.recent) < 2:
            return ""
        (start, first, seen), (end, last, now) = self.recent[0], self.recent[-1]
        if end <= start or last <= first:
            return ""
        left = (self.total - last) * (end - start) / (last - first)
        return f"{(now - seen) / (end - start):.3g} images/s, {_clock(left)} left"


# Of an output with more numbers than this only the first are printed: it is no figure.
_FIGURES = 8


def evaluation_lines(result: Evaluation, prefix: str) -> list[str]:
    """A test's outputs, one number a line as Caffe prints them, and segmentation metrics."""
    lines = []
    number = 0
    for name, values in result.outputs.items():
        for value in values[:_FIGURES]:
            note = _weighted(float(value), result.weights[name])
            lines.append(f"{prefix} #{number}: {name} = {value:.6g}{note}")
            number += 1
    for blob, metrics in result.metrics.items():
        lines.append(
            f"    {blob}: pixel accuracy {metrics.pixel_accuracy:.4f}, mean accuracy "
            f"{metrics.mean_accuracy:.4f}, mean IU {metrics.mean_iu:.4f}, f.w. IU "
            f"{metrics.fw_iu:.4f} over {metrics.pixels:,} pixels"
        )
    return lines


def plan(solver: Solver, until: int, copied: list[Copied]) -> list[str]:
    """What a solver is about to do: the net, its data, memory, the loss's scale, the regime."""
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
    fed = ", ".join(f"{name} {text(shapes[name])}" for name in graph.fed)
    slots = updates.rule(param).slots
    history = slots * summary.momentum_bytes
    total = summary.training_bytes - summary.momentum_bytes + history
    lines.append(
        f"memory    about {mebibytes(total)} at {fed}: "
        f"blobs {mebibytes(summary.activation_bytes)}, "
        f"parameters {mebibytes(summary.param_bytes)}, "
        f"{'momentum' if slots == 1 else 'history'} {mebibytes(history)}, and gradients"
    )
    for node in graph.nodes:
        scale = node.layer.scaling(*(shapes.values[i] for i in node.bottoms))
        if scale:
            lines.append(f"loss      {node.name}: {scale}")
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
    lines += [f"weights   {one}" for one in copied]
    lines.append(f"training  iterations {solver.iteration} to {until}")
    return lines


def _weighted(value: float, weight: float) -> str:
    return f" (* {weight:g} = {weight * value:.6g} loss)" if weight else ""


def _batch_size(solver: Solver) -> int:
    """Images a pass: the first axis of the first fed blob."""
    shapes = solver.net.shapes
    shape = shapes[shapes.graph.fed[0]] if shapes.graph.fed else ()
    return shape[0] if shape else 1


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
