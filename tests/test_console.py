"""The lines of a run, and that the parsers of Caffe's logs read them."""

import io
import re
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import infer
from netspec.proto.solver_pb2 import SolverParameter
from netspec.reporting.console import ConsoleReport, glog_prefix
from netspec.solving.callback import TrainingStep
from netspec.solving.evaluation import Evaluation
from netspec.solving.solver import Solver

NET = """
layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: [4, 3] } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "loss" loss_weight: 0.5 }
layer { name: "mean" type: "Power" bottom: "x" top: "all" }
"""
SAID = """\
Iteration 0, Testing net (#0)
Test loss: 1.5
    Test net output #0: accuracy = 0.75
    Test net output #1: loss = 3 (* 0.5 = 1.5 loss)
Iteration 0, loss = 1.23457
""" + "".join(f"    Train net output #{i}: all = {i}\n" for i in range(8)) + """\
    Train net output #12: loss = nan (* 0.5 = nan loss)
Iteration 0, lr = 1e-10
Snapshotting to binary proto file a_iter_1.caffemodel
Snapshotting solver state to binary proto file a_iter_1.solverstate
Snapshotting to HDF5 file a_iter_2.caffemodel.h5
Snapshotting solver state to HDF5 file a_iter_2.solverstate.h5
warning: the disk is full
or slow
[bold]Optimization Done.
"""  # fmt: skip


def said(terminal: bool = False, glog: bool = False) -> str:
    """What a run of all events prints."""
    graph = connect(parse_net(NET, "net.prototxt"))
    fake = SimpleNamespace(
        param=SolverParameter(display=2, test_compute_loss=True),
        net=SimpleNamespace(graph=graph, shapes=infer(graph)),
        iteration=0,
        smoothed_loss=lambda: 1.2345678,
    )
    solver = cast(Solver, fake)
    file = io.StringIO()
    colours = "standard" if terminal else None
    console = Console(file=file, force_terminal=terminal, color_system=colours, width=60)
    outputs: dict[str, Any] = {"loss": jnp.asarray(jnp.nan), "all": jnp.arange(12.0).reshape(4, 3)}
    test = Evaluation(
        {"accuracy": np.array([0.75]), "loss": np.array([3.0])},
        {"accuracy": 0.0, "loss": 0.5},
        loss=1.5,
    )
    with ConsoleReport(console, 4, glog) as report:
        report.testing(solver, 0)
        report.test(solver, 0, test)
        for i in range(2):
            solver.iteration = i + 1
            report.step(
                solver, TrainingStep(i, jnp.asarray(1.0), outputs, lambda _: jnp.asarray(1e-10))
            )
        for i, end in ((1, ""), (2, ".h5")):
            stem = f"a_iter_{i}"
            paths = Path(f"{stem}.caffemodel{end}"), Path(f"{stem}.solverstate{end}")
            report.snapshot(solver, paths)
        report.warn("the disk is full\nor slow")
        report.say("[bold]Optimization Done.")
    return file.getvalue()


def test_lines() -> None:
    assert said() == SAID


def test_a_warning_is_red_on_a_terminal() -> None:
    assert "\x1b[1;31mwarning: the disk is full\x1b[0m" in said(terminal=True)


def test_pace_follows_the_learning_rate() -> None:
    """Not the loss: there are parsers that take the rest of its line for it."""
    graph = connect(parse_net(NET, "net.prototxt"))
    fake = SimpleNamespace(
        param=SolverParameter(display=1),
        net=SimpleNamespace(graph=graph, shapes=infer(graph)),
        iteration=0,
        smoothed_loss=lambda: 1.0,
    )
    file = io.StringIO()
    report = ConsoleReport(Console(file=file), 10)
    outputs: dict[str, Any] = {"loss": jnp.zeros(()), "all": jnp.zeros((4, 3))}
    for i in range(3):
        fake.iteration = i + 1
        report.step(
            cast(Solver, fake), TrainingStep(i, jnp.zeros(()), outputs, lambda _: jnp.asarray(0.5))
        )
    lines = file.getvalue().splitlines()
    assert "Iteration 2, loss = 1" in lines
    assert re.fullmatch(r"Iteration 2, lr = 0\.5 \(\S+ images/s, \d+:\d\d left\)", lines[-1])


def test_every_line_has_a_prefix_that_parsers_read() -> None:
    """Month and day, time, thread and ``]``, as ``extract_seconds.py`` splits them."""
    before = datetime.now().replace(microsecond=0)
    lines = said(glog=True).splitlines()
    bare = SAID.splitlines()
    assert len(lines) == len(bare)
    for line, words in zip(lines, bare, strict=True):
        assert line.endswith(f"] {words}")
        assert line[0] == ("W" if words in ("warning: the disk is full", "or slow") else "I")
        day, time, thread, place = line.split()[:4]
        when = datetime.strptime(f"{before.year}{day[1:]} {time}", "%Y%m%d %H:%M:%S.%f")
        assert before <= when <= datetime.now()
        assert thread.isdigit()
        assert re.fullmatch(r"\w+:\d+\]", place)


@pytest.mark.parametrize(
    ("severity", "when", "beginning"),
    [
        ("I", datetime(2031, 2, 3, 4, 5, 6, 789), "I0203 04:05:06.000789 "),
        ("W", datetime(2031, 12, 31, 23, 59, 59, 999999), "W1231 23:59:59.999999 "),
    ],
)
def test_prefix(severity: str, when: datetime, beginning: str) -> None:
    assert glog_prefix(severity, when).startswith(beginning)
