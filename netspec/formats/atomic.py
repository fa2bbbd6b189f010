"""Write files atomically: whole or not at all, one (a weight file) or several (a snapshot).

Bytes go to a hidden file ``.NAME.PID.part`` beside the target, are synced to disk, and only then
take the name. `exclusive_lock` keeps two processes from writing the same files.
"""

from __future__ import annotations

import errno
import glob
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has none.
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to ``path`` at the end, or remove it on error.

    The bytes are on disk before the name is: a crash leaves the old file or the new one. Raises
    OSError.
    """
    with atomic_write_all([path]) as (part,):
        yield part


@contextmanager
def atomic_write_all(paths: Sequence[str | Path]) -> Iterator[list[Path]]:
    """Give temporary paths, in one folder, for files that belong together; rename them at the end.

    All bytes are on disk before the first name is, and the last name appears after all others: if
    a reader asks for the last one, a crash leaves nothing that looks like a whole set and is not.
    Raises OSError.
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
    except FileNotFoundError as error:
        # As /proc does: the folder is there, and the system's word is that the new file is not.
        if error.filename in map(str, parts) and folder.is_dir():
            raise PermissionError(errno.EPERM, "no file can be made there", folder) from None
        raise
    finally:
        for part in parts:
            # What keeps it from going has kept it from being made, or has been raised above.
            with suppress(OSError):
                part.unlink(missing_ok=True)


@contextmanager
def exclusive_lock(path: str | Path) -> Iterator[str | None]:
    """Hold a lock file; gives None, or who holds it if another process does.

    The system releases the lock however this process ends. On a system or a file system without
    locks, nobody is kept out. A symbolic link of that name is not followed.
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
        # A folder that can no longer be written keeps the file; the lock is free all the same.
        with suppress(OSError):
            Path(path).unlink(missing_ok=True)
        file.close()


def _locked(path: Path) -> IO[str]:
    """Open and lock the file, and empty it; raises BlockingIOError where another holds it."""
    while True:
        file = open(open_no_link(path), "a+", encoding="utf-8")  # noqa: SIM115 (the caller's)
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


def open_no_link(path: str | Path) -> int:
    """Open a file to append to, made if it is not there; raises OSError for a symbolic link.

    Whoever may write in a folder could let a link stand for any file of the user's.
    """
    # Windows has no such flag.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags, 0o666)


def remove_leftovers(folder: str | Path, prefix: str) -> None:
    """Remove the temporary files of ended processes whose targets' names begin with ``prefix``."""
    for part in Path(folder).glob(f".{glob.escape(prefix)}*.part"):
        pid = part.name.split(".")[-2]
        if pid.isdecimal() and not _alive(int(pid)):
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Sync a folder to disk, so that a rename survives a crash, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
