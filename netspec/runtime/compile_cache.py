"""What compiling costs: counted as it happens, and saved for the next start.

Nothing here changes JAX's configuration unless `keep_programs` is called, as the command line does.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import jax

# Above so many bytes the least recently used programs go; FCN-8s takes about a hundredth of it.
_MOST_BYTES = 2 << 30
# Each is a file, and all files are looked at when one is added: the many small ones do not pay.
_LEAST_SECONDS = 0.1

_COMPILED = "/jax/core/compile/backend_compile_duration"
_READ = "/jax/compilation_cache/cache_retrieval_time_sec"
_STAGES = (
    "/jax/core/compile/jaxpr_trace_duration",
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    _COMPILED,
)


class Compiles:
    """The programs that JAX makes while this is open: ``with Compiles() as compiles``.

    count: how many. read: how many of them came from the cache. seconds: what all this took, from
    Python to machine code. xla: the part of it that went into XLA, or into reading back.
    """

    def __init__(self) -> None:
        self.count = 0
        self.read = 0
        self.xla = 0.0
        self._spans: list[tuple[float, float]] = []

    @property
    def seconds(self) -> float:
        """What tracing, lowering and compiling took so far."""
        return sum(end - start for start, end in self._spans)

    def __enter__(self) -> Self:
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def __str__(self) -> str:
        """``compiled in 12.3 s (XLA 11.9)``, or where it was read from."""
        if self.count and self.read == self.count:
            return f"compiled before: read back in {self.seconds:.1f} s"
        return f"compiled in {self.seconds:.1f} s (XLA {self.xla:.1f})"

    def _hear(self, event: str, duration_secs: float, **_: Any) -> None:
        if event in _STAGES:
            self._take(duration_secs)
        if event == _COMPILED:
            self.count += 1
            self.xla += duration_secs
        self.read += event == _READ

    def _take(self, duration: float) -> None:
        """Add a span that ends now; those within it, as of functions traced inside, are part."""
        end = perf_counter()
        start = end - duration
        while self._spans and self._spans[-1][0] >= start:
            self._spans.pop()
        self._spans.append((start, end))


def keep_programs(warn: Callable[[str], None]) -> None:
    """Save compiled programs in the user's cache folder, and take those saved before.

    ``JAX_COMPILATION_CACHE_DIR`` and ``JAX_ENABLE_COMPILATION_CACHE=false``, where the user has set
    them, stay. warn: called with why a folder can't be trusted or written; none is used then.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache:
        return
    folder, unfit = _folder()
    if unfit:
        warn(f"compiled programs are not kept: {unfit}; JAX_COMPILATION_CACHE_DIR names another")
        return
    config.update("jax_compilation_cache_dir", str(folder))
    _replace_unreadable(folder, warn)
    for name, value in (
        ("jax_compilation_cache_max_size", _MOST_BYTES),
        ("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS),
    ):
        if name.upper() not in os.environ:
            config.update(name, value)


_UNREADABLE = re.compile(r"Error reading persistent compilation cache entry for '(.*?)'")
_UNWRITABLE = re.compile(r"Error writing persistent compilation cache entry for '.*?': (.*)", re.S)


def _replace_unreadable(folder: Path, warn: Callable[[str], None]) -> None:
    """Remove an entry that JAX warns it cannot read, so that it is written anew.

    JAX would keep it, and warn at every start. Of entries that cannot be written one warning tells.
    """
    plain, warned = warnings.showwarning, list[str]()

    def show(message: Warning | str, *args: Any, **more: Any) -> None:
        if found := _UNREADABLE.match(str(message)):
            _remove_last_read(folder, found[1])
        elif found := _UNWRITABLE.match(str(message)):
            if not warned:
                warned.append(found[1])
                warn(f"compiled programs are not kept: {found[1]}")
        else:
            plain(message, *args, **more)

    for said in ("reading", "writing"):
        warnings.filterwarnings("always", f"Error {said} persistent compilation cache entry")
    warnings.showwarning = show


def _remove_last_read(folder: Path, module: str) -> None:
    """Remove the entry, of those of one module, that was read last; JAX notes when that was."""
    with suppress(OSError):
        read = [
            (path.stat().st_mtime_ns, path)
            for path in folder.iterdir()
            if path.name.startswith(f"{module}-") and path.name.endswith("-atime")
        ]
        if read:
            _, last = max(read)
            last.with_name(f"{last.name.removesuffix('-atime')}-cache").unlink(missing_ok=True)
            last.unlink(missing_ok=True)


def _folder() -> tuple[Path, str]:
    """The folder that programs are kept in, and why it cannot be used, if so.

    It is made if it is not there.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The standard has relative ones ignored.
    home = Path(given if os.path.isabs(given) else os.path.expanduser("~/.cache"))
    folder = home / "netspec" / f"compiled-{_machine()}"
    if not home.is_absolute():
        return folder, "there is no home folder"
    try:
        return folder, _unfit(home) or _unfit(folder.parent, True) or _unfit(folder, True)
    except OSError as error:
        return folder, f"{error.filename}: {str(error.strerror).lower()}"


def _unfit(folder: Path, trusted: bool = False) -> str:
    """Why a folder, made if it is not there, is not the user's; empty if it is.

    trusted: programs read back are run as they are, so that nobody else may write there.
    """
    if not hasattr(os, "getuid"):
        folder.mkdir(parents=True, exist_ok=True)
        return ""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    # Root makes nothing in another user's home: that user could not write it.
    if (trusted or os.getuid() == 0) and there.stat().st_uid != os.getuid():
        return f"{there} belongs to another user"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if trusted and folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to {folder}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written"


def _machine() -> str:
    """A name for this kind of processor: homes are shared, and programs use what one can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = [f"flags {platform.processor()}"]
    abilities = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(abilities.encode()).hexdigest()[:8]}"
