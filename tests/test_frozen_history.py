"""What the rule keeps of arrays that training leaves alone, as Caffe's .solverstate has it."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from netspec import caffe
from netspec.solving.snapshots.solverstate import read_state

NET = """
  %s
  layer { name: "d" type: "DummyData" top: "data" top: "target" dummy_data_param {
    shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 }
    data_filler { type: "gaussian" } data_filler { type: "gaussian" } } }
  layer { name: "ip" type: "InnerProduct" bottom: "data" top: "y" inner_product_param {
    num_output: 3 weight_filler { type: "xavier" } } param { lr_mult: 0 %s } param { } }
  layer { name: "l" type: "EuclideanLoss" bottom: "y" bottom: "target" top: "l" }
"""
UPDATES = 3


def trained(
    folder: Path, settings: str, net: str = "", weight: str = ""
) -> tuple[caffe.Solver, list[np.ndarray], np.ndarray]:
    """A solver after some updates, its written history, and its frozen weight."""
    path = folder / "solver.prototxt"
    path.write_text(
        f'base_lr: 0.1 lr_policy: "fixed" max_iter: 10 random_seed: 5 {settings}\n'
        f'snapshot_prefix: "{folder}/s" net_param {{ {NET % (net, weight)} }}'
    )
    solver = caffe.get_solver(str(path))
    before = solver.net.params["ip"][0].data.copy()
    solver.step(UPDATES)
    np.testing.assert_array_equal(solver.net.params["ip"][0].data, before)
    solver.snapshot()
    return solver, list(read_state(folder / f"s_iter_{UPDATES}.solverstate").history), before


def expected(kind: str, g: np.ndarray) -> list[np.ndarray]:
    """The histories after some updates by one gradient, at a rate of 0."""
    h, k = np.zeros_like(g), np.zeros_like(g)
    for _ in range(UPDATES):
        if kind == "AdaGrad":
            h = h + g * g
        elif kind == "RMSProp":
            h = 0.9 * h + 0.1 * g * g
        elif kind == "AdaDelta":
            h = 0.5 * h + 0.5 * g * g
            step = g * np.sqrt((k + 1e-2) / (h + 1e-2))
            k = 0.5 * k + 0.5 * step * step
        elif kind == "Adam":
            h, k = 0.5 * h + 0.5 * g, 0.75 * k + 0.25 * g * g
    return [h, k] if kind in ("AdaDelta", "Adam") else [h]


RULES = {
    "SGD": "momentum: 0.5",
    "Nesterov": "momentum: 0.5",
    "AdaGrad": "",
    "RMSProp": "rms_decay: 0.9",
    "AdaDelta": "momentum: 0.5 delta: 1e-2",
    "Adam": "momentum: 0.5 momentum2: 0.75",
}


@pytest.mark.parametrize("kind", RULES)
def test_weight_decay_fills_a_frozen_arrays_history(kind: str, tmp_path: Path) -> None:
    settings = f'type: "{kind}" {RULES[kind]} weight_decay: 0.1'
    _, history, weight = trained(tmp_path, settings, weight="decay_mult: 2")
    arrays = expected(kind, 0.2 * weight)
    # Weight, bias; and again for rules that keep two arrays.
    for i, array in enumerate(arrays):
        np.testing.assert_allclose(history[2 * i], array, rtol=1e-5, atol=1e-9)
        assert np.abs(history[2 * i + 1]).max() > 0


def test_by_the_sign_and_over_passes(tmp_path: Path) -> None:
    settings = 'type: "AdaGrad" weight_decay: 0.1 regularization_type: "L1" iter_size: 2'
    _, history, weight = trained(tmp_path, settings)
    np.testing.assert_allclose(history[0], UPDATES * (0.1 * np.sign(weight)) ** 2, rtol=1e-5)


def test_without_decay_there_is_none(tmp_path: Path) -> None:
    for settings in ('type: "AdaGrad" weight_decay: 0.1', 'type: "AdaGrad"'):
        _, history, _ = trained(tmp_path, settings, weight="decay_mult: 0")
        np.testing.assert_array_equal(history[0], np.zeros((3, 3)))


def test_force_backward_computes_its_gradient(tmp_path: Path) -> None:
    solver, history, _ = trained(tmp_path, 'type: "AdaGrad"', net="force_backward: true")
    solver.net.forward()
    solver.net.backward()
    assert np.abs(history[0]).min() > 0


def test_what_was_written_is_gone_on_from(tmp_path: Path) -> None:
    settings = 'type: "AdaGrad" weight_decay: 0.1'
    solver, _, weight = trained(tmp_path, settings)
    other = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    other.restore(str(tmp_path / f"s_iter_{UPDATES}.solverstate"))
    for each in (solver, other):
        each.step(1)
        each.snapshot()
        history = read_state(tmp_path / f"s_iter_{UPDATES + 1}.solverstate").history
        np.testing.assert_allclose(
            history[0], (UPDATES + 1) * (0.1 * weight) ** 2, rtol=1e-5, atol=1e-9
        )


def test_running_statistics_are_decayed_too(tmp_path: Path) -> None:
    """BatchNorm's own blobs have decay_mult 1 unless all three are given."""
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f"""base_lr: 0.1 lr_policy: "fixed" max_iter: 10 type: "AdaGrad" weight_decay: 0.5
        snapshot_prefix: "{tmp_path}/s" net_param {{
          layer {{ name: "d" type: "DummyData" top: "x" dummy_data_param {{
            shape {{ dim: 4 dim: 3 }} data_filler {{ type: "gaussian" }} }} }}
          layer {{ name: "n" type: "BatchNorm" bottom: "x" top: "n" }}
          layer {{ name: "ip" type: "InnerProduct" bottom: "n" top: "y" inner_product_param {{
            num_output: 2 }} }}
          layer {{ name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }} }}"""
    )
    solver = caffe.get_solver(str(path))
    sums = [np.zeros(blob.data.shape) for blob in solver.net.params["n"]]
    for _ in range(UPDATES):
        solver.step(1)
        for total, blob in zip(sums, solver.net.params["n"], strict=True):
            total += (0.5 * blob.data) ** 2
    solver.snapshot()
    history = read_state(tmp_path / f"s_iter_{UPDATES}.solverstate").history
    for total, array in zip(sums, history, strict=False):
        np.testing.assert_allclose(array, jnp.asarray(total), rtol=1e-5, atol=1e-9)
