"""Reads and writes .solverstate files, binary or HDF5: the state that goes with the weights.

Caffe: ``SGDSolver::SnapshotSolverState``, ``RestoreSolverStateFromBinaryProto`` and ``...HDF5``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import jax
import numpy as np

from netspec.errors import Place, SolverError, WeightsError, blame, fail, require, unreadable
from netspec.formats import hdf5, protobuf_wire, sniff
from netspec.formats.atomic import atomic_write
from netspec.formats.manifest import verify
from netspec.weights.host_arrays import on_host

_ITER, _LEARNED_NET, _HISTORY, _CURRENT_STEP = 1, 2, 3, 4

# Caffe counts in an int.
_MOST_UPDATES = 2**31 - 1


@dataclass(frozen=True)
class State:
    """The state of a run: updates made, the weight file that goes with it, and the history.

    history: one array a learned array, in the order of the net; rules that keep two arrays list
    all first ones, then all second ones. current_step: how often the rate has been stepped down.
    """

    iteration: int
    learned_net: str
    history: tuple[np.ndarray | jax.Array, ...]
    current_step: int = 0


def read_state(path: str | Path) -> State:
    """Read a .solverstate, binary or HDF5; raises WeightsError."""
    path = Path(path)
    with blame(Place(str(path))):
        try:
            sniff.refuse_other_formats(path)
            as_hdf5 = hdf5.is_hdf5(path) or path.suffix == ".h5"
            verify(path)
            state = _read(path, as_hdf5)
        except OSError as error:
            raise WeightsError(unreadable("cannot read", error)) from None
        require(
            0 <= state.iteration <= _MOST_UPDATES,
            f"is damaged: it was written after {state.iteration} updates",
            WeightsError,
        )
        require(
            0 <= state.current_step <= _MOST_UPDATES,
            f"is damaged: its rate was stepped down {state.current_step} times",
            WeightsError,
        )
    return state


def put_state(path: Path, state: State, as_hdf5: bool) -> None:
    """Write a state, which a reader may see half written; raises OSError."""
    (_write_hdf5 if as_hdf5 else _write_binary)(path, state)


def find_weights(state: State, path: str | Path) -> Path:
    """The weight file that goes with a state: beside it, or where it says; raises WeightsError."""
    named = Path(state.learned_net)
    # Beside it first: snapshots are moved, and others written where they were.
    places = (Path(path).parent / named.name, named)
    with blame(Place(str(path))):
        require(state.learned_net, "does not name its weight file", WeightsError)
        # Not Path.exists: it raises for names too long and folders that are another user's.
        found = next((place for place in places if os.path.exists(place)), None)
        if found is None:
            fail(f"its weights {named} are neither there nor beside it", WeightsError)
    return found


def check_writable(prefix: str) -> None:
    """Raise SolverError unless files that begin with ``prefix`` can be written.

    Better now than hours into the run. Caffe: ``Solver::CheckSnapshotWritePermissions``.
    """
    require("\0" not in prefix, f"snapshot_prefix {prefix!r} cannot be a file's name", SolverError)
    # As long a name as any, and nobody's.
    probe = Path(f"{prefix}_iter_{_MOST_UPDATES}.probe.{os.getpid()}")
    try:
        with atomic_write(probe) as part:
            part.touch()
        probe.unlink()
    except OSError as error:
        fail(f"cannot write snapshots: {unreadable(prefix, error)}", SolverError)


def _read(path: Path, as_hdf5: bool) -> State:
    try:
        return _read_hdf5(path) if as_hdf5 else _read_binary(path)
    except WeightsError:
        sniff.refuse_weights(path)
        raise


def _read_binary(path: Path) -> State:
    numbers = {_ITER: 0, _CURRENT_STEP: 0}
    learned_net = ""
    history = []
    for number, kind, value in protobuf_wire.fields(protobuf_wire.mapped(path)):
        if number in numbers and isinstance(value, int):
            numbers[number] = value
        elif number == _LEARNED_NET and kind == protobuf_wire.BYTES:
            learned_net = protobuf_wire.string(value)
        elif number == _HISTORY and isinstance(value, memoryview):
            history.append(protobuf_wire.blob(value).array)
    require(history, "holds no history; is it a .solverstate?", WeightsError)
    return State(numbers[_ITER], learned_net, tuple(history), numbers[_CURRENT_STEP])


def _read_hdf5(path: Path) -> State:
    with hdf5.opened(path, ".solverstate.h5") as file:
        group = hdf5.member(file, "history")
        if not isinstance(group, h5py.Group):
            fail("is damaged: it holds no history", WeightsError)
        named = hdf5.member(file, "learned_net")
        return State(
            int(np.ravel(hdf5.array(hdf5.member(file, "iter")))[0]),
            "" if named is None else hdf5.string(named),
            tuple(hdf5.array(hdf5.member(group, str(i))) for i in range(len(group))),
            int(np.ravel(hdf5.array(hdf5.member(file, "current_step")))[0]),
        )


def _write_binary(path: Path, state: State) -> None:
    name = state.learned_net.encode()
    with open(path, "wb") as file:
        file.write(protobuf_wire.number(_ITER, state.iteration))
        file.write(protobuf_wire.header(_LEARNED_NET, len(name)) + name)
        for array in state.history:
            fetch = partial(on_host, array, array.shape)
            protobuf_wire.write_fetched(file, _HISTORY, array.shape, fetch)
        file.write(protobuf_wire.number(_CURRENT_STEP, state.current_step))


def _write_hdf5(path: Path, state: State) -> None:
    with hdf5.created(path) as file:
        file["iter"] = np.array([state.iteration], np.int32)
        # Caffe reads a string of fixed length and expects the 0 that ends it.
        file["learned_net"] = np.bytes_(state.learned_net.encode() + b"\0")
        file["current_step"] = np.array([state.current_step], np.int32)
        group = file.create_group("history")
        for i, array in enumerate(state.history):
            group[str(i)] = on_host(array, array.shape)
