"""Nets on the data of their TEST phase: by themselves, or on the arrays of one in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from netspec.errors import SolverError, blame, require
from netspec.frontend.graph import Graph
from netspec.frontend.net_graph import read_graph
from netspec.layers.base import text
from netspec.runtime.module import Net
from netspec.runtime.size_buckets import Given, SizeBuckets, as_shapes
from netspec.solving.evaluation import Evaluation, evaluate
from netspec.solving.trainer import memory_lists, set_memory
from netspec.solving.updates import Tree
from netspec.sources.fed_net import compile_net, with_data
from netspec.sources.feed import Feed
from netspec.weights.caffemodel import Copied, Weights, copy_into, read_weights


class Tested(NamedTuple):
    """A net that is run on the data of its TEST phase, and what was copied into it."""

    net: Net
    feed: Feed
    copied: Copied | None


@contextmanager
def opened(net: str | Path, weights: str | Path | None) -> Iterator[Tested]:
    """A net file in phase TEST with its data, and with weights if a file of them is named.

    Raises SourceError where nothing feeds it, and what its parts raise.
    """
    with with_data(read_graph(net)) as (compiled, feed):
        copied = copy_into(compiled, read_weights(weights)) if weights else None
        yield Tested(compiled, feed, copied)


class TestNets:
    """Nets that are tested as they are needed, each with data of its own."""

    # pytest takes a class of this name for tests.
    __test__ = False

    def __init__(
        self,
        graphs: Sequence[Graph],
        train: Net,
        seed: int,
        say: Callable[[str], None] = lambda line: None,
        local: Callable[[Tree], Tree] = lambda arrays: arrays,
    ) -> None:
        """say: see `SizeBuckets`. local: arrays of the train net as a test net may use them."""
        self._local = local
        self._say = say
        self.graphs = list(graphs)
        self.train = train
        self.seed = seed
        self._weights: list[Weights] = []
        self._homes: dict[int, Given] = {}

    @cached_property
    def nets(self) -> list[Net]:
        """The nets; raises SourceError where data is missing."""
        feeds = zip(self.graphs, self.feeds, strict=True)
        nets = [compile_net(graph, feed.tops, self.seed) for graph, feed in feeds]
        for weights in self._weights:
            for net in nets:
                if self._lacking(net.graph, weights):
                    copy_into(net, weights, skip_misfits=True)
        return nets

    @cached_property
    def buckets(self) -> list[SizeBuckets]:
        """What puts the data of the test nets into arrays."""
        return [SizeBuckets(net, self._say, self._homes.get(i)) for i, net in enumerate(self.nets)]

    @cached_property
    def feeds(self) -> list[Feed]:
        """The data of the test nets; each goes on where its last test ended, as Caffe's does."""
        return [Feed(graph, self.seed) for graph in self.graphs]

    def load(self, weights: Weights) -> None:
        """Let those that are built from now on have what a file holds for layers of their own."""
        if any(self._lacking(graph, weights) for graph in self.graphs):
            self._weights.append(weights)

    def _lacking(self, graph: Graph, weights: Weights) -> bool:
        """Whether a file holds a layer of a test net that the train net lacks."""
        mine = {node.name for node in self.train.graph.nodes}
        theirs = {node.name for node in graph.nodes}
        return not (theirs - mine).isdisjoint(weights.learned)

    def check(self) -> None:
        """Raise now what the data of the first test would."""
        for net, feed in zip(self.nets, self.feeds, strict=True):
            feed.check(net.shapes)

    def run(self, index: int, batches: int, stopped: Callable[[], bool]) -> Evaluation:
        """Run one of them on its next batches, or fewer once ``stopped()``."""
        self._share_with(self.nets[index], self._local(self.train.arrays()))
        net, feed, buckets = self.nets[index], self.feeds[index], self.buckets[index]
        return evaluate(net, feed, batches, stopped, buckets=buckets)

    def share(self) -> None:
        """Give all that are built the trained arrays of now: each update replaces them."""
        nets = self.__dict__.get("nets", ())
        arrays = self._local(self.train.arrays()) if nets else {}
        for net in nets:
            self._share_with(net, arrays)

    def state(self) -> tuple[Mapping[str, Any], ...]:
        """Where those that are built stand: their data, memory, and size of a program's own."""
        if "nets" not in self.__dict__:
            return ()
        return tuple(
            {"data": feed.state(), "memory": memory_lists(net), "home": buckets.unpadded}
            for net, feed, buckets in zip(self.nets, self.feeds, self.buckets, strict=True)
        )

    def restore(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on where `state` was taken; nets that it does not know start anew.

        Raises SourceError, and WeightsError where a net has no such memory.
        """
        # A run may go on with more test nets than it had, or with fewer.
        for i, state in zip(range(len(self.graphs)), states, strict=False):
            self.feeds[i].restore(state["data"])
            if state["memory"]:
                set_memory(self.nets[i], state["memory"])
            if "home" in state:
                self._homes[i] = as_shapes(state["home"])
        self.__dict__.pop("frames", None)

    def close(self) -> None:
        """Stop the threads that read data."""
        for feed in self.__dict__.get("feeds", ()):
            feed.close()

    def _share_with(self, net: Net, arrays: Tree) -> None:
        """Give a net the trained arrays, by layer name, and the manner of their net.

        Caffe: ``ShareTrainedLayersWith``. Raises SolverError where shapes differ.
        """
        mine = {
            (each.node.name, blob): arrays[key]
            for each in self.train.shapes.nodes
            for blob, key in each.keys.items()
        }
        shared = {}
        for each in net.shapes.nodes:
            node = each.node
            for blob, key in each.keys.items():
                if (node.name, blob) not in mine:
                    continue
                array, shape = mine[node.name, blob], net.shapes.params[key].shape
                with blame(node.place, node.who):
                    require(
                        array.shape == shape,
                        f"its {blob} is {text(shape)} in the test net, {text(array.shape)} in the "
                        "train net",
                        SolverError,
                    )
                shared[key] = array
        net.assign(shared)
        net.policy = self.train.policy
