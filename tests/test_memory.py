"""What a step takes: predicted, as XLA has it, and as a run says it."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from narrow_nets import fed, narrow, shapes_of

from netspec.cli import main
from netspec.formats import manifest
from netspec.proto.solver_pb2 import SolverParameter
from netspec.reporting import console
from netspec.runtime import memory
from netspec.runtime.compute_policy import PLAIN, ComputePolicy
from netspec.runtime.memory import capacity, predict, size
from netspec.runtime.remat import loads, segments
from netspec.solving.trainer import Trainer

NET = """
layer { name: "in" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: [2, 3] } shape { dim: [2, 4] }
  data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 4 display: 1
snapshot: 2 snapshot_prefix: "s" random_seed: 1
"""


@pytest.mark.slow
def test_a_prediction_is_near_what_xla_takes_and_stages_take_less() -> None:
    image = (96, 96)
    regime = SolverParameter(base_lr=0, lr_policy="fixed", type="SGD", momentum=0.9)
    taken = []
    for policy in (PLAIN, ComputePolicy(remat=True)):
        net = narrow("voc-fcn8s", 1 / 8, image)
        net.policy = policy
        trainer = Trainer(net, regime, 0)
        assert trainer.program_bytes() is None
        trainer.update([trainer.batch(fed(net.graph, image), 0, "")])
        taken.append(trainer.program_bytes() or 0)
        assert 1 / 1.5 < taken[-1] / predict(net.shapes, policy, slots=1).total < 1.5
    # XLA would gladly make one computation of two.
    assert taken[1] < 0.95 * taken[0]


def test_fcn8s_at_1024x2048_has_room_on_a_card_of_24_gb() -> None:
    """In stages, what is kept for the way back takes less than half."""
    shapes = shapes_of("voc-fcn8s", 1, (1024, 2048))
    plain, staged, narrower = (
        predict(shapes, policy, slots=1)
        for policy in (PLAIN, ComputePolicy(remat=True), ComputePolicy("bf16"))
    )
    assert plain.total < 12e9
    assert staged.passes < 0.95 * plain.passes
    assert narrower.passes < 0.85 * plain.passes
    cut, kept = segments(shapes), loads(shapes)
    assert sum(kept.left(segment) for segment in cut) < 0.5 * kept.before[-1]
    summed = predict(shapes, PLAIN, slots=2, sums=True)
    assert summed.history == 3 * plain.history
    assert summed.total - plain.total == 2 * plain.history
    eighth = predict(shapes, PLAIN, slots=2, sums=True, parts=8)
    assert eighth.history == summed.history // 8
    assert summed.parameters - eighth.parameters == plain.history - plain.history // 8
    assert eighth.passes == plain.passes


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0.0 MiB"), (2**20 * 12 + 400000, "12.4 MiB"), (2**31, "2.0 GiB")]
)
def test_sizes_are_said(number: int, words: str) -> None:
    assert size(number) == words


def test_capacity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a CPU, the machine's memory, or the share of it that this process may have."""
    whole = capacity()
    assert whole is not None
    assert whole > 2**27
    share = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_GROUP_LIMIT", share)
    share.write_text("1048576\n")
    assert capacity() == 2**20
    share.write_text("max\n")
    assert (capacity() or 0) >= whole


def solved(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    monkeypatch.chdir(folder)
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    done = CliRunner().invoke(main, ["solve", "solver.prototxt", *options])
    assert done.exit_code == 0, done.output
    return done


def lines(done: Result, beginning: str) -> list[str]:
    return [line for line in done.output.splitlines() if line.startswith(beginning)]


def test_a_run_says_what_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = solved(tmp_path, monkeypatch, "--remat")
    before, after = lines(done, "memory ")
    assert before == (
        "memory    about 0.0 MiB at x 2x3, y 2x4: parameters 0.0 MiB, history 0.0 MiB, data "
        "0.0 MiB, blobs and gradients 0.0 MiB in stages"
    )
    assert after == "memory    predicted 0.0 MiB, XLA's program takes 0.0 MiB"
    assert not lines(done, "warning")
    assert not lines(done, "precision")


def test_too_much_is_told_before_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "capacity", lambda: 100)
    [warning] = lines(solved(tmp_path, monkeypatch), "warning: a step takes")
    assert warning == (
        "warning: a step takes about 0.0 MiB, and the device has 0.0 MiB: smaller images or "
        "batches take less"
    )


def test_a_run_goes_on_in_the_type_it_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits as a run that never stopped; snapshots are float32, and say what it was."""
    said = "precision products in bfloat16; parameters, statistics and losses in float32"
    assert lines(solved(tmp_path, monkeypatch, "--dtype", "bf16"), "precision") == [said]
    straight = (tmp_path / "s_iter_4.caffemodel").read_bytes()
    assert manifest.read(tmp_path / "s_iter_4.resume.json").dtype == "bf16"
    again = solved(tmp_path, monkeypatch, "--snapshot", "s_iter_2.solverstate")
    assert lines(again, "precision") == [said]
    assert (tmp_path / "s_iter_4.caffemodel").read_bytes() == straight
    other = solved(tmp_path, monkeypatch, "--snapshot", "s_iter_2.solverstate", "--dtype", "f32")
    [warning] = lines(other, "warning: s_iter_2")
    assert warning == (
        "warning: s_iter_2.solverstate is of a run in bf16, and this one goes on in f32: its "
        "numbers will not be those of a run that never stopped"
    )
    assert not lines(other, "precision")
    assert (tmp_path / "s_iter_4.caffemodel").read_bytes() != straight
