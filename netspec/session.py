"""A training run from the command line: started or gone on with, logged, ended by signals."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from rich.console import Console

from netspec.compiling import Compiles
from netspec.errors import NetSpecError, Place, SolverError, counted, require
from netspec.report import Report, lasting, plan
from netspec.solving import regime, store
from netspec.solving.cluster import Scale, joined
from netspec.solving.listener import Listener, Listeners, Step
from netspec.solving.log import JsonLog, TensorBoardLog
from netspec.solving.loop import Solver
from netspec.solving.mesh import Mesh
from netspec.weights import Copied


@dataclass(frozen=True)
class Options:
    """How to run a solver.

    weights: .caffemodel files to start from, comma-separated. fc_to_conv, skip_misfits: how they
    may differ from the net, see `copy_into`. snapshot: the .solverstate to go on from. resume: go
    on from the newest snapshot, if there is one. max_iter: where to end instead of the solver's
    own. keep: how many snapshots stay on disk. tensorboard: a folder for event files. glog: begin
    lines as Caffe's logs do. debug_nans: look at every blob before each update. skip_corrupt: leave
    out what cannot be read of the training data. scale: the devices and processes to train on.
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
    skip_corrupt: bool = False
    scale: Scale = field(default_factory=Scale)


def run(path: str, options: Options) -> None:
    """Train the net of a solver prototxt to the end, or to a signal; raises a NetSpecError."""
    _check(options)
    with joined(options.scale) as mesh:
        # Not before: JAX has a handler of its own, where processes join.
        signals = _Signals()
        require(
            mesh.peers.processes == 1 or not options.skip_corrupt,
            "--skip-corrupt needs all data in one process, to leave out the same as ever",
            SolverError,
        )
        _train(path, options, mesh, signals)


def _train(path: str, options: Options, mesh: Mesh, signals: _Signals) -> None:
    solver = Solver.from_file(path, None, options.keep, options.skip_corrupt, mesh)
    solver.guard.debug_nans = options.debug_nans
    until = solver.param.max_iter if options.max_iter is None else options.max_iter
    require(until > 0, f"{Place(path)}: needs max_iter, or --max-iter", SolverError)
    # Of several processes one talks.
    console = Console(file=lasting(sys.stdout), quiet=not mesh.first)
    with (
        Report(console, until, options.glog) as report,
        _closing(solver),
        Compiles() as compiles,
    ):
        solver.listener = report
        copied = _start(solver, options)
        if _is_over(solver, until, options, report):
            return
        for line in plan(solver, until, copied):
            report.say(line)
        told = _Compiled(compiles, report)
        solver.listener = Listeners([told, report, *_logs(solver, options, report)])
        signals.hand_to(solver)
        for doubt in regime.doubts(solver.param):
            solver.listener.warn(doubt)
        try:
            solver.solve(until)
        except NetSpecError as error:
            solver.listener.end(solver, str(error))
            raise
        if solver.feed.skipped:
            solver.listener.warn(
                f"left out {counted(solver.feed.skipped, 'batch')} of the training data: what "
                "could not be read"
            )
        frames = solver.trainer.frames
        if len(frames.sizes) > 1:
            report.say(frames.told)
        how = "Optimization stopped early." if solver.stopping else "Optimization Done."
        report.say(how)
        solver.listener.end(solver, how)


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
        weights = Path(found.weights.file)
        apart = "" if weights.parent == found.path.parent else f" and {weights}"
        how = "" if found.record else " as Caffe does: its data starts anew"
        solver.listener.say(f"Restoring previous solver status from {found.path}{apart}{how}")
        return []
    earlier = store.states(solver.param.snapshot_prefix)
    if earlier and not options.resume:
        warn(
            f"{earlier[0][1]} is of an earlier run; this one starts anew, and writes over what it "
            "reaches (--resume goes on from there)"
        )
    if options.weights:
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
    if not solver.mesh.first:
        return logs
    if solver.param.snapshot or solver.param.snapshot_after_train:
        logs.append(JsonLog(f"{solver.param.snapshot_prefix}.log.jsonl", report.warn))
    if options.tensorboard:
        logs.append(TensorBoardLog(options.tensorboard, report.warn))
    return logs


class _Compiled(Listener):
    """Says, after the first step, what compiling took until then."""

    def __init__(self, compiles: Compiles, report: Report) -> None:
        self._compiles: Compiles | None = compiles
        self._report = report

    def step(self, solver: Solver, step: Step) -> None:
        if self._compiles is not None and self._compiles.count:
            self._report.say(str(self._compiles))
        self._compiles = None


class _Signals:
    """Ctrl-C and SIGTERM end the run after this step, with a snapshot; twice is at once.

    SIGHUP writes a snapshot and goes on. What comes before there is a solver waits for it. Caffe:
    ``SignalHandler``.
    """

    def __init__(self) -> None:
        self._solver: Solver | None = None
        self._stopping = False
        for name, act in (("SIGINT", self._stop), ("SIGTERM", self._stop), ("SIGHUP", self._save)):
            # Windows has no SIGHUP.
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), act)

    def hand_to(self, solver: Solver) -> None:
        """Let a solver know, from now on and of what was before."""
        self._solver = solver
        solver.stopping = self._stopping

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:
            sys.exit(130)
        self._stopping = True
        if self._solver is not None:
            self._solver.stopping = True
            saved = ", with a snapshot" if self._solver.param.snapshot_after_train else ""
            self._solver.listener.say(f"Stopping after this step{saved} (once more: at once).")

    def _save(self, number: int, frame: FrameType | None) -> None:
        if self._solver is not None:
            self._solver.snapshot_wanted = True
