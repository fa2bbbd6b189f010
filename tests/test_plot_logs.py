"""Pictures of what is read of logs."""

import io
import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from logs_of_runs import CAFFE, curves_of, evaluated, step
from PIL import Image

from netspec.cli import main
from netspec.inspect.plot_logs import figure, plot, render
from netspec.inspect.read_logs import Curves

NAN = math.nan


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
