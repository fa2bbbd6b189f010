"""Open regular files only: paths in prototxts, lists and arguments may name anything.

A device or a pipe would be read for ever, or waited for.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Whoever exchanges a file for a pipe between the look at it and the opening can't stop us either.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def require_regular(path: str | Path) -> None:
    """Raise OSError unless a path leads to a regular file, for libraries that open by name."""
    try:
        mode = os.stat(path).st_mode
    # A NUL, or a character that no name of a file can hold.
    except ValueError:
        raise OSError(errno.EINVAL, "no path of a file") from None
    _require(mode, path)


def open_regular(path: str | Path) -> BufferedReader:
    """A regular file, opened to be read; raises OSError at once for whatever else a path names."""
    require_regular(path)
    file = open(path, "rb", opener=_opened)  # noqa: SIM115 (the caller closes it)
    try:
        _require(os.fstat(file.fileno()).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file; raises OSError."""
    with open_regular(path) as file:
        return file.read()


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_WAIT)


def _require(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))
