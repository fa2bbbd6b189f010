"""What is read of logs, and the pictures of it."""

import io
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from netspec.cli.main import main
from netspec.inspect.plot_logs import figure, plot, render
from netspec.inspect.read_logs import Curves, read

# As Caffe 1.0 prints them, with average_loss: 2, and as what stands beside the FCNs does.
CAFFE = """\
I1231 23:59:58.396473   655 solver.cpp:280] Solving LeNet
I1231 23:59:58.396482   655 solver.cpp:281] Learning Rate Policy: step
I1231 23:59:58.396499   655 solver.cpp:338] Iteration 0, Testing net (#0)
I1231 23:59:58.532615   655 solver.cpp:406]     Test net output #0: accuracy = 0.4268
I1231 23:59:58.532656   655 solver.cpp:406]     Test net output #1: loss = 2 (* 0.5 = 1 loss)
I1231 23:59:58.532656   655 solver.cpp:406]     Test net output #2: loss2 = 3 (* 1 = 3 loss)
I1231 23:59:58.532723   655 solver.cpp:229] Iteration 0 (-4.2039e-45 iter/s, 1.5s/10 iters), \
loss = 5.5
I1231 23:59:58.532737   655 solver.cpp:245]     Train net output #0: loss = 3 (* 0.5 = 1.5 loss)
I1231 23:59:58.532737   655 solver.cpp:245]     Train net output #1: loss2 = 4 (* 1 = 4 loss)
I1231 23:59:58.532765   655 sgd_solver.cpp:106] Iteration 0, lr = 0.01
>>> 2031-12-31 23:59:59.1 Iteration 10 overall accuracy 0.75
>>> 2031-12-31 23:59:59.1 Iteration 10 mean IU 0.5
I0101 00:00:01.932723   655 solver.cpp:229] Iteration 10 (6.5 iter/s, 1.5s/10 iters), loss = -nan
I0101 00:00:01.932737   655 solver.cpp:245]     Train net output #0: loss = inf (* 0.5 = inf loss)
I0101 00:00:01.932765   655 sgd_solver.cpp:47] MultiStep Status: Iteration 10, step = 1
I0101 00:00:01.932765   655 sgd_solver.cpp:106] Iteration 10, lr = 1e-05
"""
OURS = """\
Solving tiny
Iteration 3, Testing net (#1)
    Test net output #0: pair = 1
    Test net output #1: pair = 2
    score: pixel accuracy 0.7500, mean accuracy 0.5000, mean IU nan, f.w. IU 0.1250 over 9 pixels
Iteration 3, loss = 0.5
    Train net output #0: loss = 0.25 (* 1 = 0.25 loss)
Iteration 3, lr = 0.1 (12 images/s, 0:01 left)
Iteration 4, loss = 0.5
"""
NAN = math.nan


def step(iteration: int, loss: float | None, smoothed: float | None = None) -> str:
    smoothed = loss if smoothed is None else smoothed
    record = {"event": "step", "iteration": iteration, "loss": loss, "smoothed_loss": smoothed,
              "lr": 0.1, "outputs": {"loss": loss}}  # fmt: skip
    return json.dumps(record) + "\n"


def evaluated(iteration: int, total: float, **outputs: Any) -> str:
    metrics = {"score": {"mean_iu": 0.5}}
    record = {"event": "test", "iteration": iteration, "test": 0, "loss": total, "outputs": outputs,
              "metrics": metrics}  # fmt: skip
    return json.dumps(record) + "\n"


def start(iteration: int) -> str:
    return json.dumps({"event": "start", "iteration": iteration}) + "\n"


def curves_of(path: Path, text: str) -> Curves:
    path.write_text(text)
    return read(path)


def known(found: Curves) -> dict[str, Any]:
    """All curves that have a point, as dicts that compare, NaN as None."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        return None if math.isnan(value) else value

    return {name: plain(value) for name, value in vars(found).items() if value}


READINGS = {
    "caffe": (
        CAFFE,
        {
            "loss": {0: 5.5, 10: None},
            "smoothed": {0: 5.5, 10: None},
            "rate": {0: 0.01, 10: 1e-5},
            "test_loss": {0: {0: 4.0}},
            "tests": {
                (0, "accuracy"): {0: 0.4268},
                (0, "loss"): {0: 2.0},
                (0, "loss2"): {0: 3.0},
                (0, "pixel accuracy"): {10: 0.75},
                (0, "mean IU"): {10: 0.5},
            },
        },
    ),
    "ours": (
        OURS,
        {
            "loss": {3: 0.25},
            "smoothed": {3: 0.5, 4: 0.5},
            "rate": {3: 0.1},
            "tests": {
                (1, "pair"): {3: 1.0},
                (1, "pair[1]"): {3: 2.0},
                (1, "score pixel accuracy"): {3: 0.75},
                (1, "score mean accuracy"): {3: 0.5},
                (1, "score mean IU"): {3: None},
                (1, "score f.w. IU"): {3: 0.125},
            },
        },
    ),
    "json": (
        start(0) + step(0, None, 1.5) + '{"event": "snapshot", "iteration": 1}\n{"event": "st\n'
        + '{"some": "other"}\n[1]\n' + step(1, 2.5) + evaluated(2, 4.0, loss=4.0, top=[0.25, None])
        + '{"event": "end", "iteration": 2, "smoothed_loss": 0.5, "message": "Done."}\n',
        {
            "loss": {0: None, 1: 2.5},
            "smoothed": {0: 1.5, 1: 2.5, 2: 0.5},
            "rate": {0: 0.1, 1: 0.1},
            "test_loss": {0: {2: 4.0}},
            "tests": {
                (0, "top"): {2: 0.25},
                (0, "top[1]"): {2: None},
                (0, "score mean IU"): {2: 0.5},
            },
        },
    ),
    "json, resumed": (
        step(0, 1.0) + step(20, 2.0) + evaluated(20, 3.0) + step(30, 2.0) + evaluated(30, 9.0)
        + start(20) + step(25, 4.0),
        {
            "loss": {0: 1.0, 25: 4.0},
            "smoothed": {0: 1.0, 25: 4.0},
            "rate": {0: 0.1, 25: 0.1},
            "test_loss": {0: {20: 3.0}},
            "tests": {(0, "score mean IU"): {20: 0.5}},
        },
    ),
    "text, resumed": (
        OURS + OURS.replace("0.25", "0.75").replace("Iteration 3", "Iteration 2"),
        {
            "loss": {2: 0.75},
            "smoothed": {2: 0.5, 4: 0.5},
            "rate": {2: 0.1},
            "tests": {
                (1, "pair"): {2: 1.0},
                (1, "pair[1]"): {2: 2.0},
                (1, "score pixel accuracy"): {2: 0.75},
                (1, "score mean accuracy"): {2: 0.5},
                (1, "score mean IU"): {2: None},
                (1, "score f.w. IU"): {2: 0.125},
            },
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READINGS)
def test_reading(tmp_path: Path, case: str) -> None:
    text, expected = READINGS[case]
    assert known(curves_of(tmp_path / "log", text)) == expected


def test_glog_lines_of_ours_read_as_bare_ones(tmp_path: Path) -> None:
    prefixed = "".join(
        f"I1121 10:34:25.123456 12345 netspec:0] {line}" for line in OURS.splitlines(True)
    )
    assert known(curves_of(tmp_path / "log", prefixed)) == READINGS["ours"][1]


def train(losses: list[float], smoothed: list[float] | None = None) -> Curves:
    made = Curves()
    made.loss = dict(enumerate(losses))
    made.smoothed = dict(enumerate(losses if smoothed is None else smoothed))
    made.rate = dict.fromkeys(made.loss, 0.1)
    return made


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([5.0, 1.0], "linear"),
        ([100.0, 2.0], "linear"),
        ([250.0, 2.0], "log"),
        ([250.0, 0.0], "linear"),
        ([250.0, NAN, 2.0], "log"),
        ([250.0, -2.0], "linear"),
        ([NAN], "linear"),
    ],
)
def test_scale(losses: list[float], scale: str) -> None:
    assert figure({"log": train(losses)}).axes[0].get_yscale() == scale


def drawn(found: Curves) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata()) for line in figure({"log": found}).axes[0].lines]


def test_raw_and_smoothed() -> None:
    """Both where the solver averages, else a mean of many, and nothing twice of few."""
    raw, smoothed = drawn(train([3.0, 1.0, 2.0], [3.0, 2.0, 1.5]))
    np.testing.assert_array_equal(raw, [3, 1, 2])
    np.testing.assert_array_equal(smoothed, [3, 2, 1.5])
    (alone,) = drawn(train([3.0, 1.0, 2.0]))
    np.testing.assert_array_equal(alone, [3, 1, 2])
    many = [1.0, 3.0, NAN] * 100
    raw, mean = drawn(train(many))
    np.testing.assert_array_equal(raw, many)
    np.testing.assert_array_equal(np.isnan(mean), np.isnan(many))
    middle = mean[np.isfinite(mean)][5:-5]
    assert 1.5 < middle.min() < middle.max() < 2.5


def test_very_many_points_keep_their_extremes() -> None:
    values = np.ones(100_000)
    values[[12_345, 67_890]] = 9, -9
    raw, _ = drawn(train(list(values)))
    assert len(raw) < 5000
    assert (raw.min(), raw.max()) == (-9, 9)


def test_panels(tmp_path: Path) -> None:
    """One for each measured thing, and a legend of all logs."""
    first = curves_of(tmp_path / "a", CAFFE)
    second = curves_of(tmp_path / "b", step(0, 2.0) + evaluated(0, 2.0, accuracy=0.5))
    made = figure({"a$b$.log": first, "_b.log": second})
    labels = [axes.get_ylabel() for axes in made.axes]
    assert labels == [
        "loss", "learning rate", "test accuracy", "test loss", "test loss2", "test pixel accuracy",
        "test mean IU", "test score mean IU",
    ]  # fmt: skip
    assert {axes.get_xlabel() for axes in made.axes} == {"iteration"}
    (legend,) = made.legends
    assert [text.get_text() for text in legend.get_texts()] == [r"a\$b\$.log", "_b.log"]
    colours = [
        {line.get_color() for line in axes.lines if len(np.asarray(line.get_xdata()))}
        for axes in made.axes
    ]
    assert colours[0] == colours[2] == {"C0", "C1"}
    assert colours[3] == {"C0"}


def test_more_outputs_than_there_is_room_for() -> None:
    made = Curves()
    for i in range(40):
        made.tests[0, f"a-name-of-more-letters-than-an-axis-has-{i}"][0] = 1.0
    shown = figure({f"log{i}": made for i in range(12)})
    assert len(shown.axes) == 12
    assert shown.get_supxlabel() == "29 more test outputs are not drawn"
    assert len({line.get_color() for line in shown.axes[1].lines}) == 12


@pytest.mark.parametrize("points", [1, 2, 100_000])
def test_a_png(points: int) -> None:
    """Something in the log's colour is drawn."""
    losses = list(itertools.islice(itertools.cycle([3.0, 1.0, 2.0]), points))
    with Image.open(io.BytesIO(render({"log": train(losses)}, "png"))) as image:
        assert image.width == 1600
        pixels = np.asarray(image.convert("RGB"), int)
    blue = np.abs(pixels - (0x1F, 0x77, 0xB4)).max(-1) < 9
    # The legend's line is in the first 100 rows.
    assert blue[100:].sum() > 20


def test_a_plot_is_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(CAFFE)
    for name in ("a.svg", "b.svg"):
        plot([tmp_path / "log"], tmp_path / name)
    svg = (tmp_path / "a.svg").read_bytes()
    assert svg == (tmp_path / "b.svg").read_bytes()
    assert b"learning rate" in svg


def test_logs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "log").write_text(CAFFE)
    logs = [tmp_path / "a" / "log", tmp_path / "b" / "log", tmp_path / "b" / "log"]
    plot(logs, tmp_path / "out.svg")
    svg = (tmp_path / "out.svg").read_text()
    for label in (f"{logs[0]}", f"{logs[1]} (1)", f"{logs[1]} (2)"):
        short = label if len(label) <= 70 else label[-34:]
        assert short in svg


def test_no_state_is_left_behind() -> None:
    """No pyplot, and the user's settings as they were."""
    script = (
        "import sys, matplotlib\n"
        "matplotlib.rcParams['font.size'] = 33\n"
        "from netspec.inspect.read_logs import Curves\n"
        "from netspec.inspect.plot_logs import render\n"
        "found = Curves(); found.loss[0] = 1.0\n"
        "render({'log': found}, 'svg')\n"
        "print('matplotlib.pyplot' in sys.modules, 'jax' in sys.modules,\n"
        "      matplotlib.rcParams['font.size'])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.split() == ["False", "False", "33.0"]


MISTAKES = [
    ("nowhere -o a.svg", "nowhere: no such file"),
    (". -o a.svg", ".: is a directory"),
    ("log empty -o a.svg", 'empty: no record of training; looked for lines as {"event": "step", '
     '...} of PREFIX.log.jsonl and "Iteration 20, loss = 0.5" of a text log'),
    ("log -o a.pdf", 'a.pdf: cannot plot ".pdf"; the name of a plot ends in .svg or .png'),
    ("nowhere -o svg", 'svg: cannot plot "svg"; the name of a plot ends in .svg or .png'),
    ("log -o log/a.svg", "log/a.svg: not a directory"),
    ("log -o folder.png", "folder.png: is a directory"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log").write_text(CAFFE)
    Path("empty").write_bytes(b"\xff\x00 no log\n{\n")
    Path("folder.png").mkdir()
    result = CliRunner().invoke(main, ["plot", *arguments.split()])
    assert (result.exit_code, result.stderr) == (1, f"netspec: {message}\n")


def test_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log").write_text(CAFFE)
    result = CliRunner().invoke(main, ["plot", "log", "-o", "new/curves.PNG"])
    assert (result.exit_code, result.output) == (0, "new/curves.PNG\n")
    with Image.open("new/curves.PNG") as image:
        assert image.format == "PNG"
