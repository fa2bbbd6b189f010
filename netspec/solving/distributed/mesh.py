"""The devices that share the batches of an update: which of them takes which batch.

Of ``iter_size`` times ``size`` batches an update, the devices take ``size`` at a time, one each,
and the gradients are summed: it is the update of one device whose ``iter_size`` is that much
larger. `sharding` places arrays on the devices, `peers` is where processes talk, and
`data_parallel_step` computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax

from netspec.errors import LayerError, SolverError, SourceError, blame, fail, require
from netspec.frontend.graph import Graph
from netspec.frontend.shapes import Shapes
from netspec.runtime.size_buckets import Given, as_shapes, given_of
from netspec.solving.distributed.data_parallel_step import DataParallelStep
from netspec.solving.distributed.peers import Peers
from netspec.solving.distributed.sharding import ArraySharding
from netspec.solving.step import Program
from netspec.sources.base import LayerSource
from netspec.sources.shard import Share

Feeds = Mapping[str, Any]


class PassFeed(NamedTuple):
    """What one pass of an update is fed.

    micro: which pass of the update. files: the files behind it. beside: the shapes of what the
    devices are fed at the same time, in their order; empty for one device.
    """

    micro: int
    feeds: Feeds
    files: str
    beside: Sequence[Given] = ()


class Mesh:
    """Devices that take steps together; one by default, whose steps are those of `Program`.

    size: how many devices. sharding: how arrays lie on them. peers: the processes of the run.
    """

    def __init__(
        self,
        devices: Sequence[jax.Device] = (),
        split: bool = False,
        peers: Peers | None = None,
        batch: int | None = None,
    ) -> None:
        """devices: those of all processes, process by process, as many of each.

        split: see `ArraySharding`. batch: images that a device takes at a time; None: as the data
        layers say.
        """
        self.peers = peers or Peers()
        self.sharding = ArraySharding(devices, split, self.peers.process)
        self.size = self.sharding.size
        self.batch = batch
        # What any process wanted when the last update was begun.
        self._wanted = {"stop": False, "snapshot": False}

    @property
    def first(self) -> bool:
        """Whether this is the process that talks and writes."""
        return self.peers.process == 0

    def prepare(self, graph: Graph) -> Graph:
        """Prepare the train net for the devices; raises SolverError where only one can train it."""
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
        """Raise SolverError for a net that carries state from batch to batch."""
        for each in shapes.nodes:
            with blame(each.node.place, each.node.who):
                require(
                    self.size == 1 or not each.carried,
                    f"remembers {', '.join(each.carried)} from one batch to the next, which only "
                    "one device can train with",
                    SolverError,
                )

    def share(self, source: LayerSource) -> LayerSource:
        """Restrict a source to the batches of this process's devices."""
        if self.peers.processes == 1:
            return source
        count = self.sharding.local_size
        return Share(source, self.peers.process * count, count, self.size)

    def micros(self, iter_size: int) -> list[int]:
        """The passes of an update that this process makes, by number."""
        count = self.sharding.local_size
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
        self, read: Callable[[int], PassFeed], iter_size: int, wanted: Mapping[str, bool]
    ) -> list[PassFeed]:
        """Read what this process's passes of an update are fed; an error of one ends all processes.

        read: reads what one pass is fed. wanted: whether this process wants a "stop", or a
        "snapshot". Raises LayerError and SourceError.
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
        """Whether it is time for a "stop" or a "snapshot"; wanted: whether this process wants it.

        All processes do so after the same update, once all know that one of them wants it.
        """
        return wanted if self.peers.processes == 1 else self._wanted[what]

    def program(self, *parts: Any) -> Program:
        """Make a step's program; parts: the fields of `Program`."""
        if self.size == 1:
            return Program(*parts)
        return DataParallelStep(*parts, sharding=self.sharding)

    def needed(self, saved: Callable[[], str]) -> AbstractContextManager[None]:
        """Take steps that need all processes: see `Peers.needed`."""
        return self.peers.needed(saved)

    @property
    def told(self) -> list[str]:
        """The lines that a run prints of its devices."""
        if self.size == 1:
            return []
        kind = self.sharding.mesh.devices.flat[0].device_kind
        where = f" of {self.peers.processes} processes" if self.peers.processes > 1 else ""
        parts = ", learned arrays in parts" if self.sharding.split else ""
        return [f"devices   {self.size} ({kind}){where}, a batch each{parts}"]

    def _beside(self, fed: list[PassFeed], shapes: Sequence[Sequence[Given]]) -> list[PassFeed]:
        """Add the shapes of what the devices are fed at the same time; shapes: by process."""
        if self.size == 1:
            return fed
        count = self.sharding.local_size
        turns = [
            [given for mine in shapes for given in mine[i : i + count]]
            for i in range(0, len(fed), count)
        ]
        return [each._replace(beside=turns[i // count]) for i, each in enumerate(fed)]


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
