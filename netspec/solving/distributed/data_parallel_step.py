"""A step on several devices: each makes a pass of its own, and their gradients are summed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from netspec.frontend.shapes import ParamKey
from netspec.layers.base import Array
from netspec.solving.step import Learner, Micro, Program
from netspec.solving.updates import Tree

if TYPE_CHECKING:
    from netspec.solving.distributed.mesh import Mesh

# The mesh's axis, along which batches lie.
AXIS = "data"


@dataclass(frozen=True, eq=False)
class DataParallelStep(Program):
    """A program whose batches are stacked: the first axis of all that it is fed is the devices'.

    place: the devices. Gradients are the sum over them, the loss is the mean, outputs are the last
    device's. What layers keep from run to run, as running statistics, is the mean of what each
    device would keep: passes one after another would let it decay as often.
    """

    place: Mesh = field(kw_only=True)

    def micro(
        self,
        fixed: Tree,
        learned: Tree,
        total: Tree,
        feeds: Mapping[str, Array],
        key: Array,
        sizes: Array | None,
    ) -> Micro:
        """One pass on each device; keys come as their data."""
        specs = {name: self.place.spec(array.shape) for name, array in learned.items()}
        whole, apart = PartitionSpec(), PartitionSpec(AXIS)
        # Each device's gradients are those of its own batch: nothing is to be summed up unasked.
        spread = jax.shard_map(
            partial(self._one, specs),
            mesh=self.place.mesh,
            in_specs=(whole, whole, apart, apart, apart),
            out_specs=(whole, specs, whole, whole),
            check_vma=False,
        )
        loss, gradients, statistics, outputs = spread(fixed, learned, feeds, key, sizes)
        summed = {name: total[name] + g if total else g for name, g in gradients.items()}
        return Micro(loss, summed, statistics, outputs, jnp.isfinite(loss))

    def update(
        self, learner: Learner, healthy: Array, loss: Array, gradients: Tree
    ) -> tuple[Learner, Tree, Array]:
        """As one device makes it, where each array lies in parts by each for its own part."""
        learner, steps, healthy = super().update(learner, healthy, loss, gradients)
        return self.place.constrained(learner), self.place.constrained(steps), healthy

    def _one(
        self,
        specs: Mapping[ParamKey, PartitionSpec],
        fixed: Tree,
        learned: Tree,
        feeds: Mapping[str, Array],
        key: Array,
        sizes: Array | None,
    ) -> tuple[Array, Tree, Tree, dict[str, Array]]:
        """What one device does."""
        feeds, key, sizes = jax.tree.map(lambda array: array[0], (feeds, key, sizes))
        made = super().micro(fixed, learned, {}, feeds, jax.random.wrap_key_data(key), sizes)
        gradients = {name: _summed(g, specs[name]) for name, g in made.gradients.items()}
        last = lax.axis_index(AXIS) == self.place.size - 1
        outputs = {
            name: lax.psum(jnp.where(last, array, jnp.zeros_like(array)), AXIS)
            for name, array in made.outputs.items()
        }
        return lax.pmean(made.loss, AXIS), gradients, lax.pmean(made.statistics, AXIS), outputs


def _summed(gradient: Array, spec: PartitionSpec) -> Array:
    """The sum over the devices; of an array that lies in parts, each device's own part."""
    if AXIS not in spec:
        return lax.psum(gradient, AXIS)
    return lax.psum_scatter(gradient, AXIS, scatter_dimension=spec.index(AXIS), tiled=True)
