"""Caffe's verbs ``train`` and ``test``, and the devices that they run on."""

import re
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from caffe_command_line import NUMBER, SOLVER, STATE, WEIGHTS, lines, run
from caffe_command_line import here as here
from caffe_command_line import made as made
from caffe_command_line import settings as settings
from caffe_command_line import trained as trained
from click.testing import CliRunner

from netspec.cli import main
from netspec.reporting.console import ConsoleReport
from netspec.runtime import devices
from netspec.weights.caffemodel import read_weights


def arrays(path: str) -> dict[tuple[str, int], np.ndarray]:
    """The arrays of a weight file."""
    found = read_weights(path).layers
    return {(name, i): blob.array for name, blobs in found.items() for i, blob in blobs.items()}


# train


def test_train_is_solve(trained: Path) -> None:
    """The same arrays; lines as Caffe's, which its parsers read."""
    by_caffe = arrays(WEIGHTS)
    Path("snap").rename("before")
    result = CliRunner().invoke(main, ["solve", "solver.prototxt"])
    assert result.exit_code == 0, result.output
    assert by_caffe.keys() == arrays(WEIGHTS).keys()
    for key, array in arrays(WEIGHTS).items():
        np.testing.assert_array_equal(by_caffe[key], array)


def test_train_logs(trained: Path) -> None:
    log = Path("log.txt").read_text().splitlines()
    assert log[0] == "Use CPU."
    losses = [re.fullmatch(rf"Iteration (\d), loss = {NUMBER}", line) for line in log]
    assert [match[1] for match in losses if match] == list("01234")
    assert log[-1] == "Optimization Done."


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_log_dir(trained: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("logs").mkdir()
    if how == "environment":
        monkeypatch.setenv("GLOG_log_dir", "logs")
        result = run("train", "--solver=solver.prototxt")
        assert "Optimization Done." in result.stderr
    else:
        result = run("device_query", "-log_dir=logs")
    assert Path("logs/caffe.INFO").read_text() == result.stderr
    assert len(list(Path("logs").glob("caffe.*.log.INFO.*"))) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "train --solver=solver.prototxt",
        "device_query",
        "upgrade_solver_proto_text solver.prototxt new.prototxt",
    ],
)
def test_the_least_severity(trained: Path, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(*arguments.split(), "-minloglevel=2").output == ""
    assert run(*arguments.split(), "-minloglevel=0").stderr
    monkeypatch.setenv("GLOG_minloglevel", "2")
    assert run(*arguments.split()).output == ""
    assert run(*arguments.split(), "--minloglevel", 0).stderr


def test_warnings_are_more_severe(trained: Path) -> None:
    Path("snap").rename("before")
    with open("solver.prototxt", "a") as file:
        file.write("solver_mode: GPU")
    (line,) = lines("train", "--solver=solver.prototxt", "--minloglevel=1")
    assert line.startswith("solver.prototxt: solver_mode: GPU, but ")


def test_train_goes_on(trained: Path) -> None:
    """And ends at once where all is done, as scripts that are run again rely on."""
    straight = arrays(WEIGHTS)
    Path(WEIGHTS).unlink()
    log = lines("train", "-solver=solver.prototxt", f"-snapshot={STATE}")
    assert "training  iterations 2 to 4" in log
    for key, array in arrays(WEIGHTS).items():
        np.testing.assert_allclose(array, straight[key], rtol=1e-5, atol=1e-7)
    end = STATE.replace("2", "4")
    log = lines("train", "-solver=solver.prototxt", f"-snapshot={end}")
    assert not any(line.startswith("Iteration 4, loss") for line in log)


def test_weights_replace_those_of_the_solver(trained: Path) -> None:
    """Which are not even looked for."""
    Path("lost.prototxt").write_text(f'{SOLVER} weights: "lost.caffemodel"')
    log = lines("train", "-solver=lost.prototxt", f"-weights={WEIGHTS}")
    assert f"weights   2 layers from {WEIGHTS}" in log
    result = run("train", "-solver=lost.prototxt")
    assert result.stderr.endswith("netspec: lost.caffemodel: cannot read: no such file\n")


LEVELS = [
    ("--level=2", 5),
    ("--stage=extra", 5),
    ("--level 3 -stage other,extra", 6),
]


@pytest.mark.parametrize(("flags", "layers"), LEVELS)
def test_level_and_stage(here: Path, flags: str, layers: int) -> None:
    """They choose the layers."""
    log = lines("time", "--model=net.prototxt", "--iterations=1", *flags.split())
    assert sum("\tforward: " in line for line in log) == layers


@pytest.mark.parametrize(("flags", "layers"), [("--stage=extra", 5), LEVELS[2]])
def test_level_and_stage_in_training(here: Path, flags: str, layers: int) -> None:
    """Whatever level the solver states."""
    Path("solver.prototxt").write_text(f"{SOLVER} train_state {{ level: 7 }}")
    log = lines("train", "--solver=solver.prototxt", *flags.split())
    assert any(f": {layers} layers, " in line for line in log)


@pytest.mark.parametrize(
    ("number", "effect", "saved", "end"),
    [
        (signal.SIGINT, "snapshot", [1, 2, 3, 4], "Optimization Done."),
        (signal.SIGINT, "none", [2, 4], "Optimization Done."),
        (signal.SIGHUP, "none", [2, 4], "Optimization Done."),
        (signal.SIGHUP, "stop", [1], "Optimization stopped early."),
    ],
)
def test_effects_of_signals(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    effect: str,
    saved: list[int],
    end: str,
) -> None:
    monkeypatch.setattr(ConsoleReport, "step", lambda *_: signal.raise_signal(number))
    flag = f"--{number.name.lower()}_effect={effect}"
    log = lines("train", "--solver=solver.prototxt", flag)
    assert log[-1] == end
    states = sorted(path.name for path in Path("snap").glob("*.solverstate"))
    assert states == [f"a_iter_{i}.solverstate" for i in saved]


def test_solver_mode_without_a_gpu(here: Path) -> None:
    Path("solver.prototxt").write_text(f"{SOLVER} solver_mode: GPU")
    if devices.accelerators():
        pytest.skip("needs a machine without a GPU")
    log = lines("train", "--solver=solver.prototxt")
    assert log[:2] == [
        "solver.prototxt: solver_mode: GPU, but JAX finds no GPU here",
        "Use CPU.",
    ]


# test


def test_test_prints_what_numpy_computes(trained: Path) -> None:
    log = lines("test", "--model=net.prototxt", f"--weights={WEIGHTS}", "--iterations=3")
    assert log[0] == "Use CPU."
    assert log[2] == "Running for 3 iterations."
    weights = arrays(WEIGHTS)
    with h5py.File("data.h5") as file:
        data, label = file["data"][...], file["label"][...].astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(data, (3, 3), (2, 3))
    conv = np.einsum("ncyxhw,ochw->noyx", windows, weights["conv", 0])
    conv = np.maximum(conv + weights["conv", 1][:, None, None], 0)
    scores = conv.reshape(8, -1) @ weights["fc", 0].T + weights["fc", 1]
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(8), label]
    # The third batch is the first again.
    rows = [slice(0, 4), slice(4, 8), slice(0, 4)]
    accuracy = [np.mean(scores[row].argmax(1) == label[row]) for row in rows]
    loss = [np.mean(losses[row]) for row in rows]
    found = [re.fullmatch(rf"(.*) = ({NUMBER})", line) for line in log[3:9]]
    names = [f"Batch {i}, {name}" for i in range(3) for name in ("accuracy", "loss")]
    assert [match[1] for match in found] == names
    expected = np.ravel(np.column_stack([accuracy, loss]))
    np.testing.assert_allclose([float(match[2]) for match in found], expected, rtol=1e-4)
    assert log[9].startswith("Loss: ")
    assert float(log[9].split()[1]) == pytest.approx(2 * np.mean(loss), rel=1e-4)
    assert log[10] == f"accuracy = {np.mean(accuracy):.6g}"
    mean, weighted = re.fullmatch(
        rf"loss = ({NUMBER}) \(\* 2 = ({NUMBER}) loss\)", log[11]
    ).groups()
    assert float(mean) == pytest.approx(np.mean(loss), rel=1e-4)
    assert float(weighted) == pytest.approx(2 * np.mean(loss), rel=1e-4)
    assert len(log) == 12
