"""Logs for machines, of a solver that makes no steps: what is told to them is what they write."""

import json
import math
import os
import pty
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from netspec.errors import SolverError
from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import infer
from netspec.proto.solver_pb2 import SolverParameter
from netspec.reporting.console import ConsoleReport, lasting
from netspec.reporting.event_logs import JsonLog, TensorBoardLog
from netspec.segmentation.score import Metrics
from netspec.solving.callback import TrainingStep
from netspec.solving.evaluation import Evaluation
from netspec.solving.solver import Solver

NET = """
name: "small"
layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: [5, 3] } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "loss" loss_weight: 0.5 }
layer { name: "mean" type: "Power" bottom: "x" top: "mean" }
"""
TEST = Evaluation(
    outputs={"accuracy": np.array([0.75]), "pair": np.array([1.0, math.nan])},
    weights={"accuracy": 0.0, "pair": 0.0},
    metrics={"score": Metrics(np.array([[3, 1], [0, 0]]))},
    loss=1.5,
)
METRICS = {"pixel_accuracy": 0.75, "mean_accuracy": 0.75, "mean_iu": 0.375, "fw_iu": 0.75}


def solver(**settings: Any) -> Solver:
    graph = connect(parse_net(NET, "net.prototxt"))
    param = SolverParameter(**{"type": "Adam", "max_iter": 100, "iter_size": 2, **settings})
    fake = SimpleNamespace(
        param=param,
        net=SimpleNamespace(graph=graph, shapes=infer(graph)),
        text=SimpleNamespace(file="solver.prototxt"),
        seed=7,
        iteration=0,
        smoothed_loss=lambda: 2.25,
    )
    return cast(Solver, fake)


class Loss:
    """A number on a device that does not want to be asked for."""

    def __float__(self) -> float:
        raise AssertionError("waits for the device")


def step(iteration: int, loss: Any = 2.5) -> TrainingStep:
    outputs = {"loss": jnp.asarray(5.0), "mean": jnp.arange(15.0).reshape(5, 3)}
    return TrainingStep(iteration, loss, outputs, lambda i: jnp.asarray(0.5**i))


def unreached(line: str) -> None:
    raise AssertionError(line)


def written(path: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = path.read_text()
    assert text.endswith("\n")
    records = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    for record in records:
        assert datetime.fromisoformat(record.pop("time")).utcoffset() is not None
        assert record.pop("seconds") >= 0
    return records


def events(path: Path) -> list[tuple[str, int]]:
    return [(record["event"], record["iteration"]) for record in written(path)]


# JSON lines


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "snap" / "a.log.jsonl"
    log = JsonLog(path, unreached)
    run = solver(display=2)
    log.testing(run, 0)
    log.test(run, 0, TEST)
    log.step(run, step(0, math.inf))
    log.step(run, step(1, Loss()))
    run.iteration = 5
    log.snapshot_written(run, (Path("a_iter_4.caffemodel.h5"), Path("a_iter_4.solverstate.h5")))
    log.warn("the loss grows")
    log.step(run, step(6))
    start, *rest = written(path)
    assert {"netspec", "jax", "device"} < start.keys()
    assert {"event": "start", "iteration": 0, "net": "small", "solver": "solver.prototxt",
            "type": "Adam", "max_iter": 100, "seed": 7}.items() <= start.items()  # fmt: skip
    outputs = {"loss": 5.0, "mean": [float(i) for i in range(8)]}
    assert rest == [
        {"event": "test", "iteration": 0, "test": 0, "loss": 1.5,
         "outputs": {"accuracy": 0.75, "pair": [1.0, None]}, "metrics": {"score": METRICS}},
        {"event": "step", "iteration": 0, "loss": None, "smoothed_loss": 2.25, "lr": 1.0,
         "images": 10, "outputs": outputs},
        {"event": "snapshot", "iteration": 4, "weights": "a_iter_4.caffemodel.h5",
         "state": "a_iter_4.solverstate.h5"},
        {"event": "warning", "message": "the loss grows"},
        {"event": "step", "iteration": 6, "loss": 2.5, "smoothed_loss": 2.25, "lr": 0.5**6,
         "images": 30, "outputs": outputs},
    ]  # fmt: skip


def test_json_lines_without_display(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log", unreached)
    run = solver(display=0)
    log.step(run, step(0, Loss()))
    run.iteration = 1
    log.test(run, 1, TEST)
    assert events(tmp_path / "log") == [("start", 0), ("test", 1)]


def test_a_resumed_run_says_where_it_starts(tmp_path: Path) -> None:
    """As one that goes back by itself does; what was written is kept, a torn line too."""
    path = tmp_path / "log"
    run = solver(display=1)
    JsonLog(path, unreached).step(run, step(0))
    with path.open("a") as file:
        file.write('{"event": "st')
    log = JsonLog(path, unreached)
    for iteration in (20, 21, 10):
        log.step(run, step(iteration))
    lines = path.read_text().splitlines()
    assert lines.pop(2) == '{"event": "st'
    path.write_text("\n".join([*lines, ""]))
    assert events(path) == [
        ("start", 0), ("step", 0), ("start", 20), ("step", 20), ("step", 21), ("start", 10),
        ("step", 10),
    ]  # fmt: skip


def test_a_disk_that_takes_no_log_does_not_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "snap").write_text("")
    said: list[str] = []
    log = JsonLog(tmp_path / "snap" / "log", said.append)
    run = solver(display=1)
    log.step(run, step(0))
    log.step(run, step(1))
    assert said == [f"cannot write the log {tmp_path}/snap/log: file exists"]
    (tmp_path / "snap").unlink()
    log.step(run, step(2))
    assert events(tmp_path / "snap" / "log") == [("step", 2)]


# TensorBoard


@pytest.fixture
def scalars() -> Callable[[Path], list[tuple[int, dict[str, float]]]]:
    """Reads event files: (iteration, scalars), a session's start with none."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    def read(folder: Path) -> list[tuple[int, dict[str, float]]]:
        found = []
        for path in sorted(folder.iterdir()):
            content, at = path.read_bytes(), 0
            while at < len(content):
                size = int.from_bytes(content[at : at + 8], "little")
                event = Event.FromString(content[at + 12 : at + 12 + size])
                at += 12 + size + 4
                if not event.file_version:
                    found.append((event.step, {v.tag: v.simple_value for v in event.summary.value}))
        return found

    return read


def test_tensorboard(
    tmp_path: Path, scalars: Callable[[Path], list[tuple[int, dict[str, float]]]]
) -> None:
    log = TensorBoardLog(tmp_path / "board", unreached)
    run = solver(display=2)
    run.iteration = 40
    log.testing(run, 1)
    log.test(run, 1, TEST)
    log.step(run, step(40))
    log.step(run, step(41, Loss()))
    log.close()
    log.step(run, step(42))
    start, test, train = scalars(tmp_path / "board")
    assert start == (40, {})
    assert test[0] == train[0] == 40
    nan = test[1].pop("test1/pair/1")
    assert math.isnan(nan)
    assert test[1] == {
        "test1/loss": 1.5,
        "test1/accuracy": 0.75,
        "test1/pair/0": 1.0,
        **{f"test1/score/{name}": value for name, value in METRICS.items()},
    }
    assert train[1].pop("lr") == pytest.approx(0.5**40)
    assert train[1] == {
        "loss": 2.5,
        "smoothed_loss": 2.25,
        "train/loss": 5.0,
        **{f"train/mean/{i}": float(i) for i in range(8)},
    }


def test_tensorboard_on_a_disk_that_fails(
    tmp_path: Path, scalars: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    log = TensorBoardLog(tmp_path, said.append)

    def full(event: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log._writer, "write_event", full)
    log.step(solver(display=1), step(0))
    log.step(solver(display=1), step(1))
    assert said == ["no more log for TensorBoard: No space left on device"]


def test_tensorboard_in_no_folder(tmp_path: Path, scalars: Callable[..., object]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SolverError) as caught:
        TensorBoardLog(tmp_path / "file", unreached)
    assert str(caught.value) == (
        f"cannot write a log for TensorBoard: {tmp_path}/file: file exists"
    )


def test_tensorboard_without_its_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX.event_file_writer", None)
    with pytest.raises(SolverError, match=r"^a log for TensorBoard needs .*: pip install tensor"):
        TensorBoardLog(tmp_path, unreached)


@pytest.mark.parametrize("opened", [os.pipe, pty.openpty], ids=["pipe", "terminal"])
def test_a_console_that_goes_away_does_not_end_the_run(
    opened: Callable[[], tuple[int, int]],
) -> None:
    """As where a terminal is closed, or who reads a pipe has had enough."""
    ours, theirs = opened()
    with open(theirs, "w") as output:
        with ConsoleReport(Console(file=lasting(output)), 100) as report:
            report.say("for who looks")
            os.close(ours)
            for _ in range(3):
                report.say("for nobody")
        output.write("nor is this")
