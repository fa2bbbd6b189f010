"""Log lines in glog's format, as Caffe's tools write them: to stderr, and to a file if asked."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Self, TextIO, cast

from netspec.errors import NetSpecError, fail, unreadable

_SEVERITIES = "IWEF"
_VARIABLE = "GLOG_minloglevel"
_LEAST: ContextVar[int | None] = ContextVar("minloglevel", default=None)


def least() -> int:
    """The least severity that is logged, 0 for INFO: that of `at_least`, or GLOG_minloglevel."""
    asked = _LEAST.get()
    given = os.environ.get(_VARIABLE, "")
    return asked if asked is not None else int(given) if given.isdecimal() else 0


def is_told(severity: str) -> bool:
    """Whether lines of a severity, I or W, are logged."""
    return _SEVERITIES.index(severity) >= least()


@contextmanager
def at_least(severity: int) -> Iterator[None]:
    """Log only lines of this severity or a higher one, while it is open."""
    before = _LEAST.set(severity)
    try:
        yield
    finally:
        _LEAST.reset(before)


def glog_prefix(severity: str, when: datetime) -> str:
    """The prefix of a line of Caffe's logs: ``I1121 10:34:25.123456 12345 netspec:0] ``.

    severity: I or W. when: local time; parsers take the year from the file. A thread and a line of
    code follow, the latter ``netspec:0`` for them all.
    """
    return f"{severity}{when:%m%d %H:%M:%S.%f} {threading.get_native_id():5} netspec:0] "


class GlogWriter:
    """Writes lines to stderr, and to a file of ``folder`` if one is given.

    The file is named as glog names it, and ``caffe.INFO`` beside it leads to the newest. stream:
    what writes there, for those whose lines have prefixes of their own.
    """

    def __init__(self, folder: str = "") -> None:
        """Raises NetSpecError where the file cannot be written."""
        try:
            self._file = _file(Path(folder)) if folder else None
        except OSError as error:
            fail(unreadable(f"--log_dir {folder}", error), NetSpecError)
        self.stream = cast(TextIO, _Both(self._file)) if self._file else sys.stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def say(self, line: str) -> None:
        """Write one line."""
        self._write("I", line)

    def warn(self, line: str) -> None:
        """Write one line that warns."""
        self._write("W", line)

    def _write(self, severity: str, line: str) -> None:
        if not is_told(severity):
            return
        self.stream.write(f"{glog_prefix(severity, datetime.now())}{line}\n")
        self.stream.flush()


class _Both:
    """A stream that writes to stderr and to a file; no terminal, as a file keeps no bars."""

    encoding = "utf-8"

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def fileno(self) -> int:
        return sys.stderr.fileno()

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        self._file.write(text)
        return sys.stderr.write(text)

    def flush(self) -> None:
        self._file.flush()
        sys.stderr.flush()


def _file(folder: Path) -> TextIO:
    """A new file for the lines of this process; raises OSError."""
    who = f"{socket.gethostname()}.{os.environ.get('USER', 'unknown')}"
    path = folder / f"caffe.{who}.log.INFO.{datetime.now():%Y%m%d-%H%M%S}.{os.getpid()}"
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - whoever has the log closes it
    newest = folder / "caffe.INFO"
    newest.unlink(missing_ok=True)
    newest.symlink_to(path.name)
    return file
