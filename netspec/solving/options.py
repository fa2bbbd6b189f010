"""How a solver runs, beside what its prototxt says."""

from __future__ import annotations

from dataclasses import dataclass, field

from netspec.runtime.compute_policy import PLAIN, ComputePolicy
from netspec.solving.callback import Callback
from netspec.solving.distributed.mesh import Mesh


@dataclass(frozen=True)
class SolverOptions:
    """How a solver runs, beside what its prototxt says.

    callback: is told what happens. keep: how many snapshots stay on disk; None for all.
    skip_corrupt: leave out batches of training files that cannot be read; test nets never do. mesh:
    the devices to train on: ``iter_size`` is multiplied by their number. policy: the dtype that the
    nets compute in, and whether the train net rematerialises. debug_nans: look at every blob and
    gradient before each update, at the cost of a second pass. keep_all: let every update hand out
    all blobs of its pass, and the steps taken, instead of the net's outputs alone.
    """

    callback: Callback = field(default_factory=Callback)
    keep: int | None = None
    skip_corrupt: bool = False
    mesh: Mesh = field(default_factory=Mesh)
    policy: ComputePolicy = PLAIN
    debug_nans: bool = False
    keep_all: bool = False
