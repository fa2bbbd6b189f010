"""A run that goes on from a snapshot is the run that never stopped."""

import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from resumed_runs import LINE, NET, W, everything, iterations, line, solver
from resumed_runs import folder as folder
from sweeps import first_of_each

from netspec.errors import SourceError
from netspec.formats import manifest
from netspec.frontend.shapes import ParamKey
from netspec.proto.net_pb2 import NetParameter
from netspec.solving.callback import Callback
from netspec.solving.snapshots import store
from netspec.solving.solver import Solver
from netspec.weights.caffemodel import read_weights


@pytest.mark.parametrize(
    "settings",
    first_of_each(
        [
            'type: "SGD" momentum: 0.9',
            'type: "Nesterov" momentum: 0.9 iter_size: 2 snapshot_format: HDF5',
            'type: "AdaGrad" average_loss: 4',
            'type: "RMSProp" weight_decay: 0.01 snapshot_format: HDF5',
            'type: "AdaDelta" momentum: 0.9 delta: 1e-3',
            'type: "Adam" momentum: 0.9 clip_gradients: 0.5 snapshot_diff: true',
        ]
    ),
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


@pytest.mark.slow
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
        if solver.iteration == self.stop:
            solver.stop()


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
    assert found.manifest is not None
    assert (found.path, found.manifest.seed) == (Path("snap/run_iter_4.solverstate"), 2)
    assert store.read("snap/run_iter_4.solverstate.h5").manifest is None
    assert iterations() == [2, 4]


def test_without_its_record_a_snapshot_is_like_caffes() -> None:
    first = solver("random_seed: 1 average_loss: 3")
    first.step(2)
    _, state = first.snapshot()
    manifest.path_beside(state).unlink()
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
