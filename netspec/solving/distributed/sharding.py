"""Where a run's arrays lie on its devices: whole on each, or in parts, one on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from netspec.layers.base import Array
from netspec.solving.step import Batch

# The axis of the device mesh along which batches lie.
AXIS = "data"

AnyTree = TypeVar("AnyTree")


class ArraySharding:
    """Places arrays on the devices of a run, and brings them back; one device by default.

    size: how many devices. split: whether learned arrays, and what the rule keeps of them, rest in
    parts, one on each device; they are gathered for the time of a step. mesh: the devices, as JAX
    wants them; there is none for a single one.
    """

    def __init__(
        self, devices: Sequence[jax.Device] = (), split: bool = False, process: int = 0
    ) -> None:
        """devices: those of all processes, process by process. process: which one this is."""
        self.size = max(1, len(devices))
        self.split = split and self.size > 1
        self._mine = [d for d in devices if d.process_index == process]
        if self.size > 1:
            self.mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
            self._whole = self._sharding(PartitionSpec())

    @property
    def local_size(self) -> int:
        """How many of the devices are this process's."""
        return len(self._mine) or 1

    def spec(self, shape: Sequence[int]) -> PartitionSpec:
        """The axis along which an array that training changes lies in parts, if it does."""
        fit = [axis for axis, n in enumerate(shape) if n and n % self.size == 0]
        if not self.split or not fit:
            return PartitionSpec()
        axis = max(fit, key=lambda axis: shape[axis])
        return PartitionSpec(*[None] * axis, AXIS)

    def upload(self, tree: AnyTree) -> AnyTree:
        """Send a batch's arrays to the device; of several, it is known only later to which."""
        return jax.device_put(tree) if self.size == 1 else tree

    def constrained(self, tree: AnyTree) -> AnyTree:
        """Lay out what training changes, inside a program, as it rests."""
        shardings = jax.tree.map(lambda leaf: self._sharding(self.spec(leaf.shape)), tree)
        return jax.lax.with_sharding_constraint(tree, shardings)

    def placed(self, tree: AnyTree, learned: bool = False) -> AnyTree:
        """Move arrays to where steps want them; those that are there already stay.

        learned: whether they are what training changes.
        """
        if self.size == 1:
            return tree
        return jax.tree.map(
            lambda leaf: (
                self._put(leaf, self._sharding(self.spec(leaf.shape)))
                if learned
                else self._put(leaf, self._whole)
            ),
            tree,
        )

    def local(self, tree: AnyTree) -> AnyTree:
        """Arrays as one device has them, to compute with alone; all processes must ask."""
        return tree if self.size == 1 else jax.tree.map(self._local, tree)

    def fetched(self, tree: AnyTree) -> AnyTree:
        """Arrays that the host can read, whole; all processes must ask."""
        if not self.split:
            return tree
        return jax.tree.map(lambda leaf: np.asarray(self._local(leaf)), tree)

    def stacked(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """The batches of an update as a program takes them: stacked, one for each device."""
        if self.size == 1:
            return batches
        count = len(self._mine)
        return [self._stacked(batches[i : i + count]) for i in range(0, len(batches), count)]

    def _stacked(self, batches: Sequence[Batch]) -> Batch:
        parts = [(b.bucket.feeds, jax.random.key_data(b.key), b.bucket.sizes) for b in batches]
        feeds, key, sizes = jax.tree.map(lambda *arrays: self._stack(arrays), *parts)
        last = batches[-1]
        return replace(last, bucket=replace(last.bucket, feeds=feeds, sizes=sizes), key=key)

    def _stack(self, arrays: Sequence[Any]) -> Array:
        """One array with a part on each device, of this process's parts."""
        parts = [
            jax.device_put(array[None], device)
            for array, device in zip(arrays, self._mine, strict=True)
        ]
        shape = (self.size, *parts[0].shape[1:])
        sharding = self._sharding(PartitionSpec(AXIS))
        return jax.make_array_from_single_device_arrays(shape, sharding, parts)

    def _put(self, leaf: Any, sharding: NamedSharding) -> Array:
        if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    def _local(self, leaf: Array) -> Array:
        if len(leaf.sharding.device_set) == 1:
            return leaf
        if not leaf.sharding.is_fully_replicated:
            leaf = _gathered(self._whole)(leaf)
        part: Array = leaf.addressable_data(0)
        return part

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self.mesh, spec)


@lru_cache
def _gathered(sharding: NamedSharding) -> Callable[[Array], Array]:
    """A program that makes arrays that lie in parts whole on each device."""
    return jax.jit(lambda array: array, out_shardings=sharding)
