"""Runs nets on the data of their TEST phase: alone, or on the arrays of a net in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from netspec.errors import SolverError
from netspec.frontend.graph import Graph
from netspec.frontend.net_graph import read_graph
from netspec.runtime.module import Net
from netspec.runtime.size_buckets import Given, SizeBuckets, as_shapes
from netspec.solving.carried_state import carried_lists, set_carried
from netspec.solving.evaluation import Evaluation, evaluate
from netspec.solving.updates import Tree
from netspec.solving.weight_sharing import shared_arrays
from netspec.sources.fed_net import compile_net, with_data
from netspec.sources.feed import Feed
from netspec.weights.caffemodel import Copied, Weights, copy_into, read_weights


class Tested(NamedTuple):
    """A net with the data of its TEST phase, and what was copied into it."""

    net: Net
    feed: Feed
    copied: Copied | None


@contextmanager
def opened(net: str | Path, weights: str | Path | None) -> Iterator[Tested]:
    """Open a net file in phase TEST with its data, and with weights if a file of them is named.

    Raises SourceError where nothing feeds it, and other NetSpecErrors of its parts.
    """
    with with_data(read_graph(net)) as (compiled, feed):
        copied = copy_into(compiled, read_weights(weights)) if weights else None
        yield Tested(compiled, feed, copied)


class TestNets:
    """The test nets of a run: built when first needed, each with data of its own."""

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
        self.graphs = list(graphs)
        self.train = train
        self._seed = seed
        self._say = say
        self._local = local
        self._weights: list[Weights] = []
        self._homes: dict[int, Given] = {}
        self._feeds: list[Feed] | None = None
        self._starts: list[Mapping[str, Any]] = []
        self._nets: list[Net] | None = None
        self._buckets: list[SizeBuckets] | None = None
        # The iteration last tested at, and the positions of the test nets before that.
        self._tested: tuple[int, tuple[Mapping[str, Any], ...]] = (-1, ())

    @property
    def feeds(self) -> list[Feed]:
        """The data of the test nets; each goes on where its last test ended, as Caffe's does."""
        if self._feeds is None:
            self._feeds = [Feed(graph, self._seed) for graph in self.graphs]
            self._starts = [feed.state() for feed in self._feeds]
        return self._feeds

    @property
    def nets(self) -> list[Net]:
        """The nets; raises SourceError where data is missing."""
        if self._nets is None:
            feeds = zip(self.graphs, self.feeds, strict=True)
            nets = [compile_net(graph, feed.tops, self._seed) for graph, feed in feeds]
            for weights in self._weights:
                for net in nets:
                    if self._lacking(net.graph, weights):
                        copy_into(net, weights, skip_misfits=True)
            self._nets = nets
        return self._nets

    @property
    def buckets(self) -> list[SizeBuckets]:
        """The size buckets of each net's data."""
        if self._buckets is None:
            self._buckets = [
                SizeBuckets(net, self._say, self._homes.get(i)) for i, net in enumerate(self.nets)
            ]
        return self._buckets

    def load(self, weights: Weights) -> None:
        """Let nets that are built from now on have what a file holds for layers of their own."""
        if any(self._lacking(graph, weights) for graph in self.graphs):
            self._weights.append(weights)

    def check(self) -> None:
        """Raise now what the data of the first test would."""
        for net, feed in zip(self.nets, self.feeds, strict=True):
            feed.check(net.shapes)

    def run(self, index: int, batches: int, stopped: Callable[[], bool]) -> Evaluation:
        """Run a net on its next batches, or on fewer once ``stopped()``; on none if there are none.

        Caffe, too, tests on nothing where ``test_iter`` is 0.
        """
        if batches <= 0:
            return Evaluation()
        net = self.nets[index]
        self._share_with(net, self._local(self.train.arrays()))
        return evaluate(net, self.feeds[index], batches, stopped, buckets=self.buckets[index])

    def share(self) -> None:
        """Give the nets that are built the trained arrays of now: each update replaces them."""
        nets = self._nets or ()
        arrays = self._local(self.train.arrays()) if nets else {}
        for net in nets:
            self._share_with(net, arrays)

    def about_to_run(self, iteration: int) -> None:
        """Remember where the nets stand before the tests at ``iteration``."""
        self._tested = iteration, self.state()

    def state_at(self, iteration: int) -> tuple[Mapping[str, Any], ...]:
        """The state from which a run that is resumed at ``iteration`` goes on."""
        # It makes the tests at this iteration once more.
        return self._tested[1] if self._tested[0] == iteration else self.state()

    def state(self) -> tuple[Mapping[str, Any], ...]:
        """The position in its data, carried state and home size of each net, if they are built."""
        if self._nets is None:
            return ()
        return tuple(
            {"data": feed.state(), "memory": carried_lists(net), "home": buckets.unpadded}
            for net, feed, buckets in zip(self.nets, self.feeds, self.buckets, strict=True)
        )

    def forget_tests(self) -> None:
        """The run goes on from another iteration."""
        self._tested = (-1, ())

    def restore(self, states: Sequence[Mapping[str, Any]], seed: int) -> None:
        """Go on where `state` was taken, in a run of this seed; other nets start anew.

        Raises SourceError, and WeightsError where a net carries no such state.
        """
        self._seed = seed
        # A run may go on with more test nets than it had, or with fewer.
        for i, state in zip(range(len(self.graphs)), states, strict=False):
            self.feeds[i].restore(state["data"])
            if state["memory"]:
                set_carried(self.nets[i], state["memory"])
            if "home" in state:
                self._homes[i] = as_shapes(state["home"])
        for i in range(len(states), len(self._starts)):
            self.feeds[i].restore(self._starts[i])
            self._homes.pop(i, None)
        for net in (self._nets or ())[len(states) :]:
            carried = net.shapes.carried.items()
            net.assign({key: jnp.zeros(shape, jnp.float32) for key, shape in carried})
        self._buckets = None

    def close(self) -> None:
        """Stop the threads that read data."""
        for feed in self._feeds or ():
            feed.close()

    def _lacking(self, graph: Graph, weights: Weights) -> bool:
        """Whether a file holds a layer of a test net that the train net lacks."""
        mine = {node.name for node in self.train.graph.nodes}
        theirs = {node.name for node in graph.nodes}
        return not (theirs - mine).isdisjoint(weights.learned)

    def _share_with(self, net: Net, arrays: Tree) -> None:
        """Give a net the trained arrays, by layer name, and their net's compute policy.

        Raises SolverError where shapes differ.
        """
        pairs = shared_arrays(
            net.shapes, self.train.shapes, (" in the test net", " in the train net"), SolverError
        )
        net.assign({shared.mine: arrays[shared.theirs] for shared in pairs})
        net.policy = self.train.policy
