"""A step on several devices: each makes a pass of its own, and their gradients are summed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from netspec.frontend.shapes import ParamKey
from netspec.layers.base import Array
from netspec.solving.distributed.sharding import AXIS, ArraySharding
from netspec.solving.step import Learner, PassInputs, PassResult, Program
from netspec.solving.updates import Tree


@dataclass(frozen=True, eq=False)
class DataParallelStep(Program):
    """A program whose batches are stacked: the first axis of all that it is fed is the devices'.

    Gradients are the sum over the devices, the loss is the mean, outputs are the last device's.
    What layers keep from run to run, as running statistics, is the mean of what each device would
    keep: passes one after another would let it decay as often.
    """

    sharding: ArraySharding = field(kw_only=True)

    def forward_backward(self, fixed: Tree, learned: Tree, inputs: PassInputs) -> PassResult:
        """Make one pass on each device; keys come as their data."""
        specs = {name: self.sharding.spec(array.shape) for name, array in learned.items()}
        whole, apart = PartitionSpec(), PartitionSpec(AXIS)
        # Each device's gradients are those of its own batch: JAX must sum nothing by itself.
        parallel = jax.shard_map(
            partial(self._on_one_device, specs),
            mesh=self.sharding.mesh,
            in_specs=(whole, whole, apart),
            out_specs=PassResult._make((whole, specs, whole, whole)),
            check_vma=False,
        )
        result: PassResult = parallel(fixed, learned, inputs)
        return result

    def update(
        self, learner: Learner, healthy: Array, loss: Array, gradients: Tree, frozen: Tree
    ) -> tuple[Learner, Tree, Array]:
        """Update as one device does; of an array in parts, each device updates its own part."""
        learner, steps, healthy = super().update(learner, healthy, loss, gradients, frozen)
        return self.sharding.constrained(learner), self.sharding.constrained(steps), healthy

    def _on_one_device(
        self,
        specs: Mapping[ParamKey, PartitionSpec],
        fixed: Tree,
        learned: Tree,
        inputs: PassInputs,
    ) -> PassResult:
        feeds, key, sizes = jax.tree.map(lambda array: array[0], inputs)
        alone = PassInputs(feeds, jax.random.wrap_key_data(key), sizes)
        made = super().forward_backward(fixed, learned, alone)
        gradients = {name: _summed(g, specs[name]) for name, g in made.gradients.items()}
        last = lax.axis_index(AXIS) == self.sharding.size - 1
        outputs = {
            name: lax.psum(jnp.where(last, array, jnp.zeros_like(array)), AXIS)
            for name, array in made.outputs.items()
        }
        return PassResult(
            lax.pmean(made.loss, AXIS), gradients, lax.pmean(made.statistics, AXIS), outputs
        )


def _summed(gradient: Array, spec: PartitionSpec) -> Array:
    """The sum over the devices; of an array that lies in parts, each device's own part."""
    if AXIS not in spec:
        return lax.psum(gradient, AXIS)
    return lax.psum_scatter(gradient, AXIS, scatter_dimension=spec.index(AXIS), tiled=True)
