"""The devices that share the batches of an update: where arrays lie, and who takes what.

Of ``iter_size`` times ``size`` batches an update, the devices take ``size`` at a time, each one of
its own, and the gradients are summed up: it is the update of one device whose ``iter_size`` is that
much larger. All that is known of several devices and processes is known here, in `peers`, where
processes talk, and in `spread`, which computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from netspec.errors import LayerError, SolverError, SourceError, blame, fail, require
from netspec.frontend.graph import Graph
from netspec.frontend.shapes import Shapes
from netspec.layers.base import Array
from netspec.runtime.size_buckets import Given, as_shapes, given_of
from netspec.solving.distributed.data_parallel_step import AXIS, DataParallelStep
from netspec.solving.distributed.peers import Peers
from netspec.solving.step import Batch, Program
from netspec.sources.base import LayerSource
from netspec.sources.shard import Share

AnyTree = TypeVar("AnyTree")
Feeds = Mapping[str, Any]


class Fed(NamedTuple):
    """What one pass is fed.

    micro: which pass of the update. files: what is behind it on the host. beside: the shapes of
    what the devices are fed at the same time, in their order; empty for one device.
    """

    micro: int
    feeds: Feeds
    files: str
    beside: Sequence[Given] = ()


class Mesh:
    """Devices that take steps together; one by default, whose steps are those of `Program`.

    size: how many devices. split: whether learned arrays, and what the rule keeps of them, rest in
    parts, one on each device; they are brought together for the time of a step.
    """

    def __init__(
        self,
        devices: Sequence[jax.Device] = (),
        split: bool = False,
        peers: Peers | None = None,
        batch: int | None = None,
    ) -> None:
        """devices: those of all processes, process by process, of each as many.

        batch: images that a device takes at a time; None: as the data layers say.
        """
        self.size = max(1, len(devices))
        self.split = split and self.size > 1
        self.peers = peers or Peers()
        self.batch = batch
        # What any process wanted when the last update was begun.
        self._wanted = {"stop": False, "snapshot": False}
        self._mine = [d for d in devices if d.process_index == self.peers.process]
        if self.size > 1:
            self.mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
            self._whole = self._sharding(PartitionSpec())

    @property
    def first(self) -> bool:
        """Whether this is the process that talks and writes."""
        return self.peers.process == 0

    def prepare(self, graph: Graph) -> Graph:
        """The train net as each device runs it; raises SolverError where it cannot be shared."""
        if self.batch is not None:
            _set_batch(graph, self.batch)
        if self.size > 1:
            for nodes, why in (
                (graph.on_host, "runs on the host"),
                (graph.data_dependent, "makes shapes that depend on data"),
            ):
                for node in nodes:
                    with blame(node.place, node.who):
                        fail(f"{why}, which only one device can train with", SolverError)
        return graph

    def check(self, shapes: Shapes) -> None:
        """Raise SolverError for a net whose batches follow one from another."""
        for each in shapes.nodes:
            with blame(each.node.place, each.node.who):
                require(
                    self.size == 1 or not each.carried,
                    f"remembers {', '.join(each.carried)} from one batch to the next, which only "
                    "one device can train with",
                    SolverError,
                )

    def share(self, source: LayerSource) -> LayerSource:
        """What this process reads of a source: the batches of its own devices."""
        if self.peers.processes == 1:
            return source
        count = len(self._mine)
        return Share(source, self.peers.process * count, count, self.size)

    def micros(self, iter_size: int) -> list[int]:
        """Which of the passes of an update this process makes."""
        count = len(self._mine) or 1
        first = self.peers.process * count
        return [turn + first + i for turn in range(0, iter_size, self.size) for i in range(count)]

    def agreed(self, value: Any) -> Any:
        """What process 0 says, in JSON's types; all must ask at the same point of the run."""
        return self.peers.exchange(value)[0]

    def found_by_any(self, value: Any) -> Any:
        """The first of what the processes say that is not empty."""
        return next(filter(None, self.peers.exchange(value)), None)

    def check_together(self, iteration: int) -> None:
        """Raise SolverError unless all processes go on from the same iteration."""
        for number, other in enumerate(said := self.peers.exchange(iteration)):
            require(
                other == said[0],
                f"process {number} goes on from iteration {other}, process 0 from {said[0]}; "
                "snapshots must lie where all processes read the same files",
                SolverError,
            )

    def feed(
        self, read: Callable[[int], Fed], iter_size: int, wanted: Mapping[str, bool]
    ) -> list[Fed]:
        """What this process's passes of an update are fed; what one fails with ends them all.

        read: what one pass is fed. wanted: whether this process wants a "stop", or a "snapshot".
        Raises LayerError and SourceError.
        """
        micros = self.micros(iter_size)
        if self.peers.processes == 1:
            fed = [read(micro) for micro in micros]
            return self._beside(fed, [[given_of(each.feeds) for each in fed]])
        fed, failure = [], None
        try:
            fed = [read(micro) for micro in micros]
        except (LayerError, SourceError) as error:
            failure = error
        said = self.peers.exchange(
            {
                "failed": failure and str(failure),
                "wanted": wanted,
                "shapes": [given_of(each.feeds) for each in fed],
            }
        )
        if failure is not None:
            raise failure
        for number, each in enumerate(said):
            require(each["failed"] is None, f"process {number}: {each['failed']}", SourceError)
        self._wanted = {what: any(each["wanted"][what] for each in said) for what in wanted}
        return self._beside(fed, [[as_shapes(given) for given in each["shapes"]] for each in said])

    def wants(self, what: str, wanted: bool) -> bool:
        """Whether it is time for a "stop" or a "snapshot", which this process may have ``wanted``.

        Several processes do so after the same update, once all know that one of them wants it.
        """
        return wanted if self.peers.processes == 1 else self._wanted[what]

    def upload(self, tree: AnyTree) -> AnyTree:
        """A batch's arrays on their way to the device, unless it is known only later which."""
        return jax.device_put(tree) if self.size == 1 else tree

    def passes(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """The batches of an update as a program takes them: stacked, one for each device."""
        if self.size == 1:
            return batches
        count = len(self._mine)
        return [self._stacked(batches[i : i + count]) for i in range(0, len(batches), count)]

    def program(self, *parts: Any) -> Program:
        """A step's program, of what `Program` is made of."""
        return Program(*parts) if self.size == 1 else DataParallelStep(*parts, place=self)

    def spec(self, shape: Sequence[int]) -> PartitionSpec:
        """Along which axis an array that training changes lies in parts, if it does."""
        fit = [axis for axis, n in enumerate(shape) if n and n % self.size == 0]
        if not self.split or not fit:
            return PartitionSpec()
        axis = max(fit, key=lambda axis: shape[axis])
        return PartitionSpec(*[None] * axis, AXIS)

    def constrained(self, tree: AnyTree) -> AnyTree:
        """What training changes, inside a program, laid out as it rests."""
        shardings = jax.tree.map(lambda leaf: self._sharding(self.spec(leaf.shape)), tree)
        return jax.lax.with_sharding_constraint(tree, shardings)

    def placed(self, tree: AnyTree, learned: bool = False) -> AnyTree:
        """Arrays where steps want them; those that are there already stay.

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

    def needed(self, saved: Callable[[], str]) -> AbstractContextManager[None]:
        """Steps that all processes take together: see `Peers.needed`."""
        return self.peers.needed(saved)

    @property
    def told(self) -> list[str]:
        """What a run says of its devices."""
        if self.size == 1:
            return []
        kind = self.mesh.devices.flat[0].device_kind
        where = f" of {self.peers.processes} processes" if self.peers.processes > 1 else ""
        parts = ", learned arrays in parts" if self.split else ""
        return [f"devices   {self.size} ({kind}){where}, a batch each{parts}"]

    def _beside(self, fed: list[Fed], shapes: Sequence[Sequence[Given]]) -> list[Fed]:
        """With the shapes of what the devices are fed at the same time; shapes: by process."""
        if self.size == 1:
            return fed
        count = len(self._mine)
        turns = [
            [given for mine in shapes for given in mine[i : i + count]]
            for i in range(0, len(fed), count)
        ]
        return [each._replace(beside=turns[i // count]) for i, each in enumerate(fed)]

    def _stacked(self, batches: Sequence[Batch]) -> Batch:
        parts = [(b.bucket.feeds, jax.random.key_data(b.key), b.bucket.sizes) for b in batches]
        feeds, key, sizes = jax.tree.map(lambda *arrays: self._stack(arrays), *parts)
        last = batches[-1]
        return replace(last, bucket=replace(last.bucket, feeds=feeds, sizes=sizes), key=key)

    def _stack(self, arrays: Sequence[Any]) -> Array:
        """One array of a part for each device, of this process's parts."""
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
            leaf = _brought_together(self._whole)(leaf)
        part: Array = leaf.addressable_data(0)
        return part

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self.mesh, spec)


@lru_cache
def _brought_together(sharding: NamedSharding) -> Callable[[Array], Array]:
    """What makes arrays that lie in parts whole on each device."""
    return jax.jit(lambda array: array, out_shardings=sharding)


def _set_batch(graph: Graph, size: int) -> None:
    """Let every data layer of a net read batches of this size; raises SolverError."""
    for node in graph.sources:
        spec = node.layer.spec
        own = [
            getattr(spec, field.name)
            for field, _ in spec.ListFields()
            if field.message_type and "batch_size" in field.message_type.fields_by_name
        ]
        with blame(node.place, node.who):
            require(size > 0, f"--batch-per-device {size}: at least 1 is needed", SolverError)
            require(
                own,
                "has no batch_size for --batch-per-device to set; a larger iter_size takes more "
                "images an update",
                SolverError,
            )
        own[0].batch_size = size
