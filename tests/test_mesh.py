"""Several devices make the updates of one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scale_runs import environment, write_nets
from scaled import RULES

from netspec.errors import SolverError
from netspec.solving.distributed.launch import DeviceOptions, joined
from netspec.solving.options import SolverOptions
from netspec.solving.solver import Solver

# What each refused net is told.
REFUSED = {
    "host": 'layer "out" (HDF5Output): runs on the host, which only one device can train with',
    "memory": 'layer "lstm" (LSTM): remembers h, c from one batch to the next, which only one',
    "misfit": 'devices that take a batch each cannot share an update of "data" 1x3x',
}


class Found:
    """What `scaled` found."""

    def __init__(self, folder: Path) -> None:
        self.said: dict[str, Any] = json.loads((folder / "said.json").read_text())
        with np.load(folder / "found.npz") as arrays:
            self.arrays = dict(arrays)

    def run(self, name: str) -> dict[str, np.ndarray]:
        start = f"{name}/"
        return {k.removeprefix(start): a for k, a in self.arrays.items() if k.startswith(start)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("scaled")
    write_nets(folder)
    done = subprocess.run(
        [sys.executable, "-m", "scaled"],
        cwd=folder,
        env=environment(8),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return Found(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("rows-eight", "rows-one"),
        ("rows-parts", "rows-one"),
        ("rows-twice", "rows-one"),
        ("rows-resumed", "rows-one"),
        ("rows-back", "rows-one"),
        ("sizes-four", "sizes-one"),
        ("remat-four", "sizes-one"),
        *((f"{rule}-four", f"{rule}-one") for rule in list(RULES)[1:]),
    ],
)
def test_devices_make_the_update_of_iter_size(found: Found, name: str, one: str) -> None:
    """In parts or whole, by each rule, over a snapshot of another number, on images of any size."""
    mine, expected = found.run(name), found.run(one)
    assert mine.keys() == expected.keys()
    for key, array in expected.items():
        if not key.startswith("norm."):
            np.testing.assert_allclose(mine[key], array, 2e-5, 1e-6, err_msg=key)
    assert found.said[name]["data"] == found.said[one]["data"]


@pytest.mark.slow
def test_devices_in_bfloat16(found: Found) -> None:
    """They differ from one device by less than bfloat16 does from float32."""
    mine, one, wide = (found.run(name) for name in ("bf16-four", "bf16-one", "sizes-one"))
    for key, array in one.items():
        np.testing.assert_allclose(mine[key], array, 2e-5, 1e-5, err_msg=key)
    assert abs(one["losses"] / wide["losses"] - 1).max() > 2e-4


@pytest.mark.slow
def test_running_statistics_decay_once_an_update(found: Found) -> None:
    """One after another they decay with every batch."""
    sums = {n: found.run(n)["norm.scale_factor"][0] for n in ("rows-eight", "rows-one")}
    decay = 0.999
    expected = {"rows-eight": 4, "rows-one": 32}
    for name, updates in expected.items():
        assert sums[name] == pytest.approx((1 - decay**updates) / (1 - decay), rel=1e-5)


@pytest.mark.slow
def test_each_device_keeps_a_part(found: Found) -> None:
    """Of 16x6 and 16 and 1x16 an eighth, of 1 all; besides the count of iterations."""
    whole, parts = (found.said[name]["history"] for name in ("rows-eight", "rows-parts"))
    assert (whole, parts) == (4 * (96 + 16 + 16 + 1 + 1), 4 * (12 + 2 + 2 + 1 + 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_nets_that_one_device_must_train(found: Found, name: str) -> None:
    assert REFUSED[name] in found.said[name]


def test_batch_per_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the train net; what has no batch_size says so."""
    monkeypatch.chdir(tmp_path)
    write_nets(tmp_path)
    solver = 'net: "{}.prototxt" base_lr: 0.01 lr_policy: "fixed" random_seed: 3'
    Path("solver.prototxt").write_text(solver.format("rows"))
    with joined(DeviceOptions(batch_per_device=5)) as mesh:
        made = Solver.from_file("solver.prototxt", SolverOptions(mesh=mesh))
        assert made.net.shapes["x"] == (5, 6)
        made.close()
        Path("solver.prototxt").write_text(solver.format("memory"))
        with pytest.raises(SolverError, match=r'"cont" \(DummyData\): has no batch_size for --bat'):
            Solver.from_file("solver.prototxt", SolverOptions(mesh=mesh))
