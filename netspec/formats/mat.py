"""Read arrays of MATLAB files in processes of their own, so that no file can end the run.

A process reads many files, one after the other; each thread that reads has one of its own.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from netspec.errors import DamagedDataError, fail
from netspec.formats import mat_child
from netspec.formats.regular import require_regular

SECONDS = 60.0
"""How long a file may take, until its process is ended."""

_LARGEST = 1 << 30


def read_array(path: Path, *names: str) -> np.ndarray:
    """An array, by the names of its variable and of fields in that one.

    Raises DamagedDataError without the path, and OSError.
    """
    require_regular(path)
    reader = _idle.pop() if _idle else _Reader()
    try:
        array = reader.ask([os.path.abspath(path), *names])
    except BaseException:
        # What it was doing is not known.
        reader.end()
        raise
    _idle.append(reader)
    if isinstance(array, str):
        fail(array, DamagedDataError)
    return array


class _Reader:
    """A process that reads files."""

    def __init__(self) -> None:
        # Without -P, modules here would stand in for others' of the same name.
        self._process = subprocess.Popen(
            [sys.executable, "-P", mat_child.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # An interrupt from the keyboard ends a training run gracefully, with its last batch.
            start_new_session=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )

    def ask(self, request: list[str]) -> np.ndarray | str:
        """The array that is asked for, or why it cannot be read; DamagedDataError for a crash."""
        late = threading.Event()

        def end_late() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(SECONDS, end_late)
        timer.daemon = True
        timer.start()
        try:
            about, data = self._exchange(json.dumps(request).encode() + b"\n")
        except (OSError, ValueError):
            about, data = {}, b""
        finally:
            timer.cancel()
        if "error" in about:
            return str(about["error"])
        if not about or len(data) != _size(about):
            self._process.kill()
            code = self._process.wait()
            how = f"it took more than {SECONDS:g} s" if late.is_set() else f"status {code}"
            fail(f"SciPy's parser ended at it: {how}", DamagedDataError)
        return np.frombuffer(data, about["dtype"]).reshape(about["shape"])

    def _exchange(self, request: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a request; the line of the answer, and the bytes behind it."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.flush()
        about = json.loads(process.stdout.readline())
        size = 0 if "error" in about else _size(about)
        if size > _LARGEST:
            return {"error": f"{size:,} bytes; at most {_LARGEST:,} are read"}, b""
        return about, process.stdout.read(size)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _size(about: dict[str, Any]) -> int:
    return math.prod(about["shape"]) * np.dtype(about["dtype"]).itemsize


_idle: list[_Reader] = []


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


if hasattr(os, "register_at_fork"):
    # They answer the parent.
    os.register_at_fork(after_in_child=_idle.clear)
