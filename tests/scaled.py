"""Runs on eight virtual devices, for `test_mesh`: what they learn goes into ``found.npz``."""

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from netspec.errors import NetSpecError
from netspec.runtime.compute_policy import ComputePolicy
from netspec.solving.distributed.launch import DeviceOptions, joined
from netspec.solving.distributed.mesh import Mesh
from netspec.solving.options import SolverOptions
from netspec.solving.solver import Solver

SOLVER = (
    'net: "{net}.prototxt" base_lr: 0.01 lr_policy: "fixed" {rule} weight_decay: 0.01 '
    'clip_gradients: 3 iter_size: {iter_size} random_seed: 3 snapshot_prefix: "{name}" '
)
# The rules of type, and what each needs said.
RULES = {
    "sgd": 'type: "SGD" momentum: 0.9',
    "nesterov": 'type: "Nesterov" momentum: 0.9',
    "adagrad": 'type: "AdaGrad"',
    "rmsprop": 'type: "RMSProp" rms_decay: 0.9',
    "adadelta": 'type: "AdaDelta" momentum: 0.9 delta: 1e-3',
    "adam": 'type: "Adam" momentum: 0.9 momentum2: 0.99',
}


class Run(NamedTuple):
    """Four updates; after: those before are made by another run, up to its snapshot."""

    net: str
    devices: int
    iter_size: int
    split: bool = False
    after: tuple[str, int] | None = None
    rule: str = "sgd"
    policy: ComputePolicy = ComputePolicy()


RUNS = {
    "rows-one": Run("rows", 1, 8),
    "rows-eight": Run("rows", 8, 1),
    "rows-parts": Run("rows", 8, 1, split=True),
    "rows-twice": Run("rows", 4, 2, split=True),
    "rows-resumed": Run("rows", 8, 1, split=True, after=("rows-twice", 2)),
    "rows-back": Run("rows", 1, 8, after=("rows-eight", 2)),
    "sizes-one": Run("sizes", 1, 4),
    "sizes-four": Run("sizes", 4, 1),
    "remat-four": Run("sizes", 4, 1, split=True, policy=ComputePolicy(remat=True)),
    "bf16-one": Run("sizes", 1, 4, policy=ComputePolicy("bf16")),
    "bf16-four": Run("sizes", 4, 1, policy=ComputePolicy("bf16")),
} | {
    f"{rule}-{name}": Run("rows", devices, 4 // devices, split=devices > 1, rule=rule)
    for rule in list(RULES)[1:]
    for name, devices in (("one", 1), ("four", 4))
}
REFUSED = ("memory", "host", "misfit")


def mesh(run: Run) -> AbstractContextManager[Mesh]:
    devices = "all" if run.devices == len(jax.devices()) else f"{run.devices}"
    return joined(DeviceOptions(devices=devices, shard_params=run.split))


def solver(name: str, run: Run, mesh: Mesh) -> Solver:
    text = SOLVER.format(net=run.net, iter_size=run.iter_size, name=name, rule=RULES[run.rule])
    path = Path(f"{name}-solver.prototxt")
    path.write_text(text)
    return Solver.from_file(path, SolverOptions(mesh=mesh, policy=run.policy))


def main() -> None:
    found: dict[str, np.ndarray] = {}
    said: dict[str, object] = {}
    for name, run in RUNS.items():
        with mesh(run) as devices:
            made = solver(name, run, devices)
        if run.after is not None:
            made.restore("{}_iter_{}.solverstate".format(*run.after))
        while made.iteration < 4:
            made.step(1)
            if made.iteration == 2 and run.after is None:
                made.snapshot()
        for key, array in made.trainer.arrays().items():
            found[f"{name}/{key}"] = np.asarray(array)
        found[f"{name}/losses"] = np.array([float(loss) for loss in made.losses])
        for blob, array in made.outputs.items():
            found[f"{name}/outputs/{blob}"] = np.asarray(array)
        history = sum(
            leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(made.trainer.state)
        )
        said[name] = {"data": made.data, "history": history}
        made.close()
    for name in REFUSED:
        run = Run(name, 4, 1)
        try:
            with mesh(run) as devices:
                refused = solver(name, run, devices)
            refused.step(1)
        except NetSpecError as error:
            said[name] = str(error)
    np.savez("found.npz", **found)
    Path("said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
