"""The feed of a net: all its sources together, which make what it is fed at each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

from netspec.errors import DamagedDataError, SourceError, blame
from netspec.frontend.graph import Graph, Node
from netspec.frontend.shapes import Shapes
from netspec.layers.base import Shape
from netspec.layers.records import Labels
from netspec.sources.base import (
    About,
    Batch,
    LayerSource,
    Source,
    open_source,
    require_keys,
)
from netspec.sources.checks import check_labels
from netspec.sources.prefetch import Prefetch, cores
from netspec.sources.skip_corrupt import Skipping, step_over

# Each batch read ahead takes memory.
_MOST_AHEAD = 8


class _Seen(NamedTuple):
    """A batch that was checked but not yet handed out, and the state of `Feed` before it."""

    batch: Batch
    state: dict[str, Any]
    current: str
    sample: str


class Feed:
    """The opened sources of a net's data layers; each that may is read ahead in threads.

    Input layers are not part of it: the caller feeds those blobs.
    """

    def __init__(
        self,
        graph: Graph,
        seed: int | None = None,
        depth: int | None = None,
        skip_corrupt: bool = False,
        share: Callable[[LayerSource], LayerSource] = lambda source: source,
    ) -> None:
        """Open every data layer; raises SourceError.

        depth: batches read ahead by default: one a core, within limits. skip_corrupt: leave out
        batches of files that cannot be read, instead of stopping there. share: what is to be read
        of each source.
        """
        self.graph = graph
        self.sources: dict[str, Source] = {}
        self._skipping: dict[str, Skipping] = {}
        self._seen: _Seen | None = None
        try:
            for node in _data_layers(graph):
                source = open_source(
                    node.layer.spec, node.layer.phase, seed, node.place, read=not skip_corrupt
                )
                if skip_corrupt and source.parallel:
                    source = self._skipping[node.name] = Skipping(source)
                source = share(source)
                default = max(2, min(_MOST_AHEAD, cores())) if depth is None else depth
                ahead = default if source.read_ahead is None else source.read_ahead
                self.sources[node.name] = Prefetch(source, ahead) if ahead else source
        except BaseException:
            self.close()
            raise

    @property
    def tops(self) -> dict[str, Shape]:
        """Blob name -> shape, in the batch that `next` hands out next."""
        if self._seen is not None:
            return {name: array.shape for name, array in self._seen.batch.items()}
        self._step_over()
        return {name: shape for s in self.sources.values() for name, shape in s.tops.items()}

    @property
    def batches(self) -> int:
        """How many batches one pass over the largest source takes."""
        return max((source.batches for source in self.sources.values()), default=1)

    @property
    def skipped(self) -> int:
        """How many batches were left out, as something in them could not be read."""
        return sum(sum(source.skipped.values()) for source in self._skipping.values())

    @property
    def current(self) -> str:
        """The files behind the batch last handed out, for messages."""
        if self._seen is not None:
            return self._seen.current
        return ", ".join(filter(None, (source.current for source in self.sources.values())))

    @property
    def sample(self) -> str:
        """What the one sample last handed out is called; empty if there are several, or no name."""
        if self._seen is not None:
            return self._seen.sample
        return next(filter(None, (source.sample for source in self.sources.values())), "")

    @property
    def about(self) -> About:
        """What is known of the sets."""
        known = [source.about for source in self.sources.values()]
        classes = {top: names for each in known for top, names in each.classes.items()}
        return About(classes, next(filter(None, (each.results for each in known)), ""))

    def next(self, shapes: Shapes | None = None) -> Batch:
        """The next batch of every source, blob by blob; raises SourceError.

        shapes: of the net that takes the batch; labels outside its classes are refused.
        """
        batch = self._read() if self._seen is None else self._seen.batch
        self._seen = None
        if shapes is not None:
            self._check_labels(shapes, batch)
        return batch

    def check(self, shapes: Shapes) -> None:
        """Raise now what `next` would for its next batch, which it still hands out."""
        if self._seen is None:
            state, current, sample = self.state(), self.current, self.sample
            self._seen = _Seen(self._read(), state, current, sample)
        self._check_labels(shapes, self._seen.batch)

    def state(self) -> dict[str, Any]:
        """The state of every source, by layer name."""
        if self._seen is not None:
            return self._seen.state
        return {name: source.state() for name, source in self.sources.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``; raises SourceError if it is that of other data layers."""
        require_keys(state, self.sources)
        self._seen = None
        for name, source in self.sources.items():
            source.restore(state[name])

    def close(self) -> None:
        """Stop the threads."""
        for source in self.sources.values():
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> Batch:
        self._step_over()
        batch: Batch = {}
        for source in self.sources.values():
            batch.update(source.next())
        return batch

    def _step_over(self) -> None:
        """Leave out what cannot be read, where that is allowed."""
        for node in _data_layers(self.graph):
            if node.name in self._skipping:
                with blame(node.place, node.who):
                    step_over(self.sources[node.name])

    def _check_labels(self, shapes: Shapes, batch: Batch) -> None:
        for node, labels, name in label_blobs(shapes):
            if name in batch:
                with blame(node.place, node.who):
                    behind = self._source_of(name)
                    whose = (behind and behind.current) or f'blob "{name}"'
                    check_labels(batch[name], labels, whose, behind.files if behind else ())

    def _source_of(self, blob: str) -> Source | None:
        nodes = _data_layers(self.graph)
        return next((self.sources[n.name] for n in nodes if blob in n.layer.spec.top), None)


def label_blobs(shapes: Shapes) -> list[tuple[Node, Labels, str]]:
    """Each layer that reads class indices, what it allows, and the name of the blob it reads."""
    found = []
    for each in shapes.nodes:
        node, labels = each.node, each.node.layer.scoring(*each.bottoms).labels
        if labels is not None:
            found.append((node, labels, shapes.graph.values[node.bottoms[labels.bottom]].name))
    return found


def shapes_of_sources(
    graph: Graph, given: Mapping[str, Shape], missing_ok: bool = False, run_python: bool = True
) -> dict[str, Shape]:
    """``given``, and the shapes that data layers have in their first batch where it lacks them.

    missing_ok: pass over data that is not here, instead of raising SourceError; DamagedDataError is
    raised all the same. run_python: see `open_source`.
    """
    shapes = dict(given)
    for node in _data_layers(graph):
        if not node.layer.traits.states_shapes and not all(
            top in shapes for top in node.layer.spec.top
        ):
            layer, phase = node.layer.spec, node.layer.phase
            try:
                with open_source(layer, phase, 0, node.place, run_python=run_python) as source:
                    shapes = {**source.tops, **shapes}
            except DamagedDataError:
                raise
            except SourceError:
                if not missing_ok:
                    raise
    return shapes


def _data_layers(graph: Graph) -> list[Node]:
    return [node for node in graph.sources if not node.layer.traits.is_input]
