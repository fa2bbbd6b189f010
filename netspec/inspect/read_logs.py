"""Read training logs as curves over iterations.

Reads netspec's JSON lines, netspec's text and Caffe's (``caffe train 2>&1 | tee log``), with what
the ``score.py`` beside the published FCNs prints into it. Of Caffe's text it knows the dialects of
BVLC, NVIDIA (and so DIGITS's ``caffe_output.log``), Intel and Microsoft's C library.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from netspec.errors import NetSpecError, fail, unreadable
from netspec.formats.text import read_text

# Iteration -> value, NaN where it is not finite.
Curve = dict[int, float]

# Microsoft's C libraries write -nan(ind), and -1.#IND before.
_NUMBER = r"([-+]?(?:(?i:nan|inf)(?:\(\w+\))?|\d\.#\w+|[\d.]+(?:e[-+]?\d+)?))"
_HEAD = re.compile(r"\bIteration (\d+)\b")
# NVIDIA's write the epochs before the loss: "Iteration 20 (3.2 iter/s, 6s/20 iter), 1/5ep, loss =".
_LOSS = re.compile(rf"\bIteration \d+(?: \([^)]*\))?,(?: [^=]*,)? loss = {_NUMBER}")
_RATE = re.compile(rf"\bIteration \d+(?: \([^)]*\))?, lr = {_NUMBER}")
_TESTING = re.compile(r"\bIteration \d+, Testing net \(#(\d+)\)")
_OUTPUT = re.compile(
    rf"(Train|Test) net output (?:mAP )?#(\d+): (\S+) = {_NUMBER}"
    rf"(?: \(\* \S+ = {_NUMBER} loss\))?"
)
_METRICS = re.compile(
    rf"^(?:[IW]\d{{4}} [^\]]*\] )?    (\S+): pixel accuracy {_NUMBER}, mean accuracy {_NUMBER}, "
    rf"mean IU {_NUMBER}, f\.w\. IU {_NUMBER}"
)
_SCORE = re.compile(
    rf">>> .* Iteration (\d+) (overall accuracy|mean accuracy|mean IU|fwavacc) {_NUMBER}"
)
# What the text calls metrics, by what JSON lines and ``score.py`` call them.
_WORDS = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_iu": "mean IU",
    "fw_iu": "f.w. IU",
    "overall accuracy": "pixel accuracy",
    "fwavacc": "f.w. IU",
}
# Two sums of numbers of 6 digits are the same if they differ by less.
_ROUNDING = 2e-5


class Curves:
    """The curves of one log.

    loss: of single steps. smoothed: as the solver averages it. rate: the learning rate.
    test_loss: total loss by test net. tests: by test net and what was measured.
    """

    def __init__(self) -> None:
        self.loss: Curve = {}
        self.smoothed: Curve = {}
        self.rate: Curve = {}
        self.test_loss: dict[int, Curve] = defaultdict(dict)
        self.tests: dict[tuple[int, str], Curve] = defaultdict(dict)

    def __bool__(self) -> bool:
        return bool(self.loss or self.smoothed or self.rate or self.tests or self.test_loss)

    def rewind(self, iteration: int) -> None:
        """Remove what a run that starts at an iteration repeats.

        A test at its start may be the end of the run before.
        """
        for curve in (self.loss, self.smoothed, self.rate):
            _forget(curve, iteration)
        for curve in (*self.test_loss.values(), *self.tests.values()):
            _forget(curve, iteration + 1)

    def drop_twins(self) -> None:
        """Leave out test losses that are nothing, and outputs that are their test's loss."""
        self.test_loss = {
            test: curve for test, curve in self.test_loss.items() if any(curve.values())
        }
        self.tests = {
            (test, name): curve
            for (test, name), curve in self.tests.items()
            if not same(curve, self.test_loss.get(test, {}))
        }


def read(path: str | Path) -> Curves:
    """The curves of a log file; where a run went back and made iterations again, the later ones.

    Raises NetSpecError for a file that cannot be read or tells of no training.
    """
    reader = _LogReader()
    try:
        for line in read_text(path, errors="replace").split("\n"):
            reader.take(line)
    except OSError as error:
        raise NetSpecError(unreadable(path, error)) from None
    if not reader.curves:
        fail(
            f'{path}: no record of training; looked for lines as {{"event": "step", ...}} of '
            'PREFIX.log.jsonl and "Iteration 20, loss = 0.5" of a text log',
            NetSpecError,
        )
    reader.curves.drop_twins()
    return reader.curves


class _Block:
    """The outputs after one head line, of one phase: they are counted from 0, upwards."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.last = -1
        self.loss = 0.0
        # How often each output was named: an output has many numbers.
        self.seen: Counter[str] = Counter()

    def takes(self, phase: str, number: int) -> bool:
        """Whether an output is the block's, rather than one of a head line that is unknown."""
        goes_on = phase == self.phase and number > self.last
        self.last = number
        return goes_on


# Caffe counts updates in an int.
_MOST_UPDATES = 2**31 - 1


class _LogReader:
    """Takes the lines of a log, one after the other."""

    def __init__(self) -> None:
        self.curves = Curves()
        self.iteration = 0
        self.test = 0
        self.block: _Block | None = None

    def take(self, line: str) -> None:
        """Take a line; one that a crash cut off, or with an iteration beyond Caffe's, is none."""
        with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError):
            self._take(line)

    def _take(self, line: str) -> None:
        if line.startswith("{"):
            self._record(json.loads(line))
        elif match := _SCORE.match(line):
            self.block = None
            self._at(int(match[1]))
            self._measured(_WORDS.get(match[2], match[2]), _float(match[3]))
        elif match := _HEAD.search(line):
            self._head(int(match[1]), line)
        elif " net output " in line:
            self._output(line)
        elif match := _METRICS.match(line):
            blob, *values = match.groups()
            for name, value in zip(list(_WORDS.values())[:4], values, strict=True):
                self._measured(f"{blob} {name}", _float(value))

    def _record(self, record: Mapping[str, Any]) -> None:
        event = record["event"]
        if event == "end" and record["smoothed_loss"] is not None:
            # That of no step: one more batch after the last update, as Caffe's text ends with.
            self._at(int(record["iteration"]))
            self.curves.smoothed[self.iteration] = _float(record["smoothed_loss"])
        if event not in ("start", "step", "test"):
            return
        self._at(int(record["iteration"]))
        curves = self.curves
        if event == "start":
            curves.rewind(self.iteration)
        elif event == "step":
            curves.loss[self.iteration] = _float(record["loss"])
            curves.smoothed[self.iteration] = _float(record["smoothed_loss"])
            curves.rate[self.iteration] = _float(record["lr"])
        else:
            self.test = int(record["test"])
            curves.test_loss[self.test][self.iteration] = _float(record["loss"])
            for name, value in record["outputs"].items():
                for i, one in enumerate(value if isinstance(value, list) else [value]):
                    self._measured(_numbered(name, i), _float(one))
            for blob, metrics in record["metrics"].items():
                for name, value in metrics.items():
                    self._measured(f"{blob} {_WORDS.get(name, name)}", _float(value))

    def _head(self, iteration: int, line: str) -> None:
        """Begin a block, or end one: what follows a line that is not understood is nobody's."""
        if match := _LOSS.search(line):
            self._at(iteration)
            self.curves.smoothed[iteration] = _float(match[1])
            self.block = _Block("Train")
        elif match := _TESTING.search(line):
            self._at(iteration)
            self.test = int(match[1])
            self.block = _Block("Test")
        elif match := _RATE.search(line):
            # In its last iteration NVCaffe writes the loss of 100, then the rate of 99.
            if iteration != self.iteration - 1:
                self._at(iteration)
            self.curves.rate[iteration] = _float(match[1])
            self.block = None
        elif self.block is not None and self.block.last < 0:
            # A block that has outputs may go on: another thread may have written into it.
            self.block = None

    def _output(self, line: str) -> None:
        match = _OUTPUT.search(line)
        if match is None or self.block is None:
            return
        phase, number, name, value, loss = match.groups()
        if not self.block.takes(phase, int(number)):
            self.block = None
            return
        if phase == "Test":
            self._measured(_numbered(name, self.block.seen[name]), _float(value))
            self.block.seen[name] += 1
        if loss is not None:
            self.block.loss += _float(loss)
            curve = self.curves.loss if phase == "Train" else self.curves.test_loss[self.test]
            curve[self.iteration] = self.block.loss

    def _at(self, iteration: int) -> None:
        if not 0 <= iteration <= _MOST_UPDATES:
            raise ValueError(f"iteration {iteration}")
        if iteration < self.iteration:
            self.curves.rewind(iteration)
        self.iteration = iteration

    def _measured(self, name: str, value: float) -> None:
        self.curves.tests[self.test, name][self.iteration] = value


def _numbered(name: str, index: int) -> str:
    return f"{name}[{index}]" if index else name


def _float(value: Any) -> float:
    """A number of a log in the 6 digits of text logs, NaN for null and what is not finite."""
    unknown = value is None or any(mark in str(value) for mark in "#(")
    number = math.nan if unknown else float(f"{float(value):.6g}")
    return number if math.isfinite(number) else math.nan


def _forget(curve: Curve, start: int) -> None:
    for iteration in [i for i in curve if i >= start]:
        del curve[iteration]


def same(curve: Curve, other: Curve) -> bool:
    """Whether two curves are one, but for the rounding of text."""
    return curve.keys() == other.keys() and all(
        math.isclose(value, other[i], rel_tol=_ROUNDING)
        or (math.isnan(value) and math.isnan(other[i]))
        for i, value in curve.items()
    )
