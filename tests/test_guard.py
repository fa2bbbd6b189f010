"""Numbers that go bad during a run: what is named, what is saved, what is warned of."""

from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from resumed_runs import LINE, NET, Said, W, everything, line, solver
from resumed_runs import folder as folder

from netspec.errors import SolverError
from netspec.proto.net_pb2 import NetParameter
from netspec.solving.options import SolverOptions
from netspec.solving.solver import Solver

NAN = float("nan")


@pytest.mark.differs("not-finite")
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
    line([[100, 100], [NAN, 0]], "random_seed: 1")
    huge = LINE.replace("inner_product_param", "param { lr_mult: 1e38 } inner_product_param")
    Path("net.prototxt").write_text(huge)
    loop = Solver.from_file("solver.prototxt", SolverOptions(debug_nans=True))
    loop.net.assign({W: jnp.ones((2, 2))})
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
    loop = Solver.from_file("solver.prototxt", SolverOptions(debug_nans=True))
    with pytest.raises(SolverError, match=r'layer "log" \(Log\): its top "log" is the first'):
        loop.step(3)


@pytest.mark.slow
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
