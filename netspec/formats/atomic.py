"""Files that appear whole or not at all, and files of one kind or another."""

from __future__ import annotations

import errno
import glob
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has none.
    fcntl = None  # type: ignore[assignment]


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path to write to; it becomes ``path`` at the end, and vanishes if writing fails.

    The bytes are on disk before the name is: a crash leaves the old file or the new one.
    """
    with whole_set([path]) as (part,):
        yield part


@contextmanager
def whole_set(paths: Sequence[str | Path]) -> Iterator[list[Path]]:
    """Paths to write to, in one folder; at the end they get their names, one after the other.

    All bytes are on disk before the first name is, and the last name is not there before all
    others are: a crash leaves nothing that looks like a set and is none.
    """
    targets = [Path(path) for path in paths]
    folder = targets[0].parent
    if not all(path.name for path in targets):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from None
    parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in targets]
    try:
        yield parts
        for part in parts:
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
        if len(targets) > 1:
            targets[-1].unlink(missing_ok=True)
            for part, path in zip(parts[:-1], targets, strict=False):
                os.replace(part, path)
            _sync_folder(folder)
        os.replace(parts[-1], targets[-1])
        _sync_folder(folder)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


@contextmanager
def alone(path: str | Path) -> Iterator[str | None]:
    """Hold a lock file; gives None, or who holds it if another process does.

    The system lets go of it whatever ends this process. Where it has no locks, nobody is kept out.
    """
    try:
        file = _locked(Path(path))
    except BlockingIOError:
        yield Path(path).read_text(encoding="utf-8").strip() or "of an unknown process"
        return
    except OSError:
        yield None
        return
    try:
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield None
    finally:
        Path(path).unlink(missing_ok=True)
        file.close()


def _locked(path: Path) -> IO[str]:
    """The lock file, locked and empty; raises BlockingIOError where another holds it."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closed by who lets go of it)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it meanwhile.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                return file
        except OSError:
            file.close()
            raise
        file.close()


def sweep(folder: str | Path, start: str) -> None:
    """Remove what processes that are gone began to write under names that begin with ``start``."""
    for part in Path(folder).glob(f".{glob.escape(start)}*.part"):
        pid = part.name.split(".")[-2]
        if pid.isdecimal() and not _alive(int(pid)):
            part.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def is_hdf5(path: str | Path) -> bool:
    """Whether a file is HDF5, by the bytes that it begins with; raises OSError."""
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a crash, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
