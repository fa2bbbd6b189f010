"""Which arrays an update concerns: those that training changes, and those that only its rule sees.

Caffe regularises and keeps a history for every learned blob, frozen ones and running statistics
too. By rules whose history holds gradients times the rate this is 0 at ``lr_mult: 0``; others fill
it with what weight decay, and under ``force_backward`` the loss, give.
Caffe: ``SGDSolver::ApplyUpdate``, ``Net::Init``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netspec.frontend.shapes import ParamKey, Shapes
from netspec.proto.layers_pb2 import ParamSpec
from netspec.proto.solver_pb2 import SolverParameter
from netspec.solving.updates import rule


@dataclass(frozen=True)
class UpdatedArrays:
    """The multipliers of the arrays that an update concerns.

    learned: of those that training changes. graded: of those whose gradients a pass computes.
    decayed: of those that weight decay alone gives a history.
    """

    learned: Mapping[ParamKey, ParamSpec]
    graded: Mapping[ParamKey, ParamSpec]
    decayed: Mapping[ParamKey, ParamSpec]

    @property
    def all(self) -> dict[ParamKey, ParamSpec]:
        """Of all that the rule keeps a history of."""
        return {**self.graded, **self.decayed}


def updated_arrays(shapes: Shapes, solver: SolverParameter) -> UpdatedArrays:
    """What an update of these nets concerns; raises SolverError for an unknown rule."""
    kept = not rule(solver).scales_history
    forced = shapes.graph.force_backward and (kept or solver.clip_gradients >= 0)
    learned, graded, decayed = {}, {}, {}
    for key, spec in shapes.param_specs.items():
        if shapes.params[key].learned and spec.lr_mult:
            learned[key] = graded[key] = spec
        elif shapes.params[key].learned and forced:
            graded[key] = spec
        elif kept and solver.weight_decay * spec.decay_mult:
            decayed[key] = spec
    return UpdatedArrays(learned, graded, decayed)
