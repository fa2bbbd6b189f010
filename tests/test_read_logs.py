"""What is read of logs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from logs_of_runs import CAFFE, curves_of, evaluated, step

from netspec.inspect.read_logs import Curves

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


def start(iteration: int) -> str:
    return json.dumps({"event": "start", "iteration": iteration}) + "\n"


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
