"""A training run from the command line: started or gone on with, logged, ended by signals."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from netspec.errors import Place, SolverError, require
from netspec.report import Report, lasting, plan
from netspec.solving import store
from netspec.solving.listener import Listener, Listeners
from netspec.solving.log import JsonLog, TensorBoardLog
from netspec.solving.loop import Solver
from netspec.weights import Copied


@dataclass(frozen=True)
class Options:
    """How to run a solver.

    weights: .caffemodel files to start from, comma-separated. fc_to_conv, skip_misfits: how they
    may differ from the net, see `copy_into`. snapshot: the .solverstate to go on from. resume: go
    on from the newest snapshot, if there is one. max_iter: where to end instead of the solver's
    own. keep: how many snapshots stay on disk. tensorboard: a folder for event files. glog: begin
    lines as Caffe's logs do. debug_nans: look at every blob before each update.
    """

    weights: str | None = None
    fc_to_conv: bool = False
    skip_misfits: bool = False
    snapshot: str | None = None
    resume: bool = False
    max_iter: int | None = None
    keep: int | None = None
    tensorboard: str | None = None
    glog: bool = False
    debug_nans: bool = False


def run(path: str, options: Options) -> None:
    """Train the net of a solver prototxt to the end, or to a signal; raises a NetSpecError."""
    _check(options)
    solver = Solver.from_file(path, keep=options.keep)
    solver.guard.debug_nans = options.debug_nans
    until = solver.param.max_iter if options.max_iter is None else options.max_iter
    require(until > 0, f"{Place(path)}: needs max_iter, or --max-iter", SolverError)
    console = Console(file=lasting(sys.stdout))
    with Report(console, until, options.glog) as report, _closing(solver):
        solver.listener = report
        copied = _start(solver, options)
        if _is_over(solver, until, options, report):
            return
        for line in plan(solver, until, copied):
            report.say(line)
        solver.listener = Listeners([report, *_logs(solver, options, report)])
        _obey_signals(solver, report)
        solver.solve(until)
        report.say("Optimization stopped early." if solver.stopping else "Optimization Done.")


def _check(options: Options) -> None:
    require(
        not (options.weights and options.snapshot),
        "--weights starts a run and --snapshot goes on with one; give one",
        SolverError,
    )
    require(
        not (options.resume and options.snapshot),
        "--resume finds the newest snapshot itself, and --snapshot names one; give one",
        SolverError,
    )
    require(
        options.keep is None or options.keep > 0,
        f"--keep {options.keep}: at least 1 snapshot is kept",
        SolverError,
    )
    require(
        options.max_iter is None or options.max_iter > 0,
        f"--max-iter {options.max_iter}: a run ends at iteration 1 or later",
        SolverError,
    )


@contextmanager
def _closing(solver: Solver) -> Iterator[None]:
    try:
        yield
    finally:
        solver.close()


def _start(solver: Solver, options: Options) -> list[Copied]:
    """Go on from a snapshot or load weights, as asked; says what was left out."""
    warn = solver.listener.warn
    if options.snapshot:
        found: store.Found | None = store.newest(Path(options.snapshot), warn)
    elif options.resume:
        found = store.latest(solver.param.snapshot_prefix, warn)
    else:
        found = None
    if found is not None:
        solver.take(found)
        how = "" if found.record else " as Caffe does: its data starts anew"
        solver.listener.say(f"Restoring previous solver status from {found.path}{how}")
    elif options.weights:
        return solver.load_weights(options.weights, options.fc_to_conv, options.skip_misfits)
    return []


def _is_over(solver: Solver, until: int, options: Options, report: Report) -> bool:
    """Whether a resumed run has nothing left to do, which a snapshot named by hand should have."""
    if solver.iteration < until:
        return False
    require(
        options.resume,
        f"{options.snapshot}: is at iteration {solver.iteration}, and the run ends at {until}; "
        "--max-iter goes further",
        SolverError,
    )
    report.say(f"Iteration {solver.iteration} was reached before; --max-iter goes further.")
    return True


def _logs(solver: Solver, options: Options, report: Report) -> list[Listener]:
    logs: list[Listener] = []
    if solver.param.snapshot or solver.param.snapshot_after_train:
        logs.append(JsonLog(f"{solver.param.snapshot_prefix}.log.jsonl", report.warn))
    if options.tensorboard:
        logs.append(TensorBoardLog(options.tensorboard, report.warn))
    return logs


def _obey_signals(solver: Solver, report: Report) -> None:
    """Ctrl-C and SIGTERM end the run after this step, with a snapshot; twice is at once.

    SIGHUP writes a snapshot and goes on. Caffe: ``SignalHandler``.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if solver.stopping:
            sys.exit(130)
        solver.stopping = True
        report.say("Stopping after this step, with a snapshot (once more: at once).")

    def save(number: int, frame: FrameType | None) -> None:
        solver.snapshot_wanted = True

    for name, act in (("SIGINT", stop), ("SIGTERM", stop), ("SIGHUP", save)):
        # Windows has no SIGHUP.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), act)
