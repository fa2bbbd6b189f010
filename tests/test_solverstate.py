"""Snapshots as files: names, formats, and states that fit or do not."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from solver_nets import (
    BASE,
    ROWS,
    WEIGHT,
    net,
    set_weight,
    snapshots,
    solver,
    weight_of,
    weights_file,
)
from solver_nets import folder as folder

from netspec.errors import SolverError, WeightsError
from netspec.formats.hdf5 import is_hdf5
from netspec.proto.net_pb2 import NetParameter
from netspec.proto.solver_pb2 import SolverState
from netspec.solving.snapshots.solverstate import (
    State,
    check_writable,
    find_weights,
    put_state,
    read_state,
)

# Snapshots


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ("", ["solver_iter_1.caffemodel", "solver_iter_1.solverstate"]),
        ('snapshot_prefix: "out/a"', ["out/a_iter_1.caffemodel", "out/a_iter_1.solverstate"]),
        (
            'snapshot_prefix: "there"',
            ["there/solver_iter_1.caffemodel", "there/solver_iter_1.solverstate"],
        ),
        (
            "snapshot_format: HDF5",
            ["solver_iter_1.caffemodel.h5", "solver_iter_1.solverstate.h5"],
        ),
    ],
)
def test_names_of_snapshots(settings: str, files: list[str]) -> None:
    Path("there").mkdir()
    loop = solver(settings)
    loop.step(1)
    assert [str(path) for path in loop.snapshot()] == files
    assert snapshots() == files
    assert [is_hdf5(path) for path in files] == ["HDF5" in settings] * 2
    assert read_state(files[1]).learned_net == files[0]


def test_a_binary_snapshot_is_caffes_message() -> None:
    loop = set_weight(solver("gamma: 0.5 stepsize: 2", base=BASE.replace("fixed", "step")))
    loop.step(3)
    loop.snapshot()
    state, weights = SolverState(), NetParameter()
    state.ParseFromString(Path("solver_iter_3.solverstate").read_bytes())
    weights.ParseFromString(Path("solver_iter_3.caffemodel").read_bytes())
    assert (state.iter, state.current_step) == (3, 1)
    assert state.learned_net == "solver_iter_3.caffemodel"
    (history,) = state.history
    assert list(history.shape.dim) == [2, 3]
    (stored,) = [layer.blobs[0] for layer in weights.layer if layer.name == "ip"]
    assert np.array_equal(np.array(stored.data, np.float32), weight_of(loop).ravel())


def test_an_hdf5_state_lies_as_caffe_lays_it() -> None:
    history = (np.ones((2, 3), np.float32), np.zeros(5, np.float32))
    put_state(Path("x.solverstate.h5"), State(7, "x.caffemodel.h5", history, 2), True)
    with h5py.File("x.solverstate.h5") as file:
        assert sorted(file) == ["current_step", "history", "iter", "learned_net"]
        for name, value in (("iter", 7), ("current_step", 2)):
            assert (file[name].shape, file[name].dtype, file[name][0]) == ((1,), np.int32, value)
        # Caffe reads as many bytes as the string has, and expects the last one to be 0.
        name = file["learned_net"]
        assert (name.shape, name.dtype, name[()]) == ((), "S16", b"x.caffemodel.h5")
        assert sorted(file["history"]) == ["0", "1"]
        assert file["history/0"].dtype == np.float32
    state = read_state("x.solverstate.h5")
    assert (state.iteration, state.learned_net, state.current_step) == (7, "x.caffemodel.h5", 2)
    assert [array.tolist() for array in state.history] == [array.tolist() for array in history]


@pytest.mark.parametrize("end", ["", ".h5"])
def test_a_restored_run_goes_on(end: str) -> None:
    settings = f"momentum: 0.9 snapshot_format: {'HDF5' if end else 'BINARYPROTO'}"
    first = solver(settings)
    first.step(5)
    first.snapshot()
    first.step(3)
    second = solver(settings)
    # Its data begins anew, as Caffe's does; five rows were one pass.
    second.restore(f"solver_iter_5.solverstate{end}")
    assert second.iteration == 5
    second.step(3)
    assert np.array_equal(weight_of(first), weight_of(second))


def test_a_prefix_that_cannot_be_written_is_found_at_once() -> None:
    loop = solver('max_iter: 1 snapshot_prefix: "rows.txt/a"')
    with pytest.raises(SolverError) as raised:
        loop.solve()
    assert str(raised.value).startswith("solver.prototxt: cannot write snapshots: rows.txt/a: ")
    assert loop.iteration == 0
    solver('max_iter: 1 snapshot_prefix: "rows.txt/a" snapshot_after_train: false').solve()
    with pytest.raises(SolverError, match=r"^cannot write snapshot rows.txt/a_iter_0: "):
        loop.snapshot()


def test_looking_whether_a_prefix_can_be_written_leaves_nothing(folder: Path) -> None:
    Path("out_probe").write_text("a file of someone's")
    before = sorted(folder.iterdir())
    check_writable("out")
    assert sorted(folder.iterdir()) == before
    with pytest.raises(SolverError, match=r"^snapshot_prefix 'a\\x00b' cannot be a file's name$"):
        check_writable("a\0b")


def test_names_that_hdf5_cannot_keep_are_found_before_the_first_update() -> None:
    Path("net.prototxt").write_text(net().replace('"ip"', '"a//b"'))
    loop = solver("max_iter: 1 snapshot_format: HDF5")
    with pytest.raises(WeightsError) as raised:
        loop.solve()
    assert str(raised.value).endswith(
        'layer "a//b" (InnerProduct): HDF5 cannot keep a layer of this name; write a .caffemodel'
    )
    assert loop.iteration == 0


# States that do not fit


def state_file(path: str = "x.solverstate", **changes: Any) -> str:
    weights_file("x.caffemodel")
    state = {"iteration": 4, "learned_net": "x.caffemodel", "history": (np.ones((2, 3)),)}
    put_state(Path(path), State(**{**state, **changes}), path.endswith(".h5"))
    return path


def test_a_state_sets_weights_history_and_iteration() -> None:
    for end in ("", ".h5"):
        loop = solver("momentum: 0.5")
        loop.restore(state_file(f"x.solverstate{end}"))
        assert loop.iteration == 4
        assert np.array_equal(weight_of(loop), WEIGHT)
        loop.step(1)
        gradient = np.outer(WEIGHT @ ROWS[0], ROWS[0])
        expected = WEIGHT - 0.01 * gradient - 0.5
        np.testing.assert_allclose(weight_of(loop), expected, rtol=1e-5)


def test_weights_are_found_beside_the_state() -> None:
    Path("there").mkdir()
    path = state_file("there/x.solverstate", learned_net="/gone/x.caffemodel")
    Path("x.caffemodel").rename("there/x.caffemodel")
    assert find_weights(read_state(path), path) == Path("there/x.caffemodel")


@pytest.mark.parametrize("end", ["", ".h5"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"history": (np.ones((2, 3)),) * 2},
            "x.solverstate: holds 2 history blobs; this solver keeps 1",
        ),
        (
            {"history": (np.ones((5, 3)),)},
            'x.solverstate: layer "ip": the history of its weight is 5x3, its shape 2x3',
        ),
        ({"learned_net": ""}, "x.solverstate: does not name its weight file"),
        (
            {"learned_net": "gone/y.caffemodel"},
            "x.solverstate: its weights gone/y.caffemodel are neither there nor beside it",
        ),
        (
            {"learned_net": "y" * 300},
            f"x.solverstate: its weights {'y' * 300} are neither there nor beside it",
        ),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(
    end: str, changes: dict[str, Any], message: str
) -> None:
    loop = set_weight(solver("momentum: 0.5"), 3 * WEIGHT)
    path = state_file(f"x.solverstate{end}", **changes)
    with pytest.raises(WeightsError) as raised:
        loop.restore(path)
    assert str(raised.value) == message.replace("x.solverstate", path)
    assert loop.iteration == 0
    assert np.array_equal(weight_of(loop), 3 * WEIGHT)


def test_a_state_of_other_weights_changes_nothing() -> None:
    loop = set_weight(solver(), 3 * WEIGHT)
    path = state_file()
    weights_file("x.caffemodel", np.ones((5, 3)))
    with pytest.raises(WeightsError, match="weight is 5x3 in the file, 2x3 in the net"):
        loop.restore(path)
    assert loop.iteration == 0
    assert np.array_equal(weight_of(loop), 3 * WEIGHT)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"iter: 3", 'is text that begins "iter: 3"; only Caffe\'s files can be read'),
        (b"\x08\x03\x92", "is truncated in the middle of a number"),
        (b"\x08\x03", "holds no history; is it a .solverstate?"),
        (b"\x08\x03\x1a\x05abc", "is truncated: a field of 5 bytes has only 3 left"),
        (
            b"\x08" + b"\xff" * 9 + b"\x01\x1a\x06\x2a\x04abcd",
            f"is damaged: it was written after {2**64 - 1} updates",
        ),
        (b"\x89HDF\r\n\x1a\n", "is damaged, or no .solverstate.h5"),
    ],
)
def test_states_that_cannot_be_read(data: bytes, message: str) -> None:
    Path("x.solverstate").write_bytes(data)
    with pytest.raises(WeightsError) as raised:
        read_state("x.solverstate")
    assert str(raised.value) == f"x.solverstate: {message}"


def test_a_state_that_is_not_there() -> None:
    for name in ("no.solverstate", "no.solverstate.h5"):
        with pytest.raises(WeightsError, match=f"^{name}: cannot read: no such file$"):
            read_state(name)


@pytest.mark.parametrize("end", ["", ".h5"])
def test_a_state_cut_anywhere(end: str) -> None:
    data = Path(state_file(f"whole{end}", history=(np.ones((2, 3)), np.ones(5)))).read_bytes()
    refused = []
    for size in range(0, len(data), 97 if end else 1):
        Path(f"cut{end}").write_bytes(data[:size])
        try:
            state = read_state(f"cut{end}")
        except WeightsError as error:
            refused.append(str(error))
            continue
        # Cut between two fields: a count that `restore` refuses, or but the last field is gone.
        assert len(state.history) == 1 or size == len(data) - 2
    tried = len(range(0, len(data), 97 if end else 1))
    assert tried / 2 < len(refused) <= tried - (not end)
    assert all(message.startswith(f"cut{end}: ") for message in refused)
