"""Text logs in the dialects of Caffe's forks, and lines that belong to none."""

import math
from pathlib import Path
from typing import Any

import pytest
from logs_of_runs import curves_of

# Each run's single losses are 3, NaN and 0.25, of two outputs; its averaged ones 3, 2 and 1.
BVLC = """\
I0203 04:05:06.000001  77 solver.cpp:347] Iteration 0, Testing net (#0)
I0203 04:05:06.000002  77 solver.cpp:414]     Test net output #0: top = 0.125
I0203 04:05:06.000003  77 solver.cpp:414]     Test net output #1: cost = 4 (* 1 = 4 loss)
I0203 04:05:06.000004  77 solver.cpp:239] Iteration 0 (0 iter/s, 0.5s/7 iters), loss = 3
I0203 04:05:06.000005  77 solver.cpp:258]     Train net output #0: aux = 2 (* 0.5 = 1 loss)
I0203 04:05:06.000006  77 solver.cpp:258]     Train net output #1: cost = 2 (* 1 = 2 loss)
I0203 04:05:06.000007  77 sgd_solver.cpp:112] Iteration 0, lr = 0.1
I0203 04:05:07.000004  77 solver.cpp:239] Iteration 7 (14 iter/s, 0.5s/7 iters), loss = 2
I0203 04:05:07.000005  77 solver.cpp:258]     Train net output #0: aux = -nan (* 0.5 = -nan loss)
I0203 04:05:07.000006  77 solver.cpp:258]     Train net output #1: cost = 2 (* 1 = 2 loss)
I0203 04:05:07.000007  77 sgd_solver.cpp:50] MultiStep Status: Iteration 7, step = 1
I0203 04:05:07.000008  77 sgd_solver.cpp:112] Iteration 7, lr = 0.01
I0203 04:05:08.000004  77 solver.cpp:239] Iteration 14 (14 iter/s, 0.5s/7 iters), loss = 1
I0203 04:05:08.000005  77 solver.cpp:258]     Train net output #0: aux = 0.25 (* 0.5 = 0.125 loss)
I0203 04:05:08.000006  77 solver.cpp:258]     Train net output #1: cost = 0.125 (* 1 = 0.125 loss)
I0203 04:05:08.000007  77 sgd_solver.cpp:112] Iteration 14, lr = 0.01
"""
NVIDIA = """\
I0203 04:05:06.000001  77 solver.cpp:494] Iteration 0, Testing net (#0)
I0203 04:05:06.000002  77 solver.cpp:581]     (0.0)     Test net output #0: top = 0.125
I0203 04:05:06.000003  77 solver.cpp:581]     (0.0)     Test net output #1: cost = 4 (* 1 = 4 loss)
I0203 04:05:06.000004  77 solver.cpp:342]     [0.0] Iteration 0 (0.5 s), loss = 3
I0203 04:05:06.000005  77 solver.cpp:358]     [0.0]     Train net output #0: aux = 2 (* 0.5 = 1 loss)
I0203 04:05:06.000006  77 solver.cpp:358]     [0.0]     Train net output #1: cost = 2 (* 1 = 2 loss)
I0203 04:05:06.000007  77 sgd_solver.cpp:180] [0.0] Iteration 0, lr = 0.1, m = 0.9, lrm = 1, wd = 0, gs = 1
I0203 04:05:07.000004  77 solver.cpp:337]     [0.0] Iteration 7 (14 iter/s, 0.5s/7 iter), 0.5/1ep, loss = 2
I0203 04:05:07.000005  77 solver.cpp:358]     [0.0]     Train net output #0: aux = -nan (* 0.5 = -nan loss)
I0203 04:05:07.000006  77 solver.cpp:358]     [0.0]     Train net output #1: cost = 2 (* 1 = 2 loss)
I0203 04:05:07.000008  77 sgd_solver.cpp:180] [0.0] Iteration 7, lr = 0.01, m = 0.9, lrm = 1, wd = 0, gs = 1
I0203 04:05:08.000004  77 solver.cpp:337]     [0.0] Iteration 14 (14 iter/s, 0.5s/7 iter), 1/1ep, loss = 1
I0203 04:05:08.000005  77 solver.cpp:358]     [0.0]     Train net output #0: aux = 0.25 (* 0.5 = 0.125 loss)
I0203 04:05:08.000006  77 solver.cpp:358]     [0.0]     Train net output #1: cost = 0.125 (* 1 = 0.125 loss)
I0203 04:05:08.000007  77 sgd_solver.cpp:180] [0.0] Iteration 14, lr = 0.01, m = 0.9, lrm = 1, wd = 0, gs = 1
"""  # noqa: E501 - a line of a log is one.
INTEL = """\
I0203 04:05:06.000001  77 solver.cpp:474] Iteration 0, Testing net (#0)
I0203 04:05:06.000002  77 solver.cpp:562]     Test net output #0: top = 0.125
I0203 04:05:06.000003  77 solver.cpp:562]     Test net output #1: cost = 4 (* 1 = 4 loss)
I0203 04:05:06.000004  77 solver.cpp:312] Iteration 0, loss = 3
I0203 04:05:06.000005  77 solver.cpp:333]     Train net output #0: aux = 2 (* 0.5 = 1 loss)
I0203 04:05:06.000006  77 solver.cpp:333]     Train net output #1: cost = 2 (* 1 = 2 loss)
I0203 04:05:06.000006  77 sgd_solver.cpp:158] Plateau Status: Iteration 0, current minimum_loss = 9
I0203 04:05:06.000007  77 sgd_solver.cpp:225] Iteration 0, lr = 0.1
I0203 04:05:07.000004  77 solver.cpp:312] Iteration 7, loss = 2
I0203 04:05:07.000005  77 solver.cpp:333]     Train net output #0: aux = -nan (* 0.5 = -nan loss)
I0203 04:05:07.000006  77 solver.cpp:333]     Train net output #1: cost = 2 (* 1 = 2 loss)
I0203 04:05:07.000008  77 sgd_solver.cpp:225] Iteration 7, lr = 0.01
I0203 04:05:08.000004  77 solver.cpp:312] Iteration 14, loss = 1
I0203 04:05:08.000005  77 solver.cpp:333]     Train net output #0: aux = 0.25 (* 0.5 = 0.125 loss)
I0203 04:05:08.000006  77 solver.cpp:333]     Train net output #1: cost = 0.125 (* 1 = 0.125 loss)
I0203 04:05:08.000007  77 sgd_solver.cpp:225] Iteration 14, lr = 0.01
"""
DIALECTS = {
    "BVLC": BVLC,
    "NVIDIA": NVIDIA,
    "Intel": INTEL,
    "Windows": BVLC.replace("-nan", "-nan(ind)").replace("\n", "\r\n"),
    "an older Windows": BVLC.replace("-nan", "-1.#IND").replace("\n", "\r\n"),
    "capitals": BVLC.replace("-nan", "NaN"),
    "time left": BVLC.replace("loss = 2\n", "loss = 2, remaining 3 hours and 4 minutes\n"),
    "ranks": BVLC.replace("] Iteration", "]  rank = 0 Iteration"),
    "DIGITS": "digits: starting\n" + NVIDIA + "I0203 04:05:09.1  77 caffe.cpp:259] Done.\n",
}


def finite(curve: dict[int, float]) -> dict[int, float | None]:
    """A curve that compares, NaN as None."""
    return {i: None if math.isnan(value) else value for i, value in curve.items()}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_tells_the_same_run(tmp_path: Path, name: str) -> None:
    found = curves_of(tmp_path / "log", DIALECTS[name])
    assert finite(found.loss) == {0: 3.0, 7: None, 14: 0.25}
    assert finite(found.smoothed) == {0: 3.0, 7: 2.0, 14: 1.0}
    assert finite(found.rate) == {0: 0.1, 7: 0.01, 14: 0.01}
    assert {test: finite(curve) for test, curve in found.test_loss.items()} == {0: {0: 4.0}}
    assert {key: finite(curve) for key, curve in found.tests.items()} == {(0, "top"): {0: 0.125}}


def losses(text: str, path: Path) -> Any:
    return finite(curves_of(path, text).loss)


@pytest.mark.parametrize(
    "head", ["Iteration 7 of 14: 2", "Iteration 7 | loss 2", "step 7 done", "Iteration 7 lr 2"]
)
def test_outputs_after_a_line_that_is_not_understood_are_left_out(
    tmp_path: Path, head: str
) -> None:
    """They were added to the loss of the iteration before."""
    known = "Iteration 7 (14 iter/s, 0.5s/7 iters), loss = 2"
    assert known in BVLC
    assert losses(BVLC.replace(known, head), tmp_path / "log") == {0: 3.0, 14: 0.25}


def test_a_log_of_no_known_head_is_no_log_of_training(tmp_path: Path) -> None:
    lines = (f"    Train net output #0: loss = {i} (* 1 = {i} loss)\n" for i in range(3))
    with pytest.raises(RuntimeError, match="no record of training"):
        curves_of(tmp_path / "log", "".join(lines))


def test_another_thread_writes_into_a_block(tmp_path: Path) -> None:
    cost = "    Train net output #1: cost = 2 (* 1 = 2 loss)\n"
    assert losses(BVLC.replace(cost, f" Iteration 99 of my data\n]{cost}"), tmp_path / "log") == {
        0: 3.0,
        7: None,
        14: 0.25,
    }


def test_the_last_rate_of_nvcaffe_is_of_one_iteration_before_the_last_loss(tmp_path: Path) -> None:
    """That must not look like a run that went back."""
    found = curves_of(
        tmp_path / "log", NVIDIA.replace("Iteration 14, lr", "Iteration 13, lr")
        + "I0203 04:05:09.1  77 solver.cpp:459] Iteration 14, loss = 1\n"
    )  # fmt: skip
    assert finite(found.loss) == {0: 3.0, 7: None, 14: 0.25}
    assert finite(found.rate) == {0: 0.1, 7: 0.01, 13: 0.01}


def test_the_precision_of_a_detector(tmp_path: Path) -> None:
    text = "Iteration 7, Testing net (#1)\nTest net output mAP #0: boxes = 0.5\n"
    found = curves_of(tmp_path / "log", text)
    assert dict(found.tests) == {(1, "boxes"): {7: 0.5}}
