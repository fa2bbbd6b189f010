"""What Ctrl-C, SIGTERM and SIGHUP do to a training run."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

from netspec.solving.solver import Solver


class Signals:
    """What Ctrl-C and SIGHUP do: stop, write a snapshot and go on, or nothing. SIGTERM stops.

    The run ends after the step under way, with a snapshot; a second signal ends it at once. A
    signal that comes before there is a solver takes effect when there is one. Caffe:
    ``SignalHandler``.
    """

    def __init__(self, sigint: str = "stop", sighup: str = "snapshot") -> None:
        self._solver: Solver | None = None
        self._stopping = False
        acts: dict[str, Any] = {"stop": self._stop, "snapshot": self._save, "none": signal.SIG_IGN}
        for name, effect in (("SIGINT", sigint), ("SIGTERM", "stop"), ("SIGHUP", sighup)):
            # Windows has no SIGHUP.
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), acts[effect])

    def hand_to(self, solver: Solver) -> None:
        """Act on a solver from now on, and stop it if a signal has already come."""
        self._solver = solver
        if self._stopping:
            solver.stop()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            sys.exit(130)
        self._stopping = True
        if self._solver is not None:
            self._solver.stop()
            saved = ", with a snapshot" if self._solver.param.snapshot_after_train else ""
            self._solver.callback.say(f"Stopping after this step{saved} (once more: at once).")

    def _save(self, number: int, frame: FrameType | None) -> None:
        if self._solver is not None:
            self._solver.request_snapshot()
