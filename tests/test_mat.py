"""MATLAB files are read in a process of their own."""

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from netspec.errors import DamagedDataError, SourceError
from netspec.formats import mat
from netspec.sources.sets.matlab import read_matrix


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "a.mat"
    savemat(path, {"GT": {"Labels": np.arange(6).reshape(2, 3)}, "names": np.array(["a"], object)})
    return path


def test_a_matrix_in_a_struct(labels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(labels.parent)
    assert read_matrix(Path("a.mat"), "GT", "Labels").tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(SourceError, match=r"a.mat: no names can be read from it \(O values, not"):
        read_matrix(labels, "names")
    with pytest.raises(SourceError, match=r"a.mat: no GT.nil can be read from it \(.*nil.*\)"):
        read_matrix(labels, "GT", "nil")


def test_threads_read_at_once(labels: Path) -> None:
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(read_matrix(labels, "GT", "Labels").sum()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [15] * 4


PROGRAMS = {
    "crashes": ("import os; input(); os.kill(os.getpid(), 11)", "SciPy's parser ended .*: status"),
    "hangs": ("import time; time.sleep(60)", "SciPy's parser ended at it: it took more than 0.5 s"),
    "babbles": ("input(); print('x')", "SciPy's parser ended at it: status"),
    "lies": (
        """input(); print('{"dtype": "|u1", "shape": [9]}')""",
        "SciPy's parser ended at it: status",
    ),
    "boasts": (
        """input(); print('{"dtype": "|u1", "shape": [9999999999]}'); input()""",
        "9,999,999,999 bytes; at most 1,073,741,824 are read",
    ),
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_parser_that_ends_is_an_error(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    program, message = PROGRAMS[kind]
    (tmp_path / "child.py").write_text(program)
    mat._end_all()
    monkeypatch.setattr(mat.mat_child, "__file__", str(tmp_path / "child.py"))
    monkeypatch.setattr(mat, "SECONDS", 0.5 if kind == "hangs" else 60.0)
    with pytest.raises(DamagedDataError, match=message):
        read_matrix(labels, "GT", "Labels")
    monkeypatch.undo()
    mat._end_all()
    assert read_matrix(labels, "GT", "Labels").sum() == 15


def test_mutants_are_refused_or_read(labels: Path) -> None:
    data = np.frombuffer(labels.read_bytes(), np.uint8)
    path = labels.with_name("b.mat")
    for seed in range(60):
        draw = np.random.default_rng(seed)
        damaged = data.copy()
        for at in draw.integers(len(damaged), size=3):
            damaged[at] = draw.integers(256)
        path.write_bytes(damaged.tobytes())
        try:
            read_matrix(path, "GT", "Labels")
        except SourceError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_an_interrupt_from_the_keyboard_spares_the_reader(labels: Path) -> None:
    read_matrix(labels, "GT", "Labels")
    (reader,) = mat._idle[-1:]
    assert os.getpgid(reader._process.pid) != os.getpgid(0)
    os.kill(reader._process.pid, signal.SIGKILL)
    reader._process.wait()
    with pytest.raises(DamagedDataError, match="SciPy's parser ended"):
        read_matrix(labels, "GT", "Labels")
    assert read_matrix(labels, "GT", "Labels").sum() == 15
