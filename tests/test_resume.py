"""Snapshots: a run that goes on from one is the run that never stopped, whatever happens."""

import errno
import os
import resource
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from netspec.errors import SolverError, SourceError, WeightsError
from netspec.formats import manifest
from netspec.frontend.shapes import ParamKey
from netspec.proto.net_pb2 import NetParameter
from netspec.solving.callback import Callback
from netspec.solving.snapshots import store
from netspec.solving.solver import Solver
from netspec.weights.caffemodel import read_weights

# Rows are shuffled, units are dropped at random, statistics run, an LSTM remembers.
NET = """
name: "fragile"
layer { name: "data" type: "HDF5Data" top: "x" top: "cont" top: "label"
  hdf5_data_param { source: "rows.txt" batch_size: 3 shuffle: true } }
layer { name: "norm" type: "BatchNorm" bottom: "x" top: "norm" }
layer { name: "up" type: "Reshape" bottom: "norm" top: "up"
  reshape_param { shape { dim: 3 dim: 1 dim: 2 } } }
layer { name: "lstm" type: "LSTM" bottom: "up" bottom: "cont" top: "h"
  recurrent_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "h" top: "drop" }
layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "y" param { lr_mult: 2 }
  inner_product_param { num_output: 1 axis: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "label" top: "loss" }
"""
# The loss is 0.5 sum(y^2) of y = w x; x is fed row by row.
LINE = """
name: "line"
layer { name: "data" type: "HDF5Data" top: "x"
  hdf5_data_param { source: "line.txt" batch_size: 1 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "square" type: "Power" bottom: "y" top: "loss" loss_weight: 0.5
  power_param { power: 2 } }
"""
W = ParamKey("ip", "weight")
BASE = 'net: "net.prototxt" base_lr: 0.05 lr_policy: "fixed" snapshot_prefix: "snap/run" '


class Said(Callback):
    """What was said and warned."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.warnings.append(line)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    with h5py.File("rows.h5", "w") as file:
        file["x"] = draw.normal(size=(11, 2)).astype(np.float32)
        file["cont"] = np.ones((11, 1), np.float32)
        file["label"] = draw.normal(size=(11, 1, 1)).astype(np.float32)
    Path("rows.txt").write_text("rows.h5\n")
    Path("net.prototxt").write_text(NET)
    return tmp_path


def solver(settings: str = "", callback: Callback | None = None, keep: int | None = None) -> Solver:
    Path("solver.prototxt").write_text(BASE + settings)
    return Solver.from_file("solver.prototxt", callback, keep)


def line(rows: Any, settings: str = "", callback: Callback | None = None) -> Solver:
    with h5py.File("line.h5", "w") as file:
        file["x"] = np.asarray(rows, np.float32)
    Path("line.txt").write_text("line.h5\n")
    Path("net.prototxt").write_text(LINE)
    return solver(settings, callback)


def everything(loop: Solver) -> dict[str, Any]:
    """All that a run is made of, as bytes and numbers."""
    arrays = {str(key): np.asarray(a).tobytes() for key, a in loop.net.arrays().items()}
    memory = {
        str(key): np.asarray(a).tobytes() for key, a in loop.net.memory_for(loop.net.shapes).items()
    }
    history = [np.asarray(array).tobytes() for array in loop.trainer.history()]
    return {
        "arrays": arrays,
        "memory": memory,
        "history": history,
        "iteration": loop.iteration,
        "smoothed loss": loop.smoothed_loss(),
        "data": loop.data,
    }


@pytest.mark.parametrize(
    "settings",
    [
        'type: "SGD" momentum: 0.9',
        'type: "Nesterov" momentum: 0.9 iter_size: 2 snapshot_format: HDF5',
        'type: "AdaGrad" average_loss: 4',
        'type: "RMSProp" weight_decay: 0.01 snapshot_format: HDF5',
        'type: "AdaDelta" momentum: 0.9 delta: 1e-3',
        'type: "Adam" momentum: 0.9 clip_gradients: 0.5 snapshot_diff: true',
    ],
)
@pytest.mark.parametrize("stop", [1, 6])
def test_a_resumed_run_has_the_same_bits(settings: str, stop: int) -> None:
    """Without a random_seed: the one that the run drew is part of the snapshot."""
    first = solver(settings)
    first.step(stop)
    _, state = first.snapshot()
    first.step(7)
    second = solver(settings)
    second.step(2)
    second.restore(state)
    assert second.iteration == stop
    second.step(7)
    assert everything(second) == everything(first)
    assert second.seed == first.seed


def test_test_nets_go_on_where_their_data_stood() -> None:
    Path("net.prototxt").write_text(NET)
    settings = "test_iter: 1 test_interval: 2 random_seed: 4"
    first = solver(settings)
    first.step(3)
    _, state = first.snapshot()
    second = solver(settings)
    second.restore(state)
    assert second.tests.state() == first.tests.state() != ()
    first.step(2), second.step(2)
    assert second.tests.state() == first.tests.state()


class Results(Callback):
    """What each test found, by iteration and test net; a test at ``stop`` ends the run."""

    def __init__(self, stop: int = -1) -> None:
        self.found: dict[tuple[int, int], Any] = {}
        self.stop = stop

    def test(self, solver: Solver, index: int, result: Any) -> None:
        found = {name: value.tolist() for name, value in result.outputs.items()}
        self.found[solver.iteration, index] = found
        solver.stopping = solver.iteration == self.stop


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_resumed_run_has_the_same_tests(stop: int) -> None:
    """At 1 there was none, at 3 an LSTM of theirs remembers, at 4 one of two is just over."""
    own = """layer { name: "own" type: "InnerProduct" bottom: "x" top: "own"
      include { phase: TEST } inner_product_param { num_output: 1
      weight_filler { type: "xavier" } } }"""
    Path("net.prototxt").write_text(NET + own)
    settings = "test_iter: 1 test_iter: 2 test_interval: 2 test_initialization: false "
    first, again, straight = Results(stop=4), Results(), Results()
    stopped = solver(settings, first)
    stopped.step(5 if stop == 4 else stop)
    assert (stopped.iteration, len(first.found)) == (stop, {1: 0, 3: 2, 4: 3}[stop])
    _, state = stopped.snapshot()
    resumed = solver(settings, again)
    resumed.restore(state)
    resumed.step(7 - stop)
    solver(f"{settings} random_seed: {stopped.seed}", straight).step(7)
    assert again.found == {at: found for at, found in straight.found.items() if at[0] >= stop}


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (1, 0), (0, 1)])
def test_a_run_goes_on_with_another_number_of_test_nets(before: int, after: int) -> None:
    every = "random_seed: 4 test_interval: 2 "
    first = solver(every + "test_iter: 1 " * before)
    first.step(3)
    _, state = first.snapshot()
    second = solver(every + "test_iter: 1 " * after)
    second.restore(state)
    common = min(before, after)
    assert second.tests.state()[:common] == first.tests.state()[:common]
    second.step(2)
    assert second.iteration == 5


def test_test_nets_have_the_arrays_of_what_was_restored() -> None:
    loop = solver("random_seed: 4 test_iter: 1 test_interval: 2")
    loop.step(1)
    _, state = loop.snapshot()
    before = np.array(loop.net.arrays()[W])
    loop.step(2)
    loop.restore(state)
    np.testing.assert_array_equal(loop.test_nets[0].arrays()[W], before)


def test_what_layers_remember_of_another_shape_is_kept() -> None:
    first = solver("random_seed: 4")
    key = next(iter(first.net.shapes.carried))
    shape = (1, 7, first.net.shapes.carried[key][-1])
    first.net.assign({key: jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)})
    _, state = first.snapshot()
    second = solver("random_seed: 4")
    second.restore(state)
    (a, b) = (np.array(loop.net.carried[key.layer][key.blob][...]) for loop in (first, second))
    assert a.shape == shape
    np.testing.assert_array_equal(b, a)


def test_other_data_is_named_with_its_remedy() -> None:
    first = solver("random_seed: 4")
    first.step(1)
    _, state = first.snapshot()
    Path("net.prototxt").write_text(NET.replace('name: "data"', 'name: "rows"'))
    with pytest.raises(SourceError) as raised:
        solver().restore(state)
    assert str(raised.value) == (
        "snap/run_iter_1.resume.json: the state is another source's: it has data; needed are rows; "
        "to go on with other data, delete this file"
    )


def test_a_run_that_went_back_writes_its_last_snapshot_again() -> None:
    loop = solver("random_seed: 1 snapshot: 2 max_iter: 4")
    loop.solve()
    loop.param.ClearField("snapshot")
    loop.restore("snap/run_iter_2.solverstate")
    loop.net.assign({ParamKey("ip", "bias"): jnp.full((1,), 9.0)})
    loop.solve()
    written = read_weights("snap/run_iter_4.caffemodel").layers["ip"][1].array
    np.testing.assert_array_equal(written, loop.net.arrays()[ParamKey("ip", "bias")])


def test_a_record_belongs_to_one_format() -> None:
    """An older snapshot of the same iteration in the other format is taken as Caffe's would be."""
    solver("random_seed: 1 snapshot: 2 max_iter: 4 snapshot_format: HDF5").solve()
    solver("random_seed: 2 snapshot: 2 max_iter: 4", keep=2).solve()
    found = store.latest("snap/run", lambda _: None)
    assert found is not None
    assert found.record is not None
    assert (found.path, found.record.seed) == (Path("snap/run_iter_4.solverstate"), 2)
    assert store.read("snap/run_iter_4.solverstate.h5").record is None
    assert iterations() == [2, 4]


def test_without_its_record_a_snapshot_is_like_caffes() -> None:
    first = solver("random_seed: 1 average_loss: 3")
    first.step(2)
    _, state = first.snapshot()
    manifest.beside(state).unlink()
    second = solver("random_seed: 1 average_loss: 3")
    at_start = second.data
    second.restore(state)
    assert (second.iteration, second.data, len(second.losses)) == (2, at_start, 0)
    assert second.net.arrays().keys() == first.net.arrays().keys()


def test_a_moved_snapshot_brings_its_weights() -> None:
    """Though others were written since where it was."""
    first = solver("random_seed: 1")
    first.step(2)
    first.snapshot()
    shutil.copytree("snap", "moved")
    other = solver("random_seed: 2")
    other.step(2)
    other.snapshot()
    second = solver()
    second.restore("moved/run_iter_2.solverstate")
    assert everything(second) == everything(first)


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
        assert store.newest(newest, warnings.append).record is None
        return
    if (harm, end) == (Path.unlink, "solverstate"):
        with pytest.raises(WeightsError, match=r"cannot read: no such file$"):
            store.newest(newest, warnings.append)
    else:
        found = store.newest(newest, warnings.append)
        assert found.path == Path(f"snap/run_iter_4.solverstate{hdf5}")
        (warning,) = warnings
        assert warning.endswith(f"; going on from {found.path}")
        with pytest.raises(WeightsError):
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
    flipped(manifest.beside(state))
    with pytest.raises(WeightsError) as raised:
        read_weights(weights)
    assert str(raised.value) == (
        f"{weights}: {manifest.beside(state)}: is damaged: its checksum does not fit; "
        "run_iter_1.caffemodel cannot be checked. Delete run_iter_1.resume.json to use it all "
        "the same"
    )
    manifest.beside(state).unlink()
    read_weights(weights)
    with pytest.raises(WeightsError, match=r"^nowhere.solverstate: cannot read: no such file$"):
        store.newest(Path("nowhere.solverstate"), lambda _: None)
    assert store.latest("nowhere", lambda _: None) is None


# Writing


def iterations() -> list[int]:
    return sorted({int(path.name.split("_")[2].split(".")[0]) for path in Path("snap").iterdir()})


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


# Numbers that go bad


NAN = float("nan")


@pytest.mark.parametrize("settings", ["", "iter_size: 2", "momentum: 0.9 snapshot: 10"])
def test_a_loss_that_is_not_finite_ends_the_run_where_it_was(settings: str) -> None:
    size = 2 if "iter_size" in settings else 1
    rows = np.ones((12, 3), np.float32)
    rows[5 * size, 1] = NAN
    straight = line(np.ones((12, 3)), f"{settings} random_seed: 1")
    straight.step(5)
    loop = line(rows, f"{settings} random_seed: 1 max_iter: 9")
    with pytest.raises(SolverError) as raised:
        loop.solve()
    assert str(raised.value) == (
        'iteration 5: not finite: net.prototxt:3: layer "data" (HDF5Data): its top "x" is fed nan '
        "at (0, 1); the data itself, or how it is made, is at fault; the batch is line.h5; all "
        "before it is saved in snap/run_iter_5.solverstate"
    )
    assert everything(loop)["arrays"] == everything(straight)["arrays"]
    assert everything(loop)["history"] == everything(straight)["history"]
    # The data stands before what was bad, so that a run on mended data makes each step once.
    again = line(np.ones((12, 3)), f"{settings} random_seed: 1 max_iter: 9")
    again.restore("snap/run_iter_5.solverstate")
    again.step(2)
    straight.step(2)
    assert everything(again) == everything(straight)


def test_statistics_are_those_before_what_was_bad() -> None:
    with h5py.File("rows.h5", "a") as file:
        file["x"][9] = NAN
    Path("net.prototxt").write_text(NET.replace("shuffle: true", ""))
    loop = solver("random_seed: 1 iter_size: 2 max_iter: 9 snapshot_after_train: false")
    loop.step(1)
    before = everything(loop)
    with pytest.raises(SolverError, match=r"^iteration 1: .* as the solver writes no snapshots$"):
        loop.step(4)
    assert everything(loop) == before


def test_diffs_are_not_those_of_an_update_that_was_not_made() -> None:
    rows = np.ones((6, 3), np.float32)
    rows[3, 1] = NAN
    loop = line(rows, "random_seed: 1 max_iter: 9 snapshot_diff: true")
    with pytest.raises(SolverError, match=r"^iteration 3: not finite: "):
        loop.solve()
    message = NetParameter()
    message.ParseFromString(Path("snap/run_iter_3.caffemodel").read_bytes())
    (blob,) = [layer.blobs[0] for layer in message.layer if layer.name == "ip"]
    assert list(blob.diff) == [0.0] * 6


def test_debug_nans_names_the_first_of_two_updates_that_failed() -> None:
    """Of the first, all is finite but the step itself."""
    line([[100, 100], [NAN, 0]])
    huge = LINE.replace("inner_product_param", "param { lr_mult: 1e38 } inner_product_param")
    Path("net.prototxt").write_text(huge)
    loop = solver("random_seed: 1")
    loop.net.assign({W: jnp.ones((2, 2))})
    loop.guard.debug_nans = True
    with pytest.raises(SolverError, match=r"^iteration 0: not finite: the update, though "):
        loop.step(2)


def test_a_gradient_that_is_not_finite_ends_the_run() -> None:
    root = "power_param { power: 0.5 } }"
    loop = line([[1, 1], [2, 0], [0, 0]], "random_seed: 1 max_iter: 9")
    Path("net.prototxt").write_text(LINE.replace("power_param { power: 2 } }", root))
    loop = solver("random_seed: 1 max_iter: 9")
    loop.net.assign({W: jnp.ones((2, 2))})
    with pytest.raises(SolverError) as raised:
        loop.solve()
    assert str(raised.value).startswith(
        'iteration 2: not finite: net.prototxt:7: layer "square" (Power): all blobs are finite, '
        'but the gradient of its bottom "y" is the first, going backward, that is not: it holds '
        "inf; "
    )
    assert np.isfinite(loop.net.arrays()[W]).all()


def test_what_has_exploded_is_not_saved() -> None:
    loop = line(
        np.ones((4, 3)),
        "random_seed: 1 max_iter: 99 base_lr: 1e25".replace("base_lr: 1e25", "clip_gradients: -1"),
    )
    loop.net.assign({W: jnp.full((2, 3), 3e38)})
    with pytest.raises(SolverError) as raised:
        loop.solve()
    assert "iteration 0: not finite: " in str(raised.value)
    assert str(raised.value).endswith("; nothing was learned before")
    assert not Path("snap").exists() or not list(Path("snap").glob("*iter*"))


def test_debug_nans_finds_what_the_loss_does_not_show() -> None:
    """A blob that no loss depends on."""
    log = 'layer { name: "log" type: "Log" bottom: "z" top: "log" }'
    split = 'layer { name: "z" type: "Power" bottom: "x" top: "z" power_param { scale: -1 } }'
    line([[1, 1], [2, 2]])
    Path("net.prototxt").write_text(LINE + split + log)
    solver("random_seed: 1").step(3)
    loop = solver("random_seed: 1")
    loop.guard.debug_nans = True
    with pytest.raises(SolverError, match=r'layer "log" \(Log\): its top "log" is the first'):
        loop.step(3)


def test_a_loss_at_chance_is_warned_of_once() -> None:
    net = """
    layer { name: "data" type: "HDF5Data" top: "x" top: "label"
      hdf5_data_param { source: "stuck.txt" batch_size: 2 } }
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a"
      inner_product_param { num_output: 3 bias_term: false } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b"
      inner_product_param { num_output: 5 bias_term: false } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "b" bottom: "label" top: "loss" }
    """
    with h5py.File("stuck.h5", "w") as file:
        file["x"], file["label"] = np.ones((4, 3), np.float32), np.zeros(4, np.float32)
    Path("stuck.txt").write_text("stuck.h5\n")
    Path("net.prototxt").write_text(net)
    said = Said()
    solver("random_seed: 1", said).step(30)
    assert said.warnings
    assert all(
        w.startswith("the loss stays at 1.60944, that of equal scores: ") for w in said.warnings
    )
    assert "the weights of a, b are all zero" in said.warnings[0]
    said.warnings.clear()
    filled = net.replace("bias_term: false", 'bias_term: false weight_filler { type: "xavier" }')
    Path("net.prototxt").write_text(filled)
    solver("random_seed: 1", said).step(30)
    assert said.warnings == []


def test_debug_info_is_printed_where_steps_are_displayed() -> None:
    said = Said()
    line([[1, 1], [2, 2]])
    solver("random_seed: 1 debug_info: true display: 2", said).step(3)
    assert [text.split(":")[0] for text in said.lines[: len(said.lines) // 2]] == [
        "    [Forward] Layer data, top blob x data",
        "    [Forward] Layer ip, top blob y data",
        "    [Forward] Layer ip, param blob 0 data",
        "    [Forward] Layer square, top blob loss data",
        "    [Backward] Layer square, bottom blob y diff",
        "    [Backward] Layer ip, param blob 0 diff",
        "    [Backward] All net params (data, diff)",
    ]


def test_a_test_net_loads_what_the_train_net_lacks() -> None:
    own = """layer { name: "extra" type: "InnerProduct" bottom: "x" top: "extra"
      include { phase: TEST } inner_product_param { num_output: 1 bias_term: false } }"""
    line([[1, 1], [2, 2]])
    Path("net.prototxt").write_text(LINE + own)
    message = NetParameter()
    for name, size in (("ip", 4), ("extra", 2)):
        blob = message.layer.add(name=name, type="InnerProduct").blobs.add(data=[7.0] * size)
        blob.shape.dim.extend([size // 2, 2])
    Path("w.caffemodel").write_bytes(message.SerializeToString())
    loop = solver("random_seed: 1 test_iter: 1 test_interval: 5 weights: 'w.caffemodel'")
    assert loop.test(0).outputs["extra"] == [14.0]
