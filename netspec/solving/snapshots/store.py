"""Writes the snapshots of a run beside its steps, checks them, limits their number, finds them.

A snapshot is three files: weights and state as Caffe writes them, and a manifest with checksums.
The state gets its name last, so where it stands the other two are whole.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from netspec.errors import SolverError, WeightsError, require
from netspec.formats import manifest
from netspec.formats.atomic import atomic_write_all, exclusive_lock, remove_leftovers
from netspec.formats.manifest import Manifest
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.proto.solver_pb2 import SolverParameter
from netspec.solving.snapshots.lineage import manifest_of, newest_first, states, successor
from netspec.solving.snapshots.solverstate import (
    State,
    check_writable,
    find_weights,
    put_state,
    read_state,
)
from netspec.weights.caffemodel import Weights, put_weights, read_weights
from netspec.weights.weights_hdf5 import require_hdf5_names

ArrayLike = np.ndarray | jax.Array
# Of a snapshot: weights, then state.
Paths = tuple[Path, Path]


@dataclass(frozen=True)
class Snapshot:
    """All that a snapshot's files hold.

    arrays: every learned array. diffs: the last update of each, if asked for. state: without the
    name of the weight file, which is settled on writing.
    """

    shapes: Shapes
    arrays: Mapping[ParamKey, ArrayLike]
    diffs: Mapping[ParamKey, ArrayLike] | None
    state: State
    manifest: Manifest

    def on_host(self) -> Snapshot:
        """Copy the arrays to the host, where no later step changes them."""
        return replace(
            self,
            arrays={key: np.array(array) for key, array in self.arrays.items()},
            diffs=self.diffs and {key: np.array(array) for key, array in self.diffs.items()},
            state=replace(self.state, history=tuple(map(np.array, self.state.history))),
        )


@dataclass(frozen=True)
class Found:
    """A snapshot that was read: ``manifest`` is None where Caffe wrote it."""

    path: Path
    state: State
    weights: Weights
    manifest: Manifest | None

    def require_type(self, kind: str) -> None:
        """Raise WeightsError if it was written by a solver of another type."""
        was = self.manifest.solver if self.manifest else kind
        require(
            was == kind,
            f"was written with type {was}, whose history means nothing to {kind}; to start from "
            f"what it learned, load its weights, {self.weights.file} (--weights)",
            WeightsError,
        )


class Store:
    """Writes the snapshots of one run, and removes old ones.

    newest: the iteration of the last one written. Only snapshots of the run itself are ever
    removed: what it wrote, and what it went on from.
    """

    def __init__(
        self,
        param: SolverParameter,
        keep: int | None,
        begun: Callable[[Paths], None],
        whole: Callable[[Paths], None],
        failed: Callable[[str], None],
        writes: bool = True,
    ) -> None:
        """keep: how many snapshots are kept, the newest; None for all.

        begun: is called with the paths of each snapshot, weights and state, before it is written;
        whole: when it is; failed: with what went wrong. writes: False where another process of the
        run does it.
        """
        self.prefix = param.snapshot_prefix
        self.end = ".h5" if param.snapshot_format == SolverParameter.HDF5 else ""
        self.keep = keep
        self.newest: int | None = None
        self._begun = begun
        self._whole = whole
        self._failed = failed
        self._writes = writes
        self._mine: set[int] = set()
        self._writing: _Writing | None = None

    def go_on_from(self, path: Path, iteration: int) -> None:
        """Take the state at ``path``, and those written before it, for snapshots of this run."""
        ours = self._paths(iteration)[1].resolve() == path.resolve() and _is_ours(path)
        self.newest = iteration if ours else None
        self._mine = set()
        before = states(self.prefix)
        names = [state.resolve() for _, state in before]
        if path.resolve() in names:
            self._mine = {i for i, _ in before[names.index(path.resolve()) :]}

    def check(self, shapes: Shapes) -> None:
        """Raise SolverError now where a snapshot of such a net could not be written later."""
        if self._writes:
            check_writable(self.prefix)
        if self.end:
            require_hdf5_names(shapes)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other runs from writing under the same prefix; raises SolverError where one does."""
        if not self._writes:
            yield
            return
        lock = Path(f"{self.prefix}.lock")
        lock = lock.with_name(f".{lock.name}")
        require(
            not lock.is_symlink(),
            f"{lock}: a symbolic link, where the run's lock is to be; remove it",
            SolverError,
        )
        with exclusive_lock(lock) as other:
            require(
                other is None,
                f"{self.prefix}: another run, {other}, writes its snapshots there; end it, or give "
                "this one a snapshot_prefix of its own",
                SolverError,
            )
            yield

    def write(self, snapshot: Snapshot) -> Paths:
        """Write a snapshot now; returns the weights' path and the state's. Raises SolverError."""
        self.settle(wait=True)
        paths = self._paths(snapshot.state.iteration)
        self._begun(paths)
        self._write(snapshot)
        self.newest = snapshot.state.iteration
        self._whole(paths)
        return paths

    def begin(self, snapshot: Snapshot) -> None:
        """Write a snapshot in a thread of its own, after the one under way.

        What is on a device is copied at once: later steps change it.
        """
        self.settle(wait=True)
        self._begun(self._paths(snapshot.state.iteration))
        on_host = snapshot.on_host()
        self._writing = _Writing(snapshot.state.iteration, lambda: self._write(on_host))

    def settle(self, wait: bool) -> None:
        """Finish the snapshot under way if it is written, or failed, or ``wait`` is set."""
        writing = self._writing
        if writing is None or not writing.done(wait):
            return
        self._writing = None
        if writing.error is None:
            self.newest = writing.iteration
            self._whole(self._paths(writing.iteration))
        else:
            self._failed(str(writing.error))

    def saved(self) -> str:
        """Say which snapshot a run can resume from, as the disk has it once none is under way.

        Another process may have been lost while it wrote one.
        """
        self.settle(wait=True)
        for _, state in states(self.prefix):
            return f"the last snapshot is {state}; --resume goes on from there"
        return "there is no snapshot"

    def _paths(self, iteration: int) -> Paths:
        stem = f"{self.prefix}_iter_{iteration}"
        return Path(f"{stem}.caffemodel{self.end}"), Path(f"{stem}.solverstate{self.end}")

    def _write(self, snapshot: Snapshot) -> None:
        if not self._writes:
            return
        iteration, hdf5 = snapshot.state.iteration, bool(self.end)
        weights, state = self._paths(iteration)
        named = replace(snapshot.state, learned_net=str(weights))
        try:
            remove_leftovers(weights.parent, f"{Path(self.prefix).name}_iter_")
            with atomic_write_all([manifest.path_beside(weights), weights, state]) as parts:
                put_weights(parts[1], snapshot.shapes, snapshot.arrays, snapshot.diffs, hdf5)
                put_state(parts[2], named, hdf5)
                digests = {
                    path.name: manifest.digest(part)
                    for path, part in zip((weights, state), parts[1:], strict=True)
                }
                sequence, seen = successor(self.prefix, state)
                ours = replace(snapshot.manifest, files=digests, sequence=sequence, seen=seen)
                manifest.write(parts[0], ours)
        except OSError as error:
            raise SolverError(
                f"cannot write snapshot {self.prefix}_iter_{iteration}: {error.strerror or error}"
            ) from None
        self._mine.add(iteration)
        self._forget(iteration)

    def _forget(self, written: int) -> None:
        """Remove the run's oldest snapshots, not that just ``written``, until ``keep`` are left."""
        if self.keep is None:
            return
        mine = [
            each
            for each in newest_first(self.prefix)
            if each.iteration in self._mine and each.is_ours and each.iteration != written
        ]
        for each in mine[max(self.keep - 1, 0) :]:
            # Its own three files alone: of the other format there may be one that Caffe wrote.
            end = ".h5" if each.state.suffix == ".h5" else ""
            weights = Path(f"{self.prefix}_iter_{each.iteration}.caffemodel{end}")
            for path in (each.state, weights, manifest.path_beside(weights)):
                with suppress(OSError):
                    path.unlink(missing_ok=True)


class _Writing:
    """A thread that writes a snapshot; ``error``: what it failed with."""

    def __init__(self, iteration: int, write: Callable[[], None]) -> None:
        self.iteration = iteration
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(write,), name="snapshot")
        self._thread.start()

    def done(self, wait: bool) -> bool:
        """Whether it has ended; waits for that if asked to."""
        if wait:
            self._thread.join()
        return not self._thread.is_alive()

    def _run(self, write: Callable[[], None]) -> None:
        try:
            write()
        # Whatever it is, it belongs to the thread that trains.
        except Exception as error:
            self.error = error


def read(path: str | Path) -> Found:
    """Read a .solverstate, its weights and the manifest beside it; raises WeightsError."""
    path = Path(path)
    state = read_state(path)
    weights = read_weights(find_weights(state, path))
    return Found(
        path, state, weights, manifest.read(manifest.path_beside(path)) if _is_ours(path) else None
    )


def newest(path: Path, warn: Callable[[str], None]) -> Found:
    """A snapshot or, where it is damaged, the newest whole one before it.

    warn: told of each damaged one that was passed over. Raises WeightsError if none is whole.
    """
    damaged: list[WeightsError] = []
    for candidate in _not_after(path):
        try:
            found = read(candidate)
        except WeightsError as error:
            damaged.append(error)
            continue
        for passed_over in damaged:
            warn(f"{passed_over}; going on from {candidate}")
        return found
    earlier = f"; of the {len(damaged) - 1} before it none is whole either" if damaged[1:] else ""
    raise WeightsError(f"{damaged[0]}{earlier}")


def latest(prefix: str, warn: Callable[[str], None]) -> Found | None:
    """The newest whole snapshot of a prefix; None if there is none. See `newest`."""
    found = states(prefix)
    if not found:
        return None
    # Of a binary one and one in HDF5, the manifest beside belongs to the later.
    last = max((path for i, path in found if i == found[0][0]), key=_is_ours)
    return newest(last, warn)


def _not_after(path: Path) -> Iterator[Path]:
    """A .solverstate, then those before it of the same prefix, newest first."""
    yield path
    if not path.exists():
        return
    match = re.fullmatch(r"(.*)_iter_\d+\.solverstate(\.h5)?", path.name)
    if match:
        found = [state for _, state in states(str(path.with_name(match[1])))]
        yield from found[found.index(path) + 1 :]


def _is_ours(state: Path) -> bool:
    """Whether the manifest beside a state is its own; Caffe writes none."""
    try:
        return manifest_of(state) is not None
    except WeightsError:
        return True
