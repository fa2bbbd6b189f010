"""Short runs that are stopped and go on."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from netspec.frontend.shapes import ParamKey
from netspec.solving.callback import Callback
from netspec.solving.options import SolverOptions
from netspec.solving.solver import Solver

# Rows are shuffled, units are dropped at random, statistics run, an LSTM remembers.
NET = """
name: "fragile"
layer { name: "data" type: "HDF5Data" top: "x" top: "cont" top: "label"
  hdf5_data_param { source: "rows.txt" batch_size: 3 shuffle: true } }
layer { name: "norm" type: "BatchNorm" bottom: "x" top: "norm" }
layer { name: "up" type: "Reshape" bottom: "norm" top: "up"
  reshape_param { shape { dim: 3 dim: 1 dim: 2 } } }
layer { name: "lstm" type: "LSTM" bottom: "up" bottom: "cont" top: "h"
  recurrent_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "h" top: "drop" }
layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "y" param { lr_mult: 2 }
  inner_product_param { num_output: 1 axis: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "label" top: "loss" }
"""
# The loss is 0.5 sum(y^2) of y = w x; x is fed row by row.
LINE = """
name: "line"
layer { name: "data" type: "HDF5Data" top: "x"
  hdf5_data_param { source: "line.txt" batch_size: 1 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "square" type: "Power" bottom: "y" top: "loss" loss_weight: 0.5
  power_param { power: 2 } }
"""
W = ParamKey("ip", "weight")
BASE = 'net: "net.prototxt" base_lr: 0.05 lr_policy: "fixed" snapshot_prefix: "snap/run" '


class Said(Callback):
    """What was said and warned."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.warnings.append(line)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    with h5py.File("rows.h5", "w") as file:
        file["x"] = draw.normal(size=(11, 2)).astype(np.float32)
        file["cont"] = np.ones((11, 1), np.float32)
        file["label"] = draw.normal(size=(11, 1, 1)).astype(np.float32)
    Path("rows.txt").write_text("rows.h5\n")
    Path("net.prototxt").write_text(NET)
    return tmp_path


def solver(settings: str = "", callback: Callback | None = None, keep: int | None = None) -> Solver:
    Path("solver.prototxt").write_text(BASE + settings)
    return Solver.from_file("solver.prototxt", SolverOptions(callback or Callback(), keep))


def line(rows: Any, settings: str = "", callback: Callback | None = None) -> Solver:
    with h5py.File("line.h5", "w") as file:
        file["x"] = np.asarray(rows, np.float32)
    Path("line.txt").write_text("line.h5\n")
    Path("net.prototxt").write_text(LINE)
    return solver(settings, callback)


def everything(loop: Solver) -> dict[str, Any]:
    """All that a run is made of, as bytes and numbers."""
    arrays = {str(key): np.asarray(a).tobytes() for key, a in loop.net.arrays().items()}
    memory = {
        str(key): np.asarray(a).tobytes()
        for key, a in loop.net.carried_for(loop.net.shapes).items()
    }
    history = [np.asarray(array).tobytes() for array in loop.trainer.history()]
    return {
        "arrays": arrays,
        "memory": memory,
        "history": history,
        "iteration": loop.iteration,
        "smoothed loss": loop.smoothed_loss(),
        "data": loop.data,
    }


def iterations() -> list[int]:
    return sorted({int(path.name.split("_")[2].split(".")[0]) for path in Path("snap").iterdir()})
