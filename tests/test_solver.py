import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from netspec import caffe
from netspec.errors import LayerError, NetSpecError, SolverError, SourceError, WeightsError
from netspec.formats.atomic import is_hdf5
from netspec.frontend.prototxt import read_solver
from netspec.frontend.shapes import ParamKey
from netspec.frontend.upgrade import upgrade_solver
from netspec.proto.layers_pb2 import TEST, TRAIN
from netspec.proto.net_pb2 import NetParameter
from netspec.proto.solver_pb2 import SolverParameter, SolverState
from netspec.solving import settings
from netspec.solving.callback import Callback, Step
from netspec.solving.evaluation import Evaluation, evaluate
from netspec.solving.snapshots.solverstate import (
    State,
    check_writable,
    find_weights,
    read_state,
    write_state,
)
from netspec.solving.solver import Solver

# ROWS of x are fed in turn; the loss is 0.5 sum(y^2) of y = w x, for w of (2, 3).
ROWS = np.array([[1, 2, -1], [0, 1, 3], [-2, 1, 1], [2, 0, 1], [1, -1, 1]], np.float32)
WEIGHT = np.array([[0.5, -1, 0.25], [1, 0.5, -0.5]], np.float32)
NET = """
name: "lines"
layer {
  name: "data" type: "HDF5Data" top: "x" hdf5_data_param { source: "rows.txt" batch_size: BATCH }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } }
}
layer {
  name: "square" type: "Power" bottom: "y" top: "loss" loss_weight: WEIGHT
  power_param { power: 2 }
}
"""
W = ParamKey("ip", "weight")


def net(batch: int = 1, weight: float = 0.5) -> str:
    return NET.replace("BATCH", str(batch)).replace("WEIGHT", str(weight))


def weights_file(path: str, weight: ArrayLike = WEIGHT, layer: str = "ip") -> None:
    weight = np.asarray(weight, np.float32)
    message = NetParameter()
    stored = message.layer.add(name=layer, type="InnerProduct").blobs.add(data=weight.ravel())
    stored.shape.dim.extend(weight.shape)
    Path(path).write_bytes(message.SerializeToString())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: rows.txt names the ROWS, net.prototxt reads one of them a batch."""
    monkeypatch.chdir(tmp_path)
    with h5py.File("rows.h5", "w") as file:
        file["x"] = ROWS
    Path("rows.txt").write_text("rows.h5\n")
    Path("net.prototxt").write_text(net())
    return tmp_path


BASE = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" random_seed: 3 '


def solver(settings: str = "", callback: Callback | None = None, base: str = BASE) -> Solver:
    Path("solver.prototxt").write_text(base + settings)
    return Solver.from_file("solver.prototxt", callback)


def set_weight(loop: Solver, weight: ArrayLike = WEIGHT) -> Solver:
    loop.net.assign({W: jnp.asarray(weight, jnp.float32)})
    return loop


def weight_of(loop: Solver) -> NDArray[np.float32]:
    return np.array(loop.net.arrays()[W])


class Log(Callback):
    """What happened, in short words, in order."""

    def __init__(self, hook: Callable[[Solver, str], None] = lambda solver, event: None) -> None:
        self.events: list[str] = []
        self.steps: list[Step] = []
        self.tests: list[Evaluation] = []
        self.hook = hook

    def say(self, solver: Solver, event: str) -> None:
        self.events.append(event)
        self.hook(solver, event)

    def step(self, solver: Solver, step: Step) -> None:
        self.steps.append(step)
        self.say(solver, f"step {step.iteration}")

    def testing(self, solver: Solver, index: int) -> None:
        self.say(solver, f"testing {index}")

    def test(self, solver: Solver, index: int, result: Evaluation) -> None:
        self.tests.append(result)
        self.say(solver, f"test {index} at {solver.iteration}")

    def snapshot(self, solver: Solver, paths: tuple[Path, Path]) -> None:
        self.say(solver, f"snapshot {paths[0].name} {paths[1].name}")


# Against Caffe


CASES = sorted(path.name for path in (Path(__file__).parent / "golden" / "solvers").iterdir())


def error(a: ArrayLike, b: ArrayLike) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3))


@pytest.mark.parametrize("case", CASES)
def test_caffes_runs(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    shutil.copytree(golden / "solvers" / case, tmp_path / case)
    monkeypatch.chdir(tmp_path / case)
    final = np.load("final.npz")
    iterations, middle = int(final["iters"]), int(final["resume_from"])
    end = ".h5" if case == "sgd_hdf5" else ""
    theirs = read_state(f"snap_iter_{middle}.solverstate{end}")

    resumed = caffe.get_solver("solver.prototxt")
    resumed.restore(f"snap_iter_{middle}.solverstate{end}")
    assert resumed.iter == middle
    resumed.step(iterations - middle)

    run = caffe.get_solver("solver.prototxt")
    run.net.copy_from("init.caffemodel")
    losses = []
    for i in range(iterations):
        if i == middle:
            run.snapshot()
        run.step(1)
        losses.append(float(run.net.blobs["loss"].data))
    assert error(losses, final["loss"]) < 1e-5
    for name in final.files:
        kind, _, place = name.partition("/")
        if kind.endswith("param"):
            layer, index = place.split("/")
            solver = run if kind == "param" else resumed
            assert error(solver.net.params[layer][int(index)].data, final[name]) < 1e-5, name

    # Our snapshot in the middle is Caffe's, number for number.
    ours = read_state(f"snap_iter_{middle}.solverstate{end}")
    assert (ours.iteration, ours.current_step) == (theirs.iteration, theirs.current_step)
    assert ours.learned_net == theirs.learned_net
    for i, (mine, expected) in enumerate(zip(ours.history, theirs.history, strict=True)):
        # The fifth array is frozen: Caffe's Adam gathers a history from its decay, ours does not.
        if i % 5 != 4:
            assert error(mine, expected) < 1e-5


# The loop


@pytest.mark.parametrize(
    ("settings", "events"),
    [
        ("max_iter: 2", "step 0, step 1, SNAP 2"),
        ("max_iter: 2 snapshot_after_train: false", "step 0, step 1"),
        ("max_iter: 3 snapshot: 2", "step 0, step 1, SNAP 2, step 2, SNAP 3"),
        ("max_iter: 2 snapshot: 2", "step 0, step 1, SNAP 2"),
        (
            "max_iter: 3 snapshot: 2 test_iter: 1 test_interval: 2",
            "TEST 0, step 0, step 1, SNAP 2, TEST 2, step 2, SNAP 3",
        ),
        (
            "max_iter: 4 snapshot: 3 test_iter: 1 test_interval: 2 test_initialization: false",
            "step 0, step 1, TEST 2, step 2, SNAP 3, step 3, SNAP 4, TEST 4",
        ),
        ("max_iter: 1 test_interval: 1", "step 0, SNAP 1"),
        ("max_iter: 0", "SNAP 0"),
    ],
)
def test_order_of_events(settings: str, events: str) -> None:
    log = Log()
    solver(settings, log).solve()
    expected = []
    for event in events.split(", "):
        kind, number = event.split()
        if kind == "SNAP":
            expected.append(
                f"snapshot solver_iter_{number}.caffemodel solver_iter_{number}.solverstate"
            )
        elif kind == "TEST":
            expected += ["testing 0", f"test 0 at {number}"]
        else:
            expected.append(event)
    assert log.events == expected


def test_steps_are_gradient_steps() -> None:
    log = Log()
    loop = set_weight(solver("momentum: 0.5", log))
    weight, history = WEIGHT.astype(np.float64), np.zeros((2, 3))
    for i in range(7):
        x = ROWS[i % 5].astype(np.float64)
        y = weight @ x
        history = 0.01 * np.outer(y, x) + 0.5 * history
        weight = weight - history
        loop.step(1)
        assert loop.iteration == i + 1
        assert float(log.steps[i].loss) == pytest.approx(0.5 * (y @ y), rel=1e-5)
        np.testing.assert_allclose(log.steps[i].outputs["loss"], [y * y], rtol=1e-5)
        np.testing.assert_allclose(weight_of(loop), weight, rtol=1e-5, atol=1e-6)


def test_a_step_tells_its_rate() -> None:
    log = Log()
    loop = solver("gamma: 0.5 stepsize: 2", log, BASE.replace("fixed", "step"))
    loop.step(5)
    assert [step.rate for step in log.steps] == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025])


def test_average_loss_smooths_the_last_losses() -> None:
    log = Log()
    loop = solver("average_loss: 3", log)
    for _ in range(5):
        loop.step(1)
        last = [float(step.loss) for step in log.steps[-3:]]
        assert loop.smoothed_loss() == pytest.approx(np.mean(last), rel=1e-6)


def test_iter_size_is_a_bigger_batch() -> None:
    log = Log()
    small = set_weight(solver("iter_size: 2 momentum: 0.9 weight_decay: 0.1 clip_gradients: 9"))
    Path("net.prototxt").write_text(net(batch=2, weight=0.25))
    # Clipping sees the sum of the small batches, twice the mean of the big one.
    big = set_weight(solver("momentum: 0.9 weight_decay: 0.1 clip_gradients: 4.5", log))
    for _ in range(6):
        small.step(1)
        big.step(1)
        np.testing.assert_allclose(weight_of(small), weight_of(big), rtol=1e-5, atol=1e-6)
        assert small.smoothed_loss() == pytest.approx(big.smoothed_loss(), rel=1e-5)
    assert (small.iteration, big.iteration) == (6, 6)


NOISY = """
layer {
  name: "data" type: "HDF5Data" top: "x"
  hdf5_data_param { source: "rows.txt" batch_size: 2 shuffle: true }
}
layer { name: "drop" type: "Dropout" bottom: "x" top: "dropped" }
layer {
  name: "ip" type: "InnerProduct" bottom: "dropped" top: "y"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
layer {
  name: "square" type: "Power" bottom: "y" top: "loss" loss_weight: 0.5 power_param { power: 2 }
}
"""


def noisy_run(seed: str) -> bytes:
    loop = solver(seed, base='net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" ')
    loop.step(4)
    return weight_of(loop).tobytes()


def test_a_seed_fixes_every_bit() -> None:
    Path("net.prototxt").write_text(NOISY)
    first = noisy_run("random_seed: 5")
    assert noisy_run("random_seed: 5") == first
    assert noisy_run("random_seed: 6") != first
    assert noisy_run("") != noisy_run("")


def test_a_seed_fixes_what_dropout_drops() -> None:
    Path("net.prototxt").write_text(NOISY.replace("shuffle: true", ""))
    found = set()
    for seed in ("3", "3", "4"):
        loop = set_weight(solver(base=BASE.replace("seed: 3", f"seed: {seed}")))
        loop.step(2)
        found.add(weight_of(loop).tobytes())
    assert len(found) == 2


def test_any_int64_may_be_a_seed() -> None:
    assert solver(base=BASE.replace("seed: 3", f"seed: {2**63 - 1}")).seed == 2**63 - 1


def test_frozen_layers_stay() -> None:
    frozen = net().replace('top: "y"', 'top: "y" param { lr_mult: 0 }')
    Path("net.prototxt").write_text(frozen)
    loop = set_weight(solver("weight_decay: 0.5 momentum: 0.9 clip_gradients: 1"))
    loop.step(3)
    assert np.array_equal(weight_of(loop), WEIGHT)


def test_gradients_pass_through_frozen_layers() -> None:
    first = """
    layer {
      name: "first" type: "InnerProduct" bottom: "x" top: "h"
      inner_product_param { num_output: 3 weight_filler { type: "xavier" } }
    }
    layer { name: "ip" """
    frozen = net().replace('layer {\n  name: "ip" ', first)
    frozen = frozen.replace('bottom: "x" top: "y"', 'bottom: "h" top: "y" param { lr_mult: 0 }')
    Path("net.prototxt").write_text(frozen)
    loop = set_weight(solver())
    before = np.array(loop.net.params["first"]["weight"][...])
    loop.step(1)
    assert np.array_equal(weight_of(loop), WEIGHT)
    assert (np.array(loop.net.params["first"]["weight"][...]) != before).any()


def test_max_iter_counts_all_updates() -> None:
    log = Log()
    loop = solver("max_iter: 2 snapshot_after_train: false", log)
    loop.step(1)
    loop.solve()
    loop.solve()
    assert loop.iteration == 2
    loop.solve(max_iter=3)
    assert log.events == ["step 0", "step 1", "step 2"]


@pytest.mark.parametrize(
    ("settings", "doubts"),
    [
        ("momentum: 0.9 base_lr: 1", []),
        ("momentum: 1", ["2: momentum 1 is outside 0 to 1: steps grow without bound"]),
        ("base_lr: 1\nmomentum: -0.5", ["3: momentum -0.5 is outside 0 to 1: steps grow without "
                                        "bound"]),
        ('type: "Adam"\nmomentum2: 1.5', ["3: momentum2 1.5 is outside 0 to 1, where Adam is "
                                          "defined"]),
        ("momentum2: 1.5", []),
        ("base_lr: -1\nweight_decay: -2", ["2: base_lr -1 is negative: training goes uphill",
                                           "3: weight_decay -2 is negative: training goes uphill"]),
        ("stepvalue: [3, 2]", ["2: stepvalue is not in rising order: Caffe takes one after the "
                               "other"]),
    ],
)  # fmt: skip
def test_what_hardly_anybody_means(folder: Path, settings: str, doubts: list[str]) -> None:
    path = folder / "odd.prototxt"
    path.write_text(f"# Mine.\n{settings}")
    assert settings.doubts(read_solver(path)) == [f"{path}:{doubt}" for doubt in doubts]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("loss_weight: 0.5", "", "has no loss: no loss layer, and no loss_weight on any top"),
        (
            'top: "y"\n',
            'top: "y" param { lr_mult: 0 }\n',
            "has nothing to learn: no learned blobs, or all of them have lr_mult: 0",
        ),
    ],
)
def test_a_net_that_cannot_learn_is_not_trained(before: str, after: str, message: str) -> None:
    Path("net.prototxt").write_text(net().replace(before, after, 1))
    expected = f"solver.prototxt:1: the train net net.prototxt {message}"
    with pytest.raises(SolverError, match=expected):
        solver("max_iter: 2").solve()


@pytest.mark.parametrize(
    ("start", "limit", "initialization", "due"),
    [
        (0, 9, True, True),
        (0, 9, False, False),
        (0, 10, False, True),
        (5, 9, True, False),
        (5, 10, True, True),
        (10, 11, True, True),
        (11, 19, True, False),
    ],
)
def test_whether_a_test_is_due(start: int, limit: int, initialization: bool, due: bool) -> None:
    param = SolverParameter(test_iter=[1], test_interval=10, test_initialization=initialization)
    assert settings.tests_before(param, start, limit) is due


def test_missing_test_data_is_found_before_the_first_update() -> None:
    test_net = f"test_net_param {{ {net().replace('rows.txt', 'absent.txt')} }}"
    log = Log()
    loop = solver(f"{test_net} test_iter: 1 test_interval: 2 max_iter: 4", log)
    with pytest.raises(SourceError, match=r"absent\.txt"):
        loop.solve()
    assert log.events == []
    solver(f"{test_net} test_iter: 1 test_interval: 5 test_initialization: false", log).solve(4)
    assert log.events[-1].startswith("snapshot")


@pytest.mark.parametrize("kind", [SourceError, LayerError])
def test_data_that_fails_on_the_way_leaves_a_snapshot(
    kind: type[NetSpecError], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = solver('snapshot_prefix: "s" max_iter: 4')
    feed = loop.feed.next

    def fail_later(*shapes: Any) -> Any:
        if loop.iteration == 2:
            raise kind("rows.h5: damaged")
        return feed(*shapes)

    monkeypatch.setattr(loop.feed, "next", fail_later)
    with pytest.raises(kind, match=r"^rows.h5: damaged$"):
        loop.solve()
    assert snapshots() == ["s_iter_2.caffemodel", "s_iter_2.solverstate"]


def test_poly_is_not_driven_past_its_end() -> None:
    loop = solver("power: 1 max_iter: 2", base=BASE.replace("fixed", "poly"))
    with pytest.raises(SolverError) as raised:
        loop.solve(max_iter=3)
    assert str(raised.value) == (
        'solver.prototxt:1: lr_policy "poly" ends at max_iter 2; to train until 3, raise it'
    )
    assert loop.iteration == 0


# Stopping


@pytest.mark.parametrize("test_nets", ["", "test_iter: 1 test_interval: 2"])
def test_stopping_ends_the_run_after_the_update_under_way(test_nets: str) -> None:
    def hook(loop: Solver, event: str) -> None:
        loop.stopping = loop.stopping or event == "step 1"

    log = Log(hook)
    solver(f"max_iter: 9 test_initialization: false {test_nets}", log).solve()
    assert log.events == [
        "step 0",
        "step 1",
        "snapshot solver_iter_2.caffemodel solver_iter_2.solverstate",
    ]


def test_stopping_ends_a_test() -> None:
    def hook(loop: Solver, event: str) -> None:
        loop.stopping = event == "testing 0" and loop.iteration == 2

    log = Log(hook)
    tests = "test_iter: 3 test_iter: 3 test_interval: 2 test_initialization: false"
    solver(f"max_iter: 9 snapshot_after_train: false {tests}", log).solve()
    assert log.events == ["step 0", "step 1", "testing 0"]


# Testing


def test_a_test_is_the_mean_of_its_batches() -> None:
    log = Log()
    loop = solver("test_iter: 2 test_iter: 4 test_interval: 1", log)
    set_weight(loop).step(1)
    square = (ROWS.astype(np.float64) @ WEIGHT.T) ** 2
    for result, count in zip(log.tests, (2, 4), strict=True):
        assert result.batches == count
        np.testing.assert_allclose(result.outputs["loss"], square[:count].mean(0), rtol=1e-5)
        assert result.weights == {"loss": 0.5}
        assert result.loss == pytest.approx(0.5 * square[:count].sum(1).mean(), rel=1e-5)
    # The next test goes on in the data, on the weights of its time.
    set_weight(loop, 2 * WEIGHT).test_all()
    np.testing.assert_allclose(log.tests[2].outputs["loss"], 4 * square[2:4].mean(0), rtol=1e-5)
    rest = square[[4, 0, 1, 2]]
    np.testing.assert_allclose(log.tests[3].outputs["loss"], 4 * rest.mean(0), rtol=1e-5)


def test_test_nets_have_the_arrays_of_the_last_update() -> None:
    loop = solver("test_iter: 1 test_interval: 100")
    loop.step(2)
    assert np.array_equal(np.array(loop.test_nets[0].arrays()[W]), weight_of(loop))
    loop.step(1)
    assert np.array_equal(np.array(loop.test_nets[0].arrays()[W]), weight_of(loop))


TWINS = """
layer {
  name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
  include { phase: TRAIN }
  inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } }
}
layer {
  name: "b" type: "InnerProduct" bottom: "x" top: "y" param { name: "w" }
  inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } }
}
"""


def test_a_test_net_takes_a_shared_array_from_the_layer_of_its_name() -> None:
    data, square = net().split('layer {\n  name: "ip"')[0], net().split('layer {\n  name: "square"')
    Path("net.prototxt").write_text(data + TWINS + 'layer {\n  name: "square"' + square[1])
    loop = solver("test_iter: 1 test_interval: 1")
    loop.net.assign({ParamKey("a", "weight"): jnp.asarray(WEIGHT)})
    loop.step(1)
    assert set(loop.net.arrays()) == {ParamKey("a", "weight")}
    trained = np.array(loop.net.arrays()[ParamKey("a", "weight")])
    assert np.array_equal(np.array(loop.test_nets[0].arrays()[ParamKey("b", "weight")]), trained)


def test_a_test_net_of_other_shapes() -> None:
    Path("test.prototxt").write_text(net().replace("num_output: 2", "num_output: 5"))
    loop = solver(
        'train_net: "net.prototxt" test_net: "test.prototxt" test_iter: 1 test_interval: 1',
        base=BASE.removeprefix('net: "net.prototxt"'),
    )
    with pytest.raises(SolverError) as raised:
        loop.step(1)
    assert str(raised.value) == (
        'test.prototxt:6: layer "ip" (InnerProduct): its weight is 5x3 in the test net, 2x3 in '
        "the train net"
    )


class Unequal:
    """A feed whose second batch has twice the rows of its first."""

    def __init__(self) -> None:
        self.batches = iter([ROWS[:1], ROWS[:2]])

    def next(self, shapes: object) -> dict[str, NDArray[np.float32]]:
        return {"x": next(self.batches)}


def test_outputs_of_changing_size_have_no_mean() -> None:
    feed: Any = Unequal()
    with pytest.raises(SolverError) as raised:
        evaluate(solver().net, feed, 2)
    assert str(raised.value) == (
        'output "loss" has 4 numbers in one batch, 2 in those before; their mean means nothing'
    )


def test_at_least_one_batch_is_tested() -> None:
    feed: Any = Unequal()
    with pytest.raises(SolverError, match=r"^0 test batches; at least 1 is needed$"):
        evaluate(solver().net, feed, 0)


# Input layers


INPUT = 'layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }'


def fed_by_hand() -> str:
    """The net, its data layer replaced by an Input layer."""
    return INPUT + net()[net().index('layer {\n  name: "ip"') :]


def test_input_layers_must_be_fed() -> None:
    Path("net.prototxt").write_text(fed_by_hand())
    with pytest.raises(SolverError) as raised:
        solver().step(1)
    assert str(raised.value) == (
        "net.prototxt: nothing feeds the Input blobs x; train on a data layer (one for TRAIN may "
        "stand beside the Input layer for TEST)"
    )


def test_input_layers_are_fed_by_the_caller() -> None:
    Path("net.prototxt").write_text(fed_by_hand())
    loop = set_weight(solver())
    loop.inputs = {"x": jnp.asarray(ROWS[:1])}
    loop.step(1)
    expected = WEIGHT - 0.01 * np.outer(WEIGHT @ ROWS[0], ROWS[0])
    np.testing.assert_allclose(weight_of(loop), expected, rtol=1e-5)


# Snapshots


def snapshots() -> list[str]:
    """The snapshots here, but for the records beside them."""
    return sorted(str(path) for path in Path().rglob("*_iter_*") if path.suffix != ".json")


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
    write_state("x.solverstate.h5", State(7, "x.caffemodel.h5", history, 2))
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


# Weights to start from


def test_weights_come_in_order() -> None:
    weights_file("a.caffemodel", WEIGHT)
    weights_file("b.caffemodel", 2 * WEIGHT)
    loop = solver()
    copied = loop.load_weights("b.caffemodel, a.caffemodel")
    assert [one.file for one in copied] == ["b.caffemodel", "a.caffemodel"]
    assert np.array_equal(weight_of(loop), WEIGHT)
    named = 'weights: "a.caffemodel" weights: "a.caffemodel,b.caffemodel"'
    assert np.array_equal(weight_of(solver(named)), 2 * WEIGHT)


def test_weights_may_lie_beside_the_solver() -> None:
    shutil.copytree(".", "there")
    weights_file("there/a.caffemodel")
    Path("there/solver.prototxt").write_text(BASE + 'weights: "a.caffemodel"')
    assert np.array_equal(weight_of(Solver.from_file("there/solver.prototxt")), WEIGHT)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("no.caffemodel", "no.caffemodel: cannot read: no such file"),
        ("a.caffemodel,", ".: cannot read: is a directory"),
        ("b.caffemodel", "b.caffemodel: has no layer of net.prototxt; it has conv1"),
        (
            "c.caffemodel",
            'c.caffemodel: layer "ip" (InnerProduct): weight is 3 in the file, 2x3 in the net; '
            "skip_misfits (--skip-misfits) leaves the layer as it is; to learn it anew, rename it",
        ),
    ],
)
def test_weights_that_do_not_fit(names: str, message: str) -> None:
    weights_file("a.caffemodel")
    weights_file("b.caffemodel", layer="conv1")
    weights_file("c.caffemodel", [1, 2, 3])
    with pytest.raises(WeightsError) as raised:
        solver().load_weights(names)
    assert str(raised.value) == message


# States that do not fit


def state_file(path: str = "x.solverstate", **changes: Any) -> str:
    weights_file("x.caffemodel")
    state = {"iteration": 4, "learned_net": "x.caffemodel", "history": (np.ones((2, 3)),)}
    write_state(path, State(**{**state, **changes}))
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
    for size in range(0, len(data), 97 if end else 1):
        Path(f"cut{end}").write_bytes(data[:size])
        try:
            state = read_state(f"cut{end}")
        except WeightsError:
            continue
        # Cut between two fields: a count that `restore` refuses, or but the last field is gone.
        assert len(state.history) == 1 or size == len(data) - 2


# What a solver asks for


def texts(settings: str) -> tuple[Any, list[Any]]:
    Path("solver.prototxt").write_text(settings)
    return settings.net_texts(upgrade_solver(read_solver("solver.prototxt")))


def inline(name: str) -> str:
    return f'{name} {{ name: "{name}" layer {{ name: "data" type: "Input" top: "x" }} }} '


@pytest.mark.parametrize(
    ("settings", "train", "tests"),
    [
        ('net: "net.prototxt"', "net.prototxt", []),
        ('net: "net.prototxt" test_iter: 5 test_interval: 1', "net.prototxt", ["net.prototxt"]),
        (
            'net: "net.prototxt" test_iter: 5 test_iter: 2 test_interval: 1',
            "net.prototxt",
            ["net.prototxt"] * 2,
        ),
        (
            'net: "net.prototxt" test_net: "a.prototxt" test_iter: 5 test_iter: 2 test_interval: 1',
            "net.prototxt",
            ["a.prototxt", "net.prototxt"],
        ),
        ('train_net: "a.prototxt"', "a.prototxt", []),
        (
            'train_net: "a.prototxt" test_net: "net.prototxt" test_iter: 1 test_interval: 1',
            "a.prototxt",
            ["net.prototxt"],
        ),
        (inline("net_param") + "test_iter: 5 test_interval: 1", "net_param", ["net_param"]),
        (
            inline("train_net_param")
            + inline("test_net_param")
            + 'test_net: "a.prototxt" test_iter: 1 test_iter: 2 test_interval: 1',
            "train_net_param",
            ["test_net_param", "a.prototxt"],
        ),
    ],
)
def test_forms_of_nets(settings: str, train: str, tests: list[str]) -> None:
    for name in ("net.prototxt", "a.prototxt"):
        Path(name).write_text(f'name: "{name}"')
    found, others = texts(settings)
    assert found[0].message.name == train
    assert [net.message.name for net, _ in others] == tests
    assert found[1].phase == TRAIN
    assert {state.phase for _, state in others} <= {TEST}


def test_nets_are_found_beside_the_solver() -> None:
    Path("there").mkdir()
    Path("net.prototxt").rename("there/net.prototxt")
    Path("there/solver.prototxt").write_text('net: "net.prototxt"')
    train, _ = settings.net_texts(upgrade_solver(read_solver("there/solver.prototxt")))
    assert train[0].file == "there/net.prototxt"


def test_states_add_up() -> None:
    Path("net.prototxt").write_text('state { level: 1 stage: "net" }')
    (_, train), tests = texts(
        'net: "net.prototxt" train_state { level: 2 stage: "train" } test_interval: 1 '
        'test_iter: 1 test_state { stage: "a" } test_iter: 1 test_state { level: 3 stage: "b" }'
    )
    assert (train.phase, train.level, list(train.stage)) == (TRAIN, 2, ["net", "train"])
    assert [(s.phase, s.level, list(s.stage)) for _, s in tests] == [
        (TEST, 1, ["net", "a"]),
        (TEST, 3, ["net", "b"]),
    ]


NETS = "net, net_param, train_net, train_net_param"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", f": needs exactly one of {NETS}; it has none"),
        (
            'net: "net.prototxt" train_net: "net.prototxt"',
            f":2: needs exactly one of {NETS}; it has net, train_net",
        ),
        (
            'net: "net.prototxt" test_net: "net.prototxt" test_interval: 1',
            ": 0 test_iter for 1 test nets; give one for each",
        ),
        (
            'train_net: "net.prototxt" test_iter: 1 test_interval: 1',
            ":2: 1 test_iter for 0 test nets; give one for each",
        ),
        (
            'train_net: "net.prototxt" test_net: "net.prototxt" test_iter: 1 test_iter: 1',
            ":2: 2 test_iter for 1 test nets; give one for each",
        ),
        (
            'net: "net.prototxt" test_iter: 1 test_interval: 1 test_state { } test_state { }',
            ":2: 2 test_state for 1 test nets; give none, or one for each",
        ),
        (
            'net: "net.prototxt" test_iter: 1',
            ": has test nets but no test_interval; how many updates lie between tests?",
        ),
        ("iter_size: 0", ":2: iter_size 0 must be at least 1"),
        ("average_loss: 0", ":2: average_loss 0 must be at least 1"),
        ("max_iter: -1", ":2: max_iter -1 must not be negative"),
        ("display: -20", ":2: display -20 must not be negative"),
        ("snapshot: -1", ":2: snapshot -1 must not be negative"),
        ("test_interval: -1", ":2: test_interval -1 must not be negative"),
        ("test_iter: 3 test_iter: 0", ":2: test_iter 0 must be at least 1"),
        ("", ": needs base_lr"),
    ],
)
def test_messages(settings: str, message: str) -> None:
    rate = "\n" if "base_lr" in message else 'base_lr: 1 lr_policy: "fixed"\n'
    with pytest.raises(SolverError) as raised:
        solver(settings, base=rate)
    assert str(raised.value) == f"solver.prototxt{message}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('net: "no.prototxt"', "solver.prototxt: no.prototxt: no such file"),
        (
            'net: "net.prototxt" type: "SDG"',
            'solver.prototxt:1: unknown solver type "SDG"; did you mean "SGD"?',
        ),
        (
            'net: "net.prototxt" regularization_type: "l2"',
            'solver.prototxt:1: unknown regularization_type "l2"; did you mean "L2"?',
        ),
    ],
)
def test_messages_of_what_a_solver_names(settings: str, message: str) -> None:
    with pytest.raises(NetSpecError) as raised:
        solver(settings, base='base_lr: 1 lr_policy: "fixed" ')
    assert str(raised.value) == message


def test_statistics_are_kept_by_training_and_not_learned() -> None:
    norm = 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "n" }'
    lines = net(batch=2).replace('bottom: "x" top: "y"', 'bottom: "n" top: "y"')
    Path("net.prototxt").write_text(
        lines.replace('layer {\n  name: "ip"', f'{norm}\nlayer {{ name: "ip"')
    )
    loop = solver("weight_decay: 0.5 iter_size: 2")
    loop.step(1)
    # The second pass of an update sees the statistics that the first has left.
    first, second = ROWS[:2], ROWS[2:4]
    decay = 0.999
    wanted = {
        "mean": decay * first.mean(0) + second.mean(0),
        "variance": decay * first.var(0, ddof=1) + second.var(0, ddof=1),
        "scale_factor": [decay + 1],
    }
    for name, value in wanted.items():
        found = loop.net.params["bn"][name][...]
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=name)
