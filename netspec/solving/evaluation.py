"""Runs a test net: the mean of its outputs, and segmentation metrics where it segments.

Caffe: ``Solver::Test``; metrics as Long et al. define them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from netspec.errors import SolverError, require
from netspec.frontend.graph import Graph
from netspec.frontend.shapes import Shapes
from netspec.layers.base import Array
from netspec.layers.records import Labels
from netspec.runtime.masked_shapes import Bucketed
from netspec.runtime.module import Net
from netspec.runtime.size_buckets import SizeBuckets
from netspec.segmentation.score import Metrics, Tally
from netspec.sources.feed import Feed, label_blobs

# So many batches may be under way before the host waits for what they make: each holds its data.
_UNDER_WAY = 16

# Is told of an output of a batch: the batch's number, the output's name, its values, flattened.
Seen = Callable[[int, str, np.ndarray], None]


@dataclass
class Evaluation:
    """The result of a test.

    outputs: blob name -> mean over the batches, flattened. weights: loss weight of each output.
    metrics: score blob -> segmentation metrics, for scores (N, C, H, W) that have labels.
    loss: the mean total loss. batches: how many were run.
    """

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Metrics] = field(default_factory=dict)
    loss: float = 0.0
    batches: int = 0


@dataclass(frozen=True)
class _Count:
    """Adds a batch to the tally of each score blob, inside the net's program."""

    pairs: tuple[tuple[str, str, Labels], ...]

    def __call__(self, tallies: dict[str, Tally], blob: Callable[[str], Array]) -> dict[str, Tally]:
        return {
            score: tallies[score].add(blob(score), blob(label), labels.ignore)
            for score, label, labels in self.pairs
        }


class _Figures:
    """The sums of a net's outputs and of its loss over batches; blobs: which it takes of each."""

    def __init__(
        self, outputs: Sequence[str], weights: Mapping[str, float], seen: Seen | None
    ) -> None:
        self._outputs = outputs
        self._weights = weights
        self._seen = seen
        self._settled = 0
        self._waiting: list[tuple[Bucketed, dict[str, Array]]] = []
        self._sums: dict[str, np.ndarray] = {}
        self._loss = 0.0
        self.blobs = tuple(dict.fromkeys([*outputs, *weights]))

    def add(self, batch: Bucketed, blobs: dict[str, Array]) -> None:
        """Take a batch's blobs, which may still be computed on the device."""
        self._waiting.append((batch, blobs))
        if self._seen is not None or len(self._waiting) == _UNDER_WAY:
            self.settle()

    def settle(self) -> None:
        """Wait for all batches given so far."""
        for batch, blobs in self._waiting:
            values = {name: batch.cut(name, np.asarray(blob)) for name, blob in blobs.items()}
            self._loss += sum(w * float(values[name].sum()) for name, w in self._weights.items())
            for name in self._outputs:
                value = values[name].astype(np.float64).ravel()
                _require_same_size(name, value, self._sums.get(name, value))
                self._sums[name] = self._sums[name] + value if name in self._sums else value
                if self._seen is not None:
                    self._seen(self._settled, name, value)
            self._settled += 1
        self._waiting.clear()

    def evaluation(self, batches: int, metrics: dict[str, Metrics]) -> Evaluation:
        """The means over all batches, once they are there."""
        self.settle()
        means = max(batches, 1)
        return Evaluation(
            outputs={name: total / means for name, total in self._sums.items()},
            weights={name: self._weights.get(name, 0.0) for name in self._sums},
            metrics=metrics,
            loss=self._loss / means,
            batches=batches,
        )


def evaluate(
    net: Net,
    feed: Feed,
    batches: int,
    stopped: Callable[[], bool] = lambda: False,
    seen: Seen | None = None,
    pictures: Sequence[str] = (),
    keep: Callable[[Mapping[str, np.ndarray]], None] | None = None,
    buckets: SizeBuckets | None = None,
) -> Evaluation:
    """Run a net on the next ``batches`` batches of its data, or on fewer once ``stopped()``.

    seen: is told each output of each batch: the batch's number, the output's name and its values.
    pictures: blobs that ``keep`` is given after each batch, while ``feed`` still names the files
    behind it; their mean is not taken. Without either nothing waits for a single batch: pixels are
    counted on the device. buckets: of the net, where they exist. Raises SolverError, and what the
    data raises.
    """
    require(batches > 0, f"{batches} test batches; at least 1 is needed", SolverError)
    buckets = buckets or SizeBuckets(net)
    pairs = score_pairs(net.shapes)
    # Scores are pictures, not figures: their mean over a set says nothing.
    outputs = [name for name in net.graph.outputs if name not in pairs and name not in pictures]
    figures = _Figures(outputs, _loss_weights(net.graph), seen)
    count = _Count(tuple((score, label, labels) for score, (label, labels) in pairs.items()))
    tallies = {score: Tally.empty(labels.classes) for score, (_, labels) in pairs.items()}
    done = 0
    while done < batches and not stopped():
        batch = buckets.bucket(feed.next(net.shapes))
        # Outside the valid region labels are -1, which no tally counts.
        blobs, tallies = net.fold_bucketed(batch, (*figures.blobs, *pictures), count, tallies)
        figures.add(batch, {name: blobs[name] for name in figures.blobs})
        if keep is not None:
            keep({name: batch.cut(name, np.asarray(blobs[name])) for name in pictures})
        done += 1
    metrics = {score: Metrics(tallies[score].confusion()) for score in pairs if done}
    return figures.evaluation(done, metrics)


def _loss_weights(graph: Graph) -> dict[str, float]:
    """Blob name -> its weight in the loss, of the blobs that still exist at the end of a pass."""
    named = {graph.values[i].name: weight for i, weight in graph.losses}
    return {name: weight for name, weight in named.items() if name in graph.blobs}


def _require_same_size(name: str, value: np.ndarray, before: np.ndarray) -> None:
    require(
        value.size == before.size,
        f'output "{name}" has {value.size} numbers in one batch, {before.size} in those before; '
        "their mean means nothing",
        SolverError,
    )


def score_pairs(shapes: Shapes) -> Mapping[str, tuple[str, Labels]]:
    """Score blob (N, C, H, W) -> its label blob and what that allows, for each pair to score."""
    pairs: dict[str, tuple[str, Labels]] = {}
    for node, labels, label in label_blobs(shapes):
        scores = shapes.graph.values[node.bottoms[labels.scores]].name
        shape = shapes.values[node.bottoms[labels.scores]]
        if len(shape) == 4 and shape[2] * shape[3] > 1 and shape[1] == labels.classes:
            pairs.setdefault(scores, (label, labels))
    return pairs


def class_names(shapes: Shapes, feed: Feed) -> dict[str, Sequence[str]]:
    """Score blob -> the names of its classes; empty unless all are known."""
    known = feed.about.classes
    return {
        score: names if len(names) == labels.classes else ()
        for score, (label, labels) in score_pairs(shapes).items()
        for names in [known.get(label, ())]
    }
