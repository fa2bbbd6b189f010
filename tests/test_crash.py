"""A run that is killed, wherever it is, goes on from its last snapshot to the same bits."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

# Data is shuffled, units are dropped at random, statistics run, an LSTM remembers.
NET = """
name: "fragile"
layer { name: "data" type: "HDF5Data" top: "x" top: "cont" top: "label"
  hdf5_data_param { source: "rows.txt" batch_size: 4 shuffle: true } }
layer { name: "norm" type: "BatchNorm" bottom: "x" top: "norm" }
layer { name: "up" type: "Reshape" bottom: "norm" top: "up"
  reshape_param { shape { dim: 4 dim: 1 dim: 3 } } }
layer { name: "lstm" type: "LSTM" bottom: "up" bottom: "cont" top: "h"
  recurrent_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "h" top: "drop" }
layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "y"
  inner_product_param { num_output: 1 axis: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "net.prototxt" type: "Adam" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9
iter_size: 2 average_loss: 7 random_seed: 5 max_iter: 2000 display: 50
snapshot: 7 snapshot_prefix: "snap/run"
"""
LAST = 2000

# Imports what a run needs once; each run is a process of its own that is forked off and killed.
NURSERY = """
import os, random, signal, sys, time
from netspec.cli import main
import netspec.cli.train

def born():
    child = os.fork()
    if not child:
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        try:
            main(["solve", "solver.prototxt", "--resume", "--keep", "3"], standalone_mode=False)
        except BaseException as error:
            print("failed:", repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return child

def newest():
    names = os.listdir("snap") if os.path.isdir("snap") else []
    return max((int(n.split("_")[-1].split(".")[0]) for n in names if ".solverstate" in n
                and not n.startswith(".")), default=0)

draw = random.Random()
for kill in range(int(sys.argv[1])):
    child, before, end = born(), newest(), time.monotonic() + 60
    # Half of the kills come soon after a snapshot, the others any time after the start.
    while newest() == before and time.monotonic() < end and kill % 2:
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.02 if kill % 2 else 1.0))
    os.kill(child, signal.SIGKILL)
    print("killed at", newest(), os.waitpid(child, 0)[1], flush=True)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(born(), 0)[1]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["x"] = draw.normal(size=(37, 3)).astype(np.float32)
        file["cont"] = (draw.random((37, 1)) > 0.2).astype(np.float32)
        file["label"] = draw.normal(size=(37, 1, 1)).astype(np.float32)
    (tmp_path / "rows.txt").write_text("rows.h5\n")
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


def train(folder: Path, kills: int) -> str:
    """What the runs printed; the last one comes to the end."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NURSERY, str(kills)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=500,
    )
    path = folder / "log.txt"
    log = path.read_text() if path.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    assert "failed:" not in log
    return done.stdout


def left(folder: Path) -> dict[str, bytes]:
    """The last snapshot's files, and what its record holds but for digests and the time."""
    snap = folder / "snap"
    files = {p.name: p.read_bytes() for p in snap.iterdir() if f"_iter_{LAST}." in p.name}
    (name,) = (name for name in files if name.endswith(".json"))
    record = json.loads(files[name].split(b"\n")[1])
    files[name] = json.dumps({**record, "files": None, "written": None}).encode()
    return files


@pytest.mark.slow
def test_killed_thirty_times(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "solver.prototxt").write_text(SOLVER)
    straight = tmp_path_factory.mktemp("straight")
    for path in folder.iterdir():
        (straight / path.name).write_bytes(path.read_bytes())
    train(straight, 0)
    said = train(folder, 30)
    # A child that was not killed ended by itself, as only one may that came to the end.
    ends = [int(line.split()[-1]) for line in said.splitlines() if line.startswith("killed at")]
    assert len(ends) == 30
    assert set(ends) <= {signal.SIGKILL, 0}, said
    assert ends.count(signal.SIGKILL) > 10, said
    # The kills were spread over the run.
    assert len(set(said.splitlines())) > 10, said
    assert left(folder) == left(straight)
    assert len([p for p in (folder / "snap").iterdir() if p.suffix == ".solverstate"]) == 3
    assert not list((folder / "snap").glob(".*"))
