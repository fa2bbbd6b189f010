"""Errors of layers that run on the host, kept for whoever runs the program.

XLA calls such a layer from a thread of its own and hands on its exception as text only. So the
layer reports the exception here, and every run that is under way keeps it: see `host_errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from netspec.errors import NetSpecError

# A layer, and what it raised.
Report = tuple[object, NetSpecError]

_LOCK = Lock()
_RUNS: list[list[Report]] = []


@contextmanager
def host_errors() -> Iterator[list[Report]]:
    """While it is open, the list that it gives grows by what any layer reports, first one first."""
    mine: list[Report] = []
    with _LOCK:
        _RUNS.append(mine)
    try:
        yield mine
    finally:
        with _LOCK:
            _RUNS[:] = [run for run in _RUNS if run is not mine]


def report(layer: object, error: NetSpecError) -> None:
    """Tell every run under way what a layer raised."""
    with _LOCK:
        for run in _RUNS:
            run.append((layer, error))
