"""Runs of a solver, against Caffe and step by step; where they stop, and what feeds them."""

import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike
from solver_nets import BASE, ROWS, WEIGHT, Log, net, set_weight, snapshots, solver, weight_of
from solver_nets import folder as folder

from netspec import caffe
from netspec.errors import LayerError, NetSpecError, SolverError, SourceError
from netspec.frontend.prototxt import read_solver
from netspec.proto.solver_pb2 import SolverParameter
from netspec.solving import settings as solver_settings
from netspec.solving.snapshots.solverstate import read_state
from netspec.solving.solver import Solver

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
    rate = "" if "base_lr" in settings else "\nbase_lr: 1"
    path.write_text(f"# Mine.\n{settings}{rate}")
    assert solver_settings.doubts(read_solver(path)) == [f"{path}:{doubt}" for doubt in doubts]


@pytest.mark.differs("nothing-to-learn")
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
    assert solver_settings.tests_before(param, start, limit) is due


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
        if event == "step 1":
            loop.stop()

    log = Log(hook)
    solver(f"max_iter: 9 test_initialization: false {test_nets}", log).solve()
    assert log.events == [
        "step 0",
        "step 1",
        "snapshot solver_iter_2.caffemodel solver_iter_2.solverstate",
    ]


def test_stopping_ends_a_test() -> None:
    def hook(loop: Solver, event: str) -> None:
        if event == "testing 0" and loop.iteration == 2:
            loop.stop()

    log = Log(hook)
    tests = "test_iter: 3 test_iter: 3 test_interval: 2 test_initialization: false"
    solver(f"max_iter: 9 snapshot_after_train: false {tests}", log).solve()
    assert log.events == ["step 0", "step 1", "testing 0"]


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
    loop.set_inputs({"x": jnp.asarray(ROWS[:1])})
    loop.step(1)
    expected = WEIGHT - 0.01 * np.outer(WEIGHT @ ROWS[0], ROWS[0])
    np.testing.assert_allclose(weight_of(loop), expected, rtol=1e-5)
