"""pycaffe's solvers: their names, what their net shows after a step, and who is called."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netspec import caffe
from netspec.errors import SolverError

NET = """
layer { name: "data" type: "DummyData" top: "x" top: "t" include { phase: TRAIN }
  dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 }
    data_filler { type: "constant" value: 2 } data_filler { type: "constant" value: 1 } } }
layer { name: "data" type: "DummyData" top: "x" top: "t" include { phase: TEST }
  dummy_data_param { shape { dim: 5 dim: 3 } shape { dim: 5 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 1 bias_term: false
    weight_filler { type: "constant" value: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""
REGIME = """
net: "net.prototxt" base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 2 max_iter: 4
test_iter: 1 test_interval: 100 test_initialization: false snapshot_after_train: false
random_seed: 1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLOG_minloglevel", "1")
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(REGIME)
    return tmp_path


def gradient(weight: float) -> float:
    """Of the loss, for weights that are all this: those stay alike."""
    return 2 * (6 * weight - 1)


KINDS: dict[str, Any] = {
    "SGD": caffe.SGDSolver,
    "Nesterov": caffe.NesterovSolver,
    "AdaGrad": caffe.AdaGradSolver,
    "RMSProp": caffe.RMSPropSolver,
    "AdaDelta": caffe.AdaDeltaSolver,
    "Adam": caffe.AdamSolver,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_is_its_rule(kind: str) -> None:
    by_name = KINDS[kind]("solver.prototxt")
    Path("typed.prototxt").write_text(f'{REGIME} type: "{kind}"')
    by_type = caffe.get_solver("typed.prototxt")
    assert type(by_type) is KINDS[kind]
    assert isinstance(by_type, caffe.SGDSolver)
    for solver in (by_name, by_type):
        assert solver.param.type == kind
    # The class goes before the type.
    assert caffe.SGDSolver("typed.prototxt").param.type == "SGD"


def test_after_a_step_diffs_are_the_steps_taken() -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    (blob,) = solver.net.params["ip"]
    held, diff = blob.data, blob.diff
    weight = 0.5
    for _ in range(3):
        rate = solver.lr
        solver.step(1)
        step = rate * gradient(weight)
        weight -= step
        # Views that are held are the memory.
        np.testing.assert_allclose(held, np.full((1, 3), weight), rtol=1e-5)
        np.testing.assert_allclose(diff, np.full((1, 3), step), rtol=1e-5)
    held[...] = 0.25
    solver.step(1)
    np.testing.assert_allclose(held, 0.25 - 0.05 * gradient(0.25), rtol=1e-5)
    assert solver.net.blobs["y"].data.tolist() == [[1.5], [1.5]]


def test_the_rate_may_be_set() -> None:
    solver = caffe.get_solver("solver.prototxt")
    assert solver.lr == pytest.approx(0.1)
    solver.param.base_lr = 0.01
    assert solver.lr == pytest.approx(0.01)
    solver.step(1)
    np.testing.assert_allclose(solver.net.params["ip"][0].diff, 0.01 * gradient(0.5), rtol=1e-5)
    solver.step(2)
    assert solver.lr == pytest.approx(0.005)
    solver.param.base_lr = float("nan")
    with pytest.raises(SolverError, match="base_lr"):
        solver.step(1)


def test_apply_update_takes_the_diffs_that_are_there() -> None:
    Path("momentum.prototxt").write_text(f"{REGIME} momentum: 0.5")
    solver = caffe.SGDSolver("momentum.prototxt")
    (blob,) = solver.net.params["ip"]
    data = blob.data
    data[...] = 0
    moved = 0.0
    for n in range(3):
        blob.diff[...] = n + 1
        solver.apply_update()
        step = 0.1 * (n + 1) + 0.5 * moved
        moved = step
        np.testing.assert_allclose(blob.diff, step, rtol=1e-5)
    np.testing.assert_allclose(data, -(0.1 + 0.25 + 0.425), rtol=1e-5)
    assert solver.iter == 0
    blob.diff[...] = np.nan
    with pytest.raises(SolverError, match=r"^the diffs are not finite; nothing is updated$"):
        solver.apply_update()
    np.testing.assert_allclose(data, -(0.1 + 0.25 + 0.425), rtol=1e-5)


def test_a_loop_of_one_s_own_is_a_step() -> None:
    own, whole = (caffe.SGDSolver("solver.prototxt") for _ in range(2))
    whole.step(1)
    own.net.clear_param_diffs()
    own.net.forward()
    own.net.backward()
    own.apply_update()
    np.testing.assert_allclose(
        own.net.params["ip"][0].data, whole.net.params["ip"][0].data, rtol=1e-6
    )


def test_callbacks_see_and_change_gradients() -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    (blob,) = solver.net.params["ip"]
    seen: list[Any] = []

    def on_gradients_ready() -> None:
        seen.append(blob.diff.copy())
        blob.diff[...] = 1

    solver.add_callback(lambda: seen.append(solver.iter), on_gradients_ready)
    solver.step(2)
    assert seen[::2] == [0, 1]
    np.testing.assert_allclose(seen[1], gradient(0.5) * np.ones((1, 3)), rtol=1e-5)
    np.testing.assert_allclose(seen[3], gradient(0.4) * np.ones((1, 3)), rtol=1e-5)
    np.testing.assert_allclose(blob.data, np.full((1, 3), 0.3), rtol=1e-5)


def test_test_nets_share_what_is_learned() -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    (test,) = solver.test_nets
    held = test.params["ip"][0].data
    for _ in range(2):
        solver.step(1)
        test.share_with(solver.net)
        test.forward()
        assert np.array_equal(held, solver.net.params["ip"][0].data)
    other = caffe.Net("net.prototxt", caffe.TEST)
    solver.share_weights(other)
    solver.net.params["ip"][0].data[...] = 7
    assert (other.params["ip"][0].data == 7).all()
    solver.step(1)
    assert np.array_equal(other.params["ip"][0].data, solver.net.params["ip"][0].data)


def test_set_random_seed_repeats_what_is_drawn() -> None:
    Path("drawn.prototxt").write_text(NET.replace('"constant" value: 0.5', '"gaussian"'))
    Path("solver.prototxt").write_text(
        REGIME.replace("net.prototxt", "drawn.prototxt").replace("random_seed: 1", "")
    )
    draws = []
    for seed in (3, 3, 4):
        caffe.set_random_seed(seed)
        nets = [caffe.Net("drawn.prototxt", caffe.TEST), caffe.SGDSolver("solver.prototxt").net]
        draws.append([net.params["ip"][0].data.tolist() for net in nets])
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][0] != draws[0][1]


def test_what_hardly_anybody_means_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("odd.prototxt").write_text(f"{REGIME}momentum: 1.9")
    monkeypatch.delenv("GLOG_minloglevel")
    caffe.SGDSolver("odd.prototxt")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("W")
    last = len(REGIME.splitlines()) + 1
    assert line.endswith(
        f"] warning: odd.prototxt:{last}: momentum 1.9 is outside 0 to 1: steps grow without bound"
    )


def test_what_caffe_logs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("solver.prototxt").write_text(f"{REGIME} display: 1")
    caffe.SGDSolver("solver.prototxt").step(1)
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("GLOG_minloglevel")
    caffe.SGDSolver("solver.prototxt").step(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("I")
    assert lines[0].endswith("] Iteration 0, loss = 2")
