"""Nets small enough to be solved by hand, and the solvers of their tests."""

from collections.abc import Callable
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from netspec.frontend.shapes import ParamKey
from netspec.proto.net_pb2 import NetParameter
from netspec.solving.callback import Callback, TrainingStep
from netspec.solving.evaluation import Evaluation
from netspec.solving.options import SolverOptions
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
    return Solver.from_file("solver.prototxt", SolverOptions(callback or Callback()))


def set_weight(loop: Solver, weight: ArrayLike = WEIGHT) -> Solver:
    loop.net.assign({W: jnp.asarray(weight, jnp.float32)})
    return loop


def weight_of(loop: Solver) -> NDArray[np.float32]:
    return np.array(loop.net.arrays()[W])


class Log(Callback):
    """What happened, in short words, in order."""

    def __init__(self, hook: Callable[[Solver, str], None] = lambda solver, event: None) -> None:
        self.events: list[str] = []
        self.steps: list[TrainingStep] = []
        self.tests: list[Evaluation] = []
        self.hook = hook

    def say(self, solver: Solver, event: str) -> None:
        self.events.append(event)
        self.hook(solver, event)

    def step(self, solver: Solver, step: TrainingStep) -> None:
        self.steps.append(step)
        self.say(solver, f"step {step.iteration}")

    def testing(self, solver: Solver, index: int) -> None:
        self.say(solver, f"testing {index}")

    def test(self, solver: Solver, index: int, result: Evaluation) -> None:
        self.tests.append(result)
        self.say(solver, f"test {index} at {solver.iteration}")

    def snapshot(self, solver: Solver, paths: tuple[Path, Path]) -> None:
        self.say(solver, f"snapshot {paths[0].name} {paths[1].name}")


def snapshots() -> list[str]:
    """The snapshots here, but for the records beside them."""
    return sorted(str(path) for path in Path().rglob("*_iter_*") if path.suffix != ".json")
