"""``netspec solve`` and ``netspec test``."""

import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from command_line import WEIGHTS, changed, mistake, output, run
from command_line import here as here
from command_line import signals as signals
from command_line import trained as trained
from PIL import Image

from netspec.reporting.console import ConsoleReport
from netspec.segmentation.shapes_set import CLASSES
from netspec.weights.caffemodel import read_weights

NUMBER = r"-?[\d.]+(?:e[+-]\d+)?"


STATE = "snap/tiny_iter_2.solverstate"


# solve


def test_solve_says_what_it_does(trained: Path) -> None:
    log = (trained / "log.txt").read_text()
    plan = [line.split()[0] for line in log.splitlines()[:6]]
    assert plan == ["net", "data", "memory", "loss", "regime", "training"]
    tests = re.findall(r"Iteration (\d+), Testing net \(#0\)", log)
    assert tests == ["0", "3"]
    losses = re.findall(rf"Iteration (\d+), loss = {NUMBER}", log)
    # The last line is of one more batch, after all updates.
    assert losses == ["0", "1", "2", "3"]
    assert re.findall(rf"Iteration (\d+), lr = ({NUMBER})", log) == [
        (str(i), "0.0001") for i in range(3)
    ]
    assert len(re.findall(rf"    Train net output #0: loss = {NUMBER} \(\* 1 = ", log)) == 3
    assert len(re.findall(rf"    score: pixel accuracy {NUMBER}, mean accuracy ", log)) == 2
    assert log.endswith("Optimization Done.\n")


def test_solve_writes_snapshots(trained: Path) -> None:
    log = (trained / "log.txt").read_text()
    written = re.findall(r"Snapshotting .*to binary proto file (\S+)", log)
    ends = ("caffemodel", "solverstate")
    assert written == [f"snap/tiny_iter_{i}.{end}" for i in (2, 3) for end in ends]
    assert {path.name for path in (trained / "snap").iterdir()} == {
        "tiny.log.jsonl",
        *(f"tiny_iter_{i}.{end}" for i in (2, 3) for end in (*ends, "resume.json")),
    }
    layers = read_weights(trained / WEIGHTS).layers
    assert {
        (name, i): blob.array.shape for name, blobs in layers.items() for i, blob in blobs.items()
    } == {
        ("conv", 0): (4, 3, 3, 3),
        ("conv", 1): (4,),
        ("up", 0): (4, 6, 4, 4),
        ("up", 1): (6,),
    }


def test_solve_goes_on_from_a_snapshot(here: Path) -> None:
    first = (here / "log.txt").read_text()
    straight = read_weights("snap/tiny_iter_3.caffemodel")
    log = output("solve", "solver.prototxt", "--snapshot", STATE)
    assert "training  iterations 2 to 3\n" in log
    (loss,) = re.findall(rf"Iteration 2, loss = ({NUMBER})", log)
    assert f"Iteration 2, loss = {loss}" in first
    again = read_weights("snap/tiny_iter_3.caffemodel")
    for name, blobs in straight.layers.items():
        for i, blob in blobs.items():
            np.testing.assert_allclose(
                again.layers[name][i].array, blob.array, rtol=1e-5, atol=1e-7
            )


def test_solve_goes_on_further_than_the_solver_says(here: Path) -> None:
    log = output("solve", "solver.prototxt", "--snapshot", STATE, "--max-iter", 4)
    assert "training  iterations 2 to 4\n" in log
    assert (here / "snap" / "tiny_iter_4.solverstate").is_file()


def test_solve_starts_from_weights(here: Path) -> None:
    solver = changed("solver.prototxt", "test_iter: 2", "")
    log = output("solve", solver, "--weights", WEIGHTS, "--max-iter", 1)
    assert f"weights   2 layers from {WEIGHTS}\n" in log
    assert "training  iterations 0 to 1\n" in log


@pytest.mark.parametrize(("interrupts", "status"), [(1, 0), (2, 130)])
def test_an_interrupt_ends_a_run_with_a_snapshot(
    here: Path, monkeypatch: pytest.MonkeyPatch, interrupts: int, status: int
) -> None:
    """After the step under way; a second one ends it at once."""
    monkeypatch.setattr(
        ConsoleReport,
        "step",
        lambda *_: [signal.raise_signal(signal.SIGINT) for _ in range(interrupts)],
    )
    result = run("solve", changed("solver.prototxt", "test_iter: 2", ""))
    assert result.exit_code == status
    assert "Stopping after this step, with a snapshot (once more: at once).\n" in result.stdout
    written = "Snapshotting solver state to binary proto file snap/tiny_iter_1.solverstate\n"
    ending = f"{written}Optimization stopped early.\n"
    assert result.stdout.endswith(ending) is (status == 0)
    assert Path("snap/tiny_iter_1.solverstate").exists() is (status == 0)


SOLVERS = [
    ('net: "net.prototxt"', "", "solver_changed.prototxt: needs exactly one of net, net_param, "
     "train_net, train_net_param; it has none"),
    ('net: "net.prototxt"', 'net: "nets.prototxt"', "solver_changed.prototxt: nets.prototxt: no "
     "such file"),
    ('net: "net.prototxt"', 'nets: "net.prototxt"', 'solver_changed.prototxt:1: unknown field '
     '"nets" in SolverParameter; did you mean "net"?'),
    ('"fixed"', '"fixd"', 'solver_changed.prototxt:3: unknown lr_policy "fixd"; did you mean '
     '"fixed"?'),
    ("max_iter: 3", "", "solver_changed.prototxt: needs max_iter, or --max-iter"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), SOLVERS)
def test_solvers_that_cannot_run(here: Path, old: str, new: str, message: str) -> None:
    assert mistake("solve", changed("solver.prototxt", old, new)).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("solve nowhere.prototxt", "nowhere.prototxt: no such file"),
        (
            "solve net.prototxt",
            'net.prototxt:1: unknown field "name" in SolverParameter; it belongs in a net, but '
            "this file is read as a solver",
        ),
        ("solve solver.prototxt --weights nowhere.caffemodel", "nowhere.caffemodel: cannot read: "
         "no such file"),
        ("solve solver.prototxt --snapshot nowhere.solverstate", "nowhere.solverstate: cannot "
         "read: no such file"),
        (
            f"solve solver.prototxt --weights {WEIGHTS} --snapshot {STATE}",
            "--weights starts a run and --snapshot goes on with one; give one",
        ),
        ("solve solver.prototxt --max-iter 0", "--max-iter 0: a run ends at iteration 1 or later"),
        (
            "solve solver.prototxt --keep 0",
            "--keep 0: at least 1 snapshot is kept",
        ),
        (
            f"solve solver.prototxt --resume --snapshot {STATE}",
            "--resume finds the newest snapshot itself, and --snapshot names one; give one",
        ),
        (
            f"solve solver.prototxt --snapshot {STATE} --max-iter 2",
            f"{STATE}: is at iteration 2, and the run ends at 2; --max-iter goes further",
        ),
    ],
)  # fmt: skip
def test_solve_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake(*arguments.split()) == message


def test_a_damaged_snapshot(here: Path) -> None:
    content = Path(STATE).read_bytes()
    Path(STATE).write_bytes(content[: len(content) // 2])
    assert mistake("solve", "solver.prototxt", "--snapshot", STATE).startswith(f"{STATE}: ")


def test_a_snapshot_of_another_net(here: Path) -> None:
    changed("net.prototxt", "num_output: 4", "num_output: 5")
    solver = changed("solver.prototxt", '"net.prototxt"', '"net_changed.prototxt"')
    message = mistake("solve", solver, "--snapshot", STATE)
    assert "4x3x3x3" in message
    assert "5x3x3x3" in message
    assert 'layer "conv"' in message


# test


def test_test_prints_outputs_and_metrics(here: Path) -> None:
    lines = output("test", "net.prototxt", WEIGHTS).splitlines()
    assert lines[0] == f"2 layers from {WEIGHTS}"
    assert re.fullmatch(rf"2 batches, loss ({NUMBER})", lines[1])
    loss = lines[1].split()[-1]
    assert lines[2] == f"    Test net output #0: loss = {loss} (* 1 = {loss} loss)"
    assert lines[4:6] == ["", "score"]
    table = dict(re.split(r"  +", line) for line in lines[6:])
    assert list(table) == [
        "pixel accuracy",
        "mean accuracy",
        "mean IU",
        "f.w. IU",
        *(f"IU {name}" for name in CLASSES),
    ]
    assert all(share == "nan" or 0 <= float(share) <= 1 for share in table.values())


def test_test_runs_as_many_batches_as_asked(here: Path) -> None:
    assert output("test", "net.prototxt", "--iterations", 3).startswith("3 batches, loss ")


TESTS = [
    ("nowhere.prototxt", "nowhere.prototxt: no such file"),
    ("solver.prototxt", 'solver.prototxt:1: unknown field "net" in NetParameter; it belongs in a '
     "solver, but this file is read as a net"),
    ("net.prototxt nowhere.caffemodel", "nowhere.caffemodel: cannot read: no such file"),
    ("deploy.prototxt", "deploy.prototxt: no data layer feeds data, which an Input layer makes; "
     "give a net that has data layers"),
    ("net.prototxt --iterations 0", "0 test batches; at least 1 is needed"),
    ("net.prototxt --iterations -2", "-2 test batches; at least 1 is needed"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), TESTS, ids=[arguments for arguments, _ in TESTS])
def test_test_mistakes(here: Path, arguments: str, message: str) -> None:
    assert mistake("test", *arguments.split()) == message


def test_truncated_weights(here: Path) -> None:
    content = Path(WEIGHTS).read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 1):
        Path("cut.caffemodel").write_bytes(content[:length])
        assert mistake("test", "net.prototxt", "cut.caffemodel").startswith("cut.caffemodel: ")


def test_weights_that_do_not_fit(here: Path) -> None:
    net = changed("net.prototxt", "num_output: 4", "num_output: 5")
    assert mistake("test", net, WEIGHTS) == (
        f'{WEIGHTS}: layer "conv" (Convolution): weight is 4x3x3x3 in the file, 5x3x3x3 in the '
        "net; skip_misfits (--skip-misfits) leaves the layer as it is; to learn it anew, rename it"
    )


def test_a_label_out_of_range(here: Path) -> None:
    """The message names the file, the place in it and what is allowed."""
    labels = np.zeros((32, 40), np.uint8)
    labels[5, 7] = 6
    Image.fromarray(labels).save("voc/SegmentationClass/val_0001.png")
    message = (
        'net.prototxt:16: layer "loss" (SoftmaxWithLoss): label 6 at (x 7, y 5) of '
        "voc/SegmentationClass/val_0001.png; the net has 6 classes (0..5) and ignores 255"
    )
    assert mistake("test", "net.prototxt") == message
    solver = changed("solver.prototxt", "test_interval: 3", "test_interval: 1")
    assert mistake("solve", solver) == message


def test_missing_data(here: Path) -> None:
    """The message says what is missing and how one comes by it."""
    shutil.rmtree("voc")
    for verb in (["test", "net.prototxt"], ["solve", "solver.prototxt"]):
        message = mistake(*verb)
        line = 5 if verb[0] == "test" else 2
        assert message.startswith(
            f'net.prototxt:{line}: layer "data" (Python): voc_dir "voc": no such folder, from here '
            "or from the prototxt; get "
        )
        assert "set voc_dir to the folder" in message


def test_a_missing_sample(here: Path) -> None:
    Path("voc/JPEGImages/val_0001.jpg").unlink()
    assert mistake("test", "net.prototxt") == (
        'net.prototxt:5: layer "data" (Python): split "val" lacks 1 of its 4 files: '
        "voc/JPEGImages/val_0001.jpg"
    )
