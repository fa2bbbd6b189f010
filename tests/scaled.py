"""Runs on eight virtual devices, for `test_scale`: what they learn goes into ``found.npz``."""

import json
from pathlib import Path

import jax
import numpy as np

from netspec.errors import NetSpecError
from netspec.solving.loop import Solver
from netspec.solving.mesh import Mesh

SOLVER = (
    'net: "{net}.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 '
    'clip_gradients: 3 iter_size: {iter_size} random_seed: 3 snapshot_prefix: "{name}" '
)
# Name -> net, devices, whether in parts, iter_size, the iterations of the snapshots it goes over.
RUNS = {
    "rows-one": ("rows", 1, False, 8, ()),
    "rows-eight": ("rows", 8, False, 1, ()),
    "rows-parts": ("rows", 8, True, 1, ()),
    "rows-twice": ("rows", 4, True, 2, ()),
    "rows-resumed": ("rows", 8, True, 1, (("rows-twice", 2),)),
    "rows-back": ("rows", 1, False, 8, (("rows-eight", 2),)),
    "sizes-one": ("sizes", 1, False, 4, ()),
    "sizes-four": ("sizes", 4, False, 1, ()),
}
REFUSED = ("memory", "host", "misfit")


def solver(name: str, net: str, devices: int, split: bool, iter_size: int) -> Solver:
    text = SOLVER.format(net=net, iter_size=iter_size, name=name)
    path = Path(f"{name}-solver.prototxt")
    path.write_text(text)
    mesh = Mesh(jax.devices()[:devices] if devices > 1 else (), split)
    return Solver.from_file(path, mesh=mesh)


def main() -> None:
    found: dict[str, np.ndarray] = {}
    said: dict[str, object] = {}
    for name, (net, devices, split, iter_size, snapshots) in RUNS.items():
        run = solver(name, net, devices, split, iter_size)
        for other, iteration in snapshots:
            run.restore(f"{other}_iter_{iteration}.solverstate")
        while run.iteration < 4:
            run.step(1)
            if run.iteration == 2 and not snapshots:
                run.snapshot()
        for key, array in run.trainer.arrays().items():
            found[f"{name}/{key}"] = np.asarray(array)
        found[f"{name}/losses"] = np.array([float(loss) for loss in run.losses])
        for blob, array in run.outputs.items():
            found[f"{name}/outputs/{blob}"] = np.asarray(array)
        history = sum(
            leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(run.trainer.state)
        )
        said[name] = {"data": run.data, "history": history}
        run.close()
    for name in REFUSED:
        try:
            refused = solver(name, name, 4, False, 1)
            refused.step(1)
        except NetSpecError as error:
            said[name] = str(error)
    np.savez("found.npz", **found)
    Path("said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
