"""Manifests with a right checksum and values that no netspec wrote: one line, never a traceback."""

import copy
import json
import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from netspec.errors import NetSpecError
from netspec.solving.solver import Solver

SOLVER = """
base_lr: 0.01 lr_policy: "fixed" max_iter: 9 snapshot_prefix: "run" random_seed: 1
net_param {
  layer { name: "data" type: "HDF5Data" top: "x" top: "t"
    hdf5_data_param { source: "list.txt" batch_size: 2 shuffle: true } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
    inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "loss" }
}
"""
FORGED = [None, True, -1, 1e308, 10**400, "x", [], {}, [[1]], {"a": 1}, "\ud800", 3.5, 2**63]


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Solver]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("forged"))
        with h5py.File("rows.h5", "w") as file:
            file["x"] = np.ones((5, 3), np.float32)
            file["t"] = np.ones((5, 1), np.float32)
        Path("list.txt").write_text("rows.h5")
        Path("solver.prototxt").write_text(SOLVER)
        made = Solver.from_file("solver.prototxt")
        made.step(1)
        made.snapshot()
        yield made
        made.close()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested values, of a list's the first."""
    if path:
        yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:1] if isinstance(value, list) else [])
    )
    for key, each in inner:
        yield from places(each, (*path, key))


def test_forged_values_give_one_line(solver: Solver) -> None:
    beside = Path("run_iter_1.resume.json")
    whole = beside.read_text()
    values = json.loads(whole.split("\n", 1)[1])
    cases = [(place, forged) for place in places(values) for forged in FORGED]
    random.Random(0).shuffle(cases)
    refused = 0
    for place, forged in [case for case in cases if case[0][0] != "files"][:150]:
        changed = copy.deepcopy(values)
        held = changed
        for key in place[:-1]:
            held = held[key]
        held[place[-1]] = forged
        content = json.dumps(changed)
        beside.write_text(f"{sha256(content.encode()).hexdigest()}\n{content}\n")
        try:
            solver.restore("run_iter_1.solverstate")
            solver.step(1)
        except NetSpecError:
            refused += 1
    assert refused > 75
    beside.write_text(whole)
    solver.restore("run_iter_1.solverstate")
    solver.step(1)
    assert solver.iteration == 2
