"""Which snapshot is the newest, and which ones go: whatever the clock says."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from netspec.errors import WeightsError
from netspec.formats import manifest
from netspec.formats.manifest import Manifest
from netspec.solving.callback import Callback
from netspec.solving.evaluation import Evaluation
from netspec.solving.options import SolverOptions
from netspec.solving.snapshots.lineage import states, successor
from netspec.solving.snapshots.store import latest
from netspec.solving.solver import Solver

PREFIX = "snap/run"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("snap").mkdir()


def put(iteration: int, end: str = "", ours: bool = True) -> Path:
    """The state of a snapshot and, of one of ours, its manifest."""
    state = Path(f"{PREFIX}_iter_{iteration}.solverstate{end}")
    if ours:
        sequence, seen = successor(PREFIX, state)
        files = {state.name: ""}
        manifest.write(
            manifest.path_beside(state),
            Manifest(iteration, 1, "SGD", files=files, sequence=sequence, seen=seen),
        )
    state.write_text("")
    return state


def order() -> list[int]:
    return [iteration for iteration, _ in states(PREFIX)]


def test_the_last_written_is_the_newest_whatever_its_iteration() -> None:
    for iteration in (100, 200, 5, 10):
        put(iteration)
    assert order() == [10, 5, 200, 100]


def test_a_clock_that_is_set_back_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    for iteration, ahead in ((100, 3600.0), (300, 0.0), (400, -7200.0)):
        monkeypatch.setattr(time, "time", lambda ahead=ahead: real() + ahead)
        put(iteration)
    assert order() == [400, 300, 100]


def test_caffes_are_ordered_by_iteration() -> None:
    for iteration in (200, 30, 100):
        put(iteration, ours=False)
    assert order() == [200, 100, 30]


def test_caffes_that_ours_has_seen_are_older_than_it() -> None:
    put(1000, ours=False)
    put(5)
    put(10)
    put(20, ours=False)
    assert order() == [20, 10, 5, 1000]


def test_of_one_iteration_the_state_whose_manifest_it_is_comes_first() -> None:
    put(100)
    put(100, end=".h5")
    assert [path.name for _, path in states(PREFIX)] == [
        "run_iter_100.solverstate.h5",
        "run_iter_100.solverstate",
    ]
    put(50)
    assert order() == [50, 100, 100]


def test_a_damaged_manifest_stands_by_its_iteration() -> None:
    for iteration in (100, 200, 300):
        put(iteration)
    manifest.path_beside(Path(f"{PREFIX}_iter_200.solverstate")).write_text("torn")
    assert order() == [300, 200, 100]


def test_manifests_of_the_version_before_are_read() -> None:
    state = put(100)
    beside = manifest.path_beside(state)
    values = json.loads(beside.read_text().split("\n")[1])
    values |= {"netspec": 2, "written": 1.5}
    del values["sequence"], values["seen"]
    write_with_checksum(beside, values)
    assert manifest.read(beside).sequence == 0
    put(7)
    assert order() == [7, 100]


def write_with_checksum(path: Path, values: object) -> None:
    content = json.dumps(values).encode()
    from hashlib import sha256

    path.write_bytes(sha256(content).hexdigest().encode() + b"\n" + content + b"\n")


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        {"netspec": 3},
        {"netspec": 3, "iteration": "9", "seed": 1, "solver": "SGD"},
        {"netspec": 3, "iteration": 9, "seed": 1, "solver": "SGD", "files": []},
        {"netspec": 3, "iteration": 9, "seed": 1, "solver": "SGD", "losses": 1},
        {"netspec": 3, "iteration": 9, "seed": 1, "solver": "SGD", "other": 1},
    ],
)
def test_what_no_netspec_wrote_is_damaged(values: object) -> None:
    path = Path("a.resume.json")
    write_with_checksum(path, values)
    with pytest.raises(WeightsError, match=r"a\.resume\.json: is damaged: it is no manifest"):
        manifest.read(path)


def test_another_version_is_named() -> None:
    write_with_checksum(Path("a.resume.json"), {"netspec": 99})
    with pytest.raises(WeightsError, match="another version of netspec"):
        manifest.read(Path("a.resume.json"))


SOLVER = """
base_lr: 0.01 lr_policy: "fixed" max_iter: 4 snapshot: 1 snapshot_prefix: "snap/run" random_seed: 1
net_param {
  layer { name: "data" type: "DummyData" top: "data" dummy_data_param {
    shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } } }
  layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
    inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 }
}
"""


def test_keep_leaves_the_final_weights_after_the_clock_was_set_back() -> None:
    """And going on finds them: by files' times the run before would be the newest."""
    Path("solver.prototxt").write_text(SOLVER)
    first = Solver.from_file("solver.prototxt", SolverOptions(keep=2))
    first.solve(max_iter=3)
    first.close()
    ahead = time.time() + 3600
    for path in Path("snap").iterdir():
        os.utime(path, (ahead, ahead))
    second = Solver.from_file("solver.prototxt", SolverOptions(keep=2))
    found = latest(PREFIX, pytest.fail)
    assert found is not None
    second.take(found)
    assert second.iteration == 3
    second.solve(max_iter=5)
    second.close()
    assert order() == [5, 4]
    assert Path(f"{PREFIX}_iter_5.caffemodel").exists()


def test_keep_removes_no_file_of_the_other_format() -> None:
    """It may be one that Caffe wrote: the manifest beside is of ours alone."""
    Path("solver.prototxt").write_text(SOLVER + "snapshot_format: HDF5")
    solver = Solver.from_file("solver.prototxt", SolverOptions(keep=1))
    solver.step(1)
    caffes = [Path(f"{PREFIX}_iter_1.{end}") for end in ("caffemodel", "solverstate")]
    for path in caffes:
        path.write_bytes(b"Caffe's")
    solver.step(1)
    solver.close()
    assert [path.read_bytes() for path in caffes] == [b"Caffe's"] * 2
    assert not Path(f"{PREFIX}_iter_1.solverstate.h5").exists()
    assert Path(f"{PREFIX}_iter_2.solverstate.h5").exists()


def test_a_running_solver_that_goes_back_makes_the_same_tests() -> None:
    """Also where the snapshot is from before its first test: their data starts anew."""
    tested = "test_iter: 1 test_interval: 2 test_initialization: false test_net_param { "
    data = SOLVER[SOLVER.index("  layer") : SOLVER.index('  layer { name: "ip"')]
    net = f'{data} layer {{ name: "m" type: "Reduction" bottom: "data" top: "m" }} }}'
    Path("solver.prototxt").write_text(f"{SOLVER} {tested} {net}")
    seen: list[float] = []

    class Seen(Callback):
        def test(self, solver: Solver, index: int, result: Evaluation) -> None:
            seen.append(float(np.asarray(result.outputs["m"]).sum()))

    solver = Solver.from_file("solver.prototxt", SolverOptions(callback=Seen()))
    solver.step(1)
    solver.step(4)
    whole = seen[:]
    seen.clear()
    solver.restore(f"{PREFIX}_iter_1.solverstate")
    solver.step(4)
    solver.close()
    assert len(set(whole)) == len(whole) == 2
    assert seen == whole
