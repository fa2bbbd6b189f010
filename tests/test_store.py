"""Snapshots that damage, full disks or other runs touch: which one is taken, which are kept."""

import errno
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from resumed_runs import Said, W, everything, iterations, line, solver
from resumed_runs import folder as folder

from netspec.errors import SolverError, WeightsError
from netspec.formats import manifest
from netspec.proto.net_pb2 import NetParameter
from netspec.solving.callback import Callback
from netspec.solving.snapshots import store
from netspec.solving.solver import Solver
from netspec.weights.caffemodel import read_weights

# Damage


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("harm", [flipped, cut, Path.unlink], ids=["flipped", "cut", "gone"])
@pytest.mark.parametrize("end", ["caffemodel", "resume.json", "solverstate"])
@pytest.mark.parametrize("hdf5", ["", ".h5"])
def test_of_damaged_snapshots_the_one_before_is_taken(
    harm: Callable[[Path], None], end: str, hdf5: str
) -> None:
    settings = "random_seed: 1 max_iter: 6 snapshot: 2" + " snapshot_format: HDF5" * bool(hdf5)
    first = solver(settings)
    first.solve()
    newest = Path(f"snap/run_iter_6.solverstate{hdf5}")
    harm(Path(f"snap/run_iter_6.{end}{hdf5 if end != 'resume.json' else ''}"))
    warnings: list[str] = []
    if (harm, end) == (Path.unlink, "resume.json"):
        # As Caffe would have written it.
        assert store.newest(newest, warnings.append).manifest is None
        return
    if (harm, end) == (Path.unlink, "solverstate"):
        with pytest.raises(WeightsError, match=r"cannot read: no such file$"):
            store.newest(newest, warnings.append)
    else:
        found = store.newest(newest, warnings.append)
        assert found.path == Path(f"snap/run_iter_4.solverstate{hdf5}")
        (warning,) = warnings
        assert warning.endswith(f"; going on from {found.path}")
        with pytest.raises(WeightsError, match=r"^snap/run_iter_6\."):
            solver(settings).restore(newest)
    found = store.latest("snap/run", lambda _: None)
    assert found is not None
    assert found.state.iteration == 4
    second = solver(settings)
    second.take(found)
    second.step(2)
    assert everything(second) == everything(first)


def test_with_damaged_snapshots_alone_nothing_begins_anew() -> None:
    solver("random_seed: 1 max_iter: 4 snapshot: 2").solve()
    for i in (2, 4):
        cut(Path(f"snap/run_iter_{i}.caffemodel"))
    warnings: list[str] = []
    with pytest.raises(WeightsError, match=r"^snap/run_iter_4\.caffemodel: "):
        store.latest("snap/run", warnings.append)
    assert warnings == []


def test_messages_of_damage() -> None:
    loop = solver("random_seed: 1")
    loop.step(1)
    weights, state = loop.snapshot()
    flipped(weights)
    changed = "is damaged: its bytes are not those that were written. If it was changed on purpose,"
    with pytest.raises(WeightsError) as raised:
        read_weights(weights)
    assert str(raised.value) == f"{weights}: {changed} delete run_iter_1.resume.json"
    flipped(manifest.path_beside(state))
    with pytest.raises(WeightsError) as raised:
        read_weights(weights)
    assert str(raised.value) == (
        f"{weights}: {manifest.path_beside(state)}: is damaged: its checksum does not fit; "
        "run_iter_1.caffemodel cannot be checked. Delete run_iter_1.resume.json to use it all "
        "the same"
    )
    manifest.path_beside(state).unlink()
    read_weights(weights)
    with pytest.raises(WeightsError, match=r"^nowhere.solverstate: cannot read: no such file$"):
        store.newest(Path("nowhere.solverstate"), lambda _: None)
    assert store.latest("nowhere", lambda _: None) is None


# Writing


@pytest.mark.parametrize(("keep", "left"), [(None, [1, 2, 3, 4]), (2, [3, 4]), (1, [4])])
def test_old_snapshots_are_limited_in_number(keep: int | None, left: list[int]) -> None:
    Path("snap").mkdir()
    Path("snap/run_iter_0.solverstate").write_bytes(b"not ours")
    solver("random_seed: 1 snapshot: 1 max_iter: 4", keep=keep).solve()
    assert iterations() == [0, *left]
    assert len(list(Path("snap").iterdir())) == 1 + 3 * len(left)


def test_snapshots_of_an_earlier_run_are_never_removed() -> None:
    """A run that starts anew did not write them, even if it has come less far."""
    solver("random_seed: 1 snapshot: 2 max_iter: 6").solve()
    solver("random_seed: 2 snapshot: 1 max_iter: 3", keep=1).solve()
    assert iterations() == [3, 4, 6]
    goes_on = solver("random_seed: 3 snapshot: 1 max_iter: 8", keep=2)
    goes_on.restore("snap/run_iter_4.solverstate")
    goes_on.solve()
    assert iterations() == [3, 7, 8]


def test_two_runs_do_not_write_under_one_prefix() -> None:
    """The second is told of the first, and may write once that is over."""

    class Second(Callback):
        said = ""

        def step(self, first: Solver, step: Any) -> None:
            if step.iteration == 1:
                with pytest.raises(SolverError) as raised:
                    solver("random_seed: 2 max_iter: 3").solve()
                self.said = str(raised.value)

    callback = Second()
    solver("random_seed: 1 max_iter: 2", callback).solve()
    assert callback.said == (
        f"snap/run: another run, process {os.getpid()} on {socket.gethostname()}, writes its "
        "snapshots there; end it, or give this one a snapshot_prefix of its own"
    )
    solver("random_seed: 2 max_iter: 3").solve()
    assert iterations() == [2, 3]


def test_writing_happens_beside_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first snapshot is not written before step 4 is made, and yet holds step 2."""
    went_on = threading.Event()
    put = store.put_weights

    def slow(*args: Any) -> None:
        assert went_on.wait(60)
        put(*args)

    class Steps(Callback):
        def step(self, solver: Solver, step: Any) -> None:
            if step.iteration == 3:
                went_on.set()

    monkeypatch.setattr(store, "put_weights", slow)
    loop = solver("random_seed: 1 snapshot: 2 max_iter: 3 snapshot_after_train: false", Steps())
    straight = solver("random_seed: 1")
    straight.step(2)
    loop.step(4)
    assert iterations() == [2, 4]
    written = read_weights("snap/run_iter_2.caffemodel").layers["ip"][0].array
    np.testing.assert_array_equal(written, straight.net.arrays()[W])


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may be longer than ``limit`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("hdf5", ["", ".h5"])
def test_a_full_disk_does_not_end_training(hdf5: str) -> None:
    said = Said()
    loop = solver(
        "random_seed: 1 snapshot: 2 max_iter: 6" + " snapshot_format: HDF5" * bool(hdf5), said
    )
    loop.step(2)
    before = {path: path.read_bytes() for path in Path("snap").iterdir()}
    with full_disk(100):
        loop.step(2)
        assert loop.iteration == 4
        (warning,) = said.warnings
        assert warning.startswith("cannot write snapshot snap/run_iter_4: ")
        assert {path: path.read_bytes() for path in Path("snap").iterdir()} == before
        with pytest.raises(SolverError, match=r"^cannot write snapshot snap/run_iter_6: "):
            loop.solve()
        assert loop.iteration == 6
    loop.solve()
    assert iterations() == [2, 6]


def test_a_snapshot_that_failed_is_written_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    put, failures = store.put_weights, [OSError(errno.ENOSPC, "No space left on device")]

    def once(*args: Any) -> None:
        if failures:
            raise failures.pop()
        put(*args)

    monkeypatch.setattr(store, "put_weights", once)
    said = Said()
    solver("random_seed: 1 snapshot: 2 max_iter: 2", said).solve()
    assert said.warnings == ["cannot write snapshot snap/run_iter_2: No space left on device"]
    assert iterations() == [2]


def test_snapshot_diff_keeps_the_last_update() -> None:
    loop = line([[1, 2]], "snapshot_diff: true momentum: 0.5 random_seed: 1")
    loop.step(2)
    before = np.array(loop.net.arrays()[W])
    loop.step(1)
    weights, _ = loop.snapshot()
    message = NetParameter()
    message.ParseFromString(weights.read_bytes())
    (blob,) = [layer.blobs[0] for layer in message.layer if layer.name == "ip"]
    moved = before - np.array(loop.net.arrays()[W])
    np.testing.assert_allclose(blob.diff, moved.ravel(), atol=1e-7)
    assert np.abs(moved).max() > 1e-3
