"""``netspec solve``: a training run, started or resumed, logged, and ended by signals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import click
from rich.console import Console

from netspec.cli.options import dtype_option, keep_programs
from netspec.cli.signals import Signals
from netspec.errors import NetSpecError, Place, SolverError, counted, require
from netspec.frontend.prototxt import SolverText, read_solver
from netspec.reporting.console import ConsoleReport, lasting, memory_doubts, plan, predicted
from netspec.reporting.event_logs import JsonLog, TensorBoardLog
from netspec.runtime.compile_cache import Compiles
from netspec.runtime.compute_policy import ComputePolicy
from netspec.runtime.memory import size
from netspec.solving import settings
from netspec.solving.callback import Callback, Callbacks, TrainingRun, TrainingStep
from netspec.solving.distributed.launch import DeviceOptions, joined
from netspec.solving.distributed.mesh import Mesh
from netspec.solving.options import SolverOptions
from netspec.solving.snapshots import store
from netspec.solving.snapshots.lineage import states
from netspec.solving.solver import Solver
from netspec.weights.caffemodel import Copied


@dataclass(frozen=True)
class Options:
    """How to run a solver.

    weights: .caffemodel files to start from, comma-separated. fc_to_conv, skip_misfits: how they
    may differ from the net, see `copy_into`. snapshot: the .solverstate to resume from. resume:
    resume from the newest snapshot, if there is one. max_iter: where to end instead of the solver's
    own. keep: how many snapshots stay on disk. tensorboard: a folder for event files. glog: begin
    lines as Caffe's logs do. debug_nans: check every blob before each update. skip_corrupt: leave
    out training data that cannot be read. output: where lines go; stdout if None. level, stages:
    replace the level of the train net's state, and add to its stages. sigint, sighup: what Ctrl-C
    and SIGHUP do: "stop", "snapshot" or "none". weights_only: ignore the weights that the solver
    names. may_be_over: accept a snapshot at the end of the run. dtype, remat: see `ComputePolicy`;
    without ``dtype`` a resumed run keeps its own, and a new one takes float32. scale: the devices
    and processes to train on.
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
    output: TextIO | None = None
    level: int | None = None
    stages: tuple[str, ...] = ()
    sigint: str = "stop"
    sighup: str = "snapshot"
    weights_only: bool = False
    may_be_over: bool = False
    dtype: str | None = None
    remat: bool = False
    scale: DeviceOptions = field(default_factory=DeviceOptions)


@click.command()
@click.argument("solver")
@click.option("--weights", help="Start from these .caffemodel files, by layer name: a[,b...].")
@click.option("--fc-to-conv", is_flag=True, help="Take fully connected weights for convolutions.")
@click.option("--skip-misfits", is_flag=True, help="Leave layers whose weights do not fit.")
@click.option("--snapshot", help="Go on from this .solverstate.")
@click.option("--resume", is_flag=True, help="Go on from the newest snapshot, if there is one.")
@click.option("--max-iter", type=int, help="Stop here instead of the solver's max_iter.")
@click.option("--keep", type=int, help="Keep only so many snapshots, the newest.")
@click.option("--tensorboard", metavar="DIR", help="Log for TensorBoard, too.")
@click.option("--glog", is_flag=True, help="Begin lines as Caffe's logs do, for their parsers.")
@click.option(
    "--skip-corrupt", is_flag=True, help="Leave out batches that hold a file that cannot be read."
)
@click.option("--debug-nans", is_flag=True, help="Find the first number that is not finite.")
@dtype_option
@click.option("--remat", is_flag=True, help="Compute blobs again on the way back: less memory.")
@click.option("--devices", metavar="N|all", help="Train on so many devices; 1 by default.")
@click.option("--batch-per-device", type=int, help="Set the batch_size of the train net's data.")
@click.option("--shard-params", is_flag=True, help="Keep a part of all weights on each device.")
@click.option("--coordinator", metavar="HOST:PORT", help="Where processes find process 0.")
@click.option("--processes", metavar="P|auto", help="How many there are, or ask the cluster.")
@click.option("--process", type=int, help="Which one this is, from 0.")
def solve(solver: str, **options: Any) -> None:
    """Train the net of SOLVER, a solver prototxt."""
    keep_programs()
    scale = DeviceOptions(
        **{name: options.pop(name) for name in DeviceOptions.__dataclass_fields__}
    )
    run(solver, Options(**options, scale=scale))


def run(path: str, options: Options) -> None:
    """Train the net of a solver prototxt to the end, or to a signal; raises a NetSpecError."""
    _check(options)
    with joined(options.scale) as mesh:
        # After joining: JAX installs a handler of its own there.
        signals = Signals(options.sigint, options.sighup)
        require(
            mesh.peers.processes == 1 or not options.skip_corrupt,
            "--skip-corrupt needs all data in one process, to leave out the same as ever",
            SolverError,
        )
        _train(path, options, mesh, signals)


def _train(path: str, options: Options, mesh: Mesh, signals: Signals) -> None:
    # Empty until the report is open: what the solver says while it is built is not shown.
    callbacks = Callbacks()
    solver = Solver(_text(path, options), _solver_options(options, callbacks, mesh))
    until = solver.param.max_iter if options.max_iter is None else options.max_iter
    require(until > 0, f"{Place(path)}: needs max_iter, or --max-iter", SolverError)
    # Of several processes only the first prints.
    console = Console(file=lasting(options.output or sys.stdout), quiet=not mesh.first)
    with (
        ConsoleReport(console, until, options.glog) as report,
        _closing(solver),
        Compiles() as compiles,
    ):
        callbacks.add(_Compiled(compiles, report), _Measured(solver, report), report)
        copied = _start(solver, options)
        mesh.check_together(solver.iteration)
        if _is_over(solver, until, options, report):
            return
        _say_plan(solver, until, copied, report)
        callbacks.add(*_logs(solver, options, report))
        signals.hand_to(solver)
        for doubt in settings.doubts(solver.text):
            solver.callback.warn(doubt)
        try:
            solver.solve(until)
        except NetSpecError as error:
            solver.callback.end(solver, str(error))
            raise
        _say_end(solver, report)


def _say_plan(solver: Solver, until: int, copied: list[Copied], report: ConsoleReport) -> None:
    """Say what the run is about to do, and warn if the device may lack memory for it."""
    for line in plan(solver, until, copied):
        report.say(line)
    for doubt in memory_doubts(solver):
        report.warn(doubt)


def _say_end(solver: Solver, report: ConsoleReport) -> None:
    """Say what was left out, which sizes were padded, and how the run ended."""
    if solver.feed.skipped:
        solver.callback.warn(
            f"left out {counted(solver.feed.skipped, 'batch')} of the training data, as "
            "something in each could not be read"
        )
    buckets = solver.trainer.buckets
    if len(buckets.sizes) > 1:
        report.say(buckets.summary)
    how = "Optimization stopped early." if solver.stopping else "Optimization Done."
    report.say(how)
    solver.callback.end(solver, how)


def _solver_options(options: Options, callback: Callback, mesh: Mesh) -> SolverOptions:
    return SolverOptions(
        callback=callback,
        keep=options.keep,
        skip_corrupt=options.skip_corrupt,
        mesh=mesh,
        policy=ComputePolicy(options.dtype or "f32", options.remat),
        debug_nans=options.debug_nans,
    )


def _text(path: str, options: Options) -> SolverText:
    """The solver prototxt, changed as the options say."""
    text = read_solver(path)
    if options.level is not None:
        text.message.train_state.level = options.level
    if options.stages:
        text.message.train_state.stage.extend(options.stages)
    if options.weights_only and (options.weights or options.snapshot):
        text.message.ClearField("weights")
    return text


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
    """Resume from a snapshot or load weights, as asked; returns what was copied from where."""
    warn = solver.callback.warn
    if options.snapshot:
        found: store.Found | None = store.newest(Path(options.snapshot), warn)
    elif options.resume:
        found = store.latest(solver.param.snapshot_prefix, warn)
    else:
        found = None
    if found is not None:
        solver.take(found, options.dtype)
        _warn_of_dtype(solver, found, options)
        weights = Path(found.weights.file)
        apart = "" if weights.parent == found.path.parent else f" and {weights}"
        how = "" if found.manifest else " as Caffe does: its data starts anew"
        solver.callback.say(f"Restoring previous solver status from {found.path}{apart}{how}")
        return []
    earlier = states(solver.param.snapshot_prefix)
    if earlier and not options.resume:
        warn(
            f"{earlier[0][1]} is of an earlier run; this one starts anew, and writes over what it "
            "reaches (--resume or --snapshot goes on from there)"
        )
    if options.weights:
        return solver.load_weights(options.weights, options.fc_to_conv, options.skip_misfits)
    return []


def _warn_of_dtype(solver: Solver, found: store.Found, options: Options) -> None:
    """Warn if the run goes on in another dtype than it was in until now."""
    was = found.manifest.dtype if found.manifest else options.dtype
    if options.dtype in (None, was):
        return
    solver.callback.warn(
        f"{found.path} is of a run in {was}, and this one goes on in {options.dtype}: its numbers "
        "will not be those of a run that never stopped"
    )


def _is_over(solver: Solver, until: int, options: Options, report: ConsoleReport) -> bool:
    """Whether a resumed run is at its end; raises SolverError if its snapshot was named by hand."""
    if solver.iteration < until:
        return False
    require(
        options.resume or options.may_be_over,
        f"{options.snapshot}: is at iteration {solver.iteration}, and the run ends at {until}; "
        "--max-iter goes further",
        SolverError,
    )
    report.say(f"Iteration {solver.iteration} was reached before; a higher max_iter goes further.")
    return True


def _logs(solver: Solver, options: Options, report: ConsoleReport) -> list[Callback]:
    logs: list[Callback] = []
    if not solver.mesh.first:
        return logs
    if solver.param.snapshot or solver.param.snapshot_after_train:
        logs.append(JsonLog(f"{solver.param.snapshot_prefix}.log.jsonl", report.warn))
    if options.tensorboard:
        logs.append(TensorBoardLog(options.tensorboard, report.warn))
    return logs


class _Compiled(Callback):
    """Says, after the first step, how long compiling took."""

    def __init__(self, compiles: Compiles, report: ConsoleReport) -> None:
        self._compiles: Compiles | None = compiles
        self._report = report

    def step(self, solver: TrainingRun, step: TrainingStep) -> None:
        if self._compiles is not None and self._compiles.count:
            self._report.say(str(self._compiles))
        self._compiles = None


class _Measured(Callback):
    """Says, after the first step, the memory predicted and that of XLA's program."""

    def __init__(self, solver: Solver, report: ConsoleReport) -> None:
        self._solver = solver
        self._report: ConsoleReport | None = report

    def step(self, solver: TrainingRun, step: TrainingStep) -> None:
        if self._report is not None and (taken := self._solver.trainer.program_bytes()):
            expected = size(predicted(self._solver).total)
            self._report.say(f"memory    predicted {expected}, XLA's program takes {size(taken)}")
        self._report = None
