"""Plot training logs: loss, learning rate and tests over iterations."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from netspec.errors import NetSpecError, require, unreadable
from netspec.formats.atomic import atomic_write
from netspec.inspect.read_logs import Curve, Curves, read, same

Points = NDArray[np.float64]

_WIDTH = 10.0
_LOSS_HEIGHT, _PANEL_HEIGHT, _LEGEND_HEIGHT = 4.0, 2.4, 0.3
_DOTS_AN_INCH = 160
_INK, _SOFT, _GRID = "#1f2933", "#5b6672", "#e3e6ea"
# Beyond these there is no room: panels of tests; letters of a name on an axis, in the legend.
_MOST_PANELS = 11
_AXIS_LETTERS, _LEGEND_LETTERS, _LEGEND_LINE = 28, 70, 110
# A curve of few points shows them; one of very many is drawn by the extremes of this many parts.
_FEW = 60
_PARTS = 2000
# The mean that is drawn where there are many steps spans a share of them: a small one if the solver
# averages losses itself.
_SHARE, _SHARE_OF_AVERAGED, _MOST_AVERAGED = 50, 200, 501
# Two decades, but for rounding: rates fall by powers of 10.
_DECADES = 99.9
_MARKERS = "os^D"
# Any, as matplotlib types each key of its own.
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _SOFT,
    "axes.formatter.useoffset": False,
    "axes.labelcolor": _INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.color": _GRID,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "svg.hashsalt": "netspec",
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
}


def plot(logs: Sequence[str | Path], out: str | Path) -> None:
    """Draw the curves of log files to ``out``, a .svg or a .png; a colour a log.

    Raises NetSpecError for a log that cannot be read or tells of no training, for another ending
    and for a file that cannot be written.
    """
    out = Path(out)
    kind = out.suffix.lower().removeprefix(".")
    require(
        kind in ("svg", "png"),
        f'{out}: cannot plot "{out.suffix or out.name}"; the name of a plot ends in .svg or .png',
        NetSpecError,
    )
    picture = render(dict(zip(_labels(logs), map(read, logs), strict=True)), kind)
    try:
        with atomic_write(out) as part:
            part.write_bytes(picture)
    except OSError as error:
        raise NetSpecError(unreadable(out, error)) from None


def render(logs: Mapping[str, Curves], kind: str) -> bytes:
    """The curves of logs, by the name of each, as the bytes of an "svg" or "png" file."""
    with mpl.rc_context():
        # The picture is the same whatever the user's own style is.
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        file = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else None
        figure(logs).savefig(file, format=kind, dpi=_DOTS_AN_INCH, metadata=metadata)
    return file.getvalue()


def figure(logs: Mapping[str, Curves]) -> Figure:
    """The curves of logs as a figure: loss above, then a panel each for what else there is."""
    tests = list(dict.fromkeys(key for curves in logs.values() for key in curves.tests))
    shown, hidden = tests[:_MOST_PANELS], tests[_MOST_PANELS:]
    panels = len(shown) + any(curves.rate for curves in logs.values())
    rows = (panels + 1) // 2
    heights = [_LOSS_HEIGHT, *[_PANEL_HEIGHT] * rows]
    made = Figure(
        figsize=(_WIDTH, sum(heights) + _LEGEND_HEIGHT * (1 + len(logs) // 4)), layout="constrained"
    )
    grid = made.add_gridspec(len(heights), 2, height_ratios=heights)
    top = made.add_subplot(grid[0, :])
    colours = _colours(len(logs))
    _draw_loss(top, logs, colours)
    places = [grid[1 + i // 2, i % 2] for i in range(panels)]
    if panels % 2:
        places[-1] = grid[rows, :]
    axes = [made.add_subplot(place, sharex=top) for place in places]
    if len(axes) > len(shown):
        _draw_rate(axes.pop(0), logs, colours)
    several = len({test for test, _ in tests}) > 1
    for one, (test, name) in zip(axes, shown, strict=True):
        _draw_test(one, [curves.tests.get((test, name), {}) for curves in logs.values()], colours)
        one.set_ylabel(_elided(f"test {f'#{test} ' if several else ''}{name}", _AXIS_LETTERS))
    _finish(made, list(logs), colours)
    if hidden:
        made.supxlabel(f"{len(hidden)} more test outputs are not drawn", size=9, color=_SOFT)
    return made


def _draw_loss(axes: Axes, logs: Mapping[str, Curves], colours: Sequence[Any]) -> None:
    key: dict[str, Line2D] = {}
    drawn = [_train(curves) for curves in logs.values()]
    name = "train, smoothed" if any(len(raw[0]) for raw, _ in drawn) else "train"
    for (raw, strong), colour in zip(drawn, colours, strict=True):
        if len(raw[0]):
            _line(axes, *raw, color=colour, alpha=0.3, linewidth=0.7)
            key["train, each step"] = Line2D([], [], color=_SOFT, alpha=0.5, linewidth=0.7)
        if len(strong[0]):
            _line(axes, *strong, color=colour, linewidth=1.6)
            key[name] = Line2D([], [], color=_SOFT, linewidth=1.6)
    several = len({test for curves in logs.values() for test in curves.test_loss}) > 1
    for curves, colour in zip(logs.values(), colours, strict=True):
        for test, curve in sorted(curves.test_loss.items()):
            style: dict[str, Any] = {
                "linestyle": "--",
                "linewidth": 1.2,
                "marker": _MARKERS[test % len(_MARKERS)],
                "markersize": 5,
                "markeredgecolor": "white",
            }
            _line(axes, *_points(curve), color=colour, zorder=3, **style)
            name = f"test #{test}" if several else "test"
            key[name] = Line2D([], [], color=_SOFT, **style)
    _scale(axes, _drawn(axes), 0.0)
    axes.set_ylabel("loss")
    if key:
        axes.legend(key.values(), key.keys(), loc="upper right")


def _draw_rate(axes: Axes, logs: Mapping[str, Curves], colours: Sequence[Any]) -> None:
    for curves, colour in zip(logs.values(), colours, strict=True):
        _line(axes, *_points(curves.rate), color=colour, linewidth=1.6)
    # A rate that falls to 0 in a straight line ends with a few that are many decades lower.
    _scale(axes, _drawn(axes), 0.05)
    axes.set_ylabel("learning rate")


def _draw_test(axes: Axes, curves: Sequence[Curve], colours: Sequence[Any]) -> None:
    for curve, colour in zip(curves, colours, strict=True):
        _line(axes, *_points(curve), color=colour, linewidth=1.6, marker="o", markersize=4)


def _finish(made: Figure, names: Sequence[str], colours: Sequence[Any]) -> None:
    """The axes' furniture, and above them all which colour is which log."""
    for axes in made.axes:
        axes.set_xlabel("iteration")
        axes.grid(True)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    labels = [_elided(name, _LEGEND_LETTERS) for name in names]
    columns = max(1, _LEGEND_LINE // (max(map(len, labels)) + 6))
    made.legend(
        [Line2D([], [], color=colour, linewidth=3) for colour in colours],
        labels,
        loc="outside upper left",
        ncols=min(columns, len(labels)),
    )


def _train(curves: Curves) -> tuple[tuple[Points, Points], tuple[Points, Points]]:
    """What to draw faintly and what strongly, each iterations and values.

    The strong one is the loss as the solver averages it, and a mean of its own where that averages
    none, or where there are more steps than a picture can show.
    """
    averaged = {i: value for i, value in curves.smoothed.items() if i in curves.loss}
    if same({i: curves.loss[i] for i in averaged}, averaged):
        # What either has: Caffe's text ends with a smoothed loss that is no step's.
        raw = strong = _points({**curves.loss, **curves.smoothed})
        share = _SHARE
    else:
        raw, strong = _points(curves.loss), _points(curves.smoothed)
        share = _SHARE_OF_AVERAGED
    width = min(len(strong[0]) // share, _MOST_AVERAGED)
    if width > 1:
        return raw, (strong[0], _mean(strong[1], width | 1))
    return (_points({}) if raw is strong else raw), strong


def _mean(values: Points, width: int) -> Points:
    """The mean of the ``width`` values around each, of those that are finite."""
    finite = np.isfinite(values)
    ones = np.ones(width)
    counts = np.convolve(finite, ones, "same")
    sums = np.convolve(np.where(finite, values, 0.0), ones, "same")
    return np.where(finite, sums / np.maximum(counts, 1), np.nan)


def _points(curve: Curve) -> tuple[Points, Points]:
    """Iterations, ascending, and the value at each."""
    iterations = sorted(curve)
    return np.array(iterations, float), np.array([curve[i] for i in iterations], float)


def _line(axes: Axes, iterations: Points, values: Points, **style: Any) -> None:
    if len(iterations) > _FEW:
        style["marker"] = ""
    elif "marker" not in style:
        style |= {"marker": "o", "markersize": 2.5}
    kept = _extremes(values)
    axes.plot(iterations[kept], values[kept], **style)


def _extremes(values: Points) -> NDArray[np.intp]:
    """Where a curve has its lowest and highest value in each of `_PARTS`; all of a short one."""
    if len(values) <= 2 * _PARTS:
        return np.arange(len(values))
    parts = np.array_split(np.arange(len(values)), _PARTS)
    low, high = np.nan_to_num(values, nan=np.inf), np.nan_to_num(values, nan=-np.inf)
    ends = [
        part[0] + f(array[part])
        for part in parts
        for f, array in ((np.argmin, low), (np.argmax, high))
    ]
    return np.unique([0, *ends, len(values) - 1])


def _drawn(axes: Axes) -> Points:
    """The finite values of all lines."""
    lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    values = np.concatenate([*lines, np.zeros(0)])
    return values[np.isfinite(values)]


def _scale(axes: Axes, values: Points, rare: float) -> None:
    """A log scale where values span more than two decades, the lowest ``rare`` share aside."""
    if values.size and values.min() >= 0:
        low = np.quantile(values, rare, method="nearest")
        if low > 0 and values.max() >= _DECADES * low:
            axes.set_yscale("log", nonpositive="mask")


def _colours(count: int) -> list[Any]:
    if count <= 10:
        return [f"C{i}" for i in range(count)]
    return [mpl.colormaps["turbo"](share) for share in np.linspace(0.02, 0.98, count)]


def _labels(paths: Sequence[str | Path]) -> list[str]:
    """File names, and whole paths where two have the same; a log named twice is numbered."""
    names = Counter(Path(path).name for path in paths)
    labels = [Path(path).name if names[Path(path).name] == 1 else str(path) for path in paths]
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: i + 1].count(label)})"
        for i, label in enumerate(labels)
    ]


def _elided(words: str, most: int) -> str:
    """A text without its middle where it is too long, and with no formula in it."""
    half = (most - 1) // 2
    shown = words if len(words) <= most else f"{words[:half]}…{words[-half:]}"
    return shown.replace("$", r"\$")
