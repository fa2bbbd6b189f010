"""Running a test net: the mean of its outputs, and segmentation metrics where it segments.

Caffe: ``Solver::Test``; metrics as Long et al. define them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from netspec.errors import SolverError, require
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
    """What a test found.

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
    """The sums of a net's outputs and of its loss, over the batches whose blobs it is given."""

    def __init__(
        self, outputs: Sequence[str], weights: Mapping[str, float], seen: Seen | None
    ) -> None:
        self._outputs = outputs
        self._weights = weights
        self._seen = seen
        self._settled = 0
        self._waiting: list[tuple[Bucketed, dict[str, Array]]] = []
        self.sums: dict[str, np.ndarray] = {}
        self.loss = 0.0

    def add(self, batch: Bucketed, blobs: dict[str, Array]) -> None:
        """Take a batch's blobs, which may still be in the making."""
        self._waiting.append((batch, blobs))
        if self._seen is not None or len(self._waiting) == _UNDER_WAY:
            self.settle()

    def settle(self) -> None:
        """Wait for all batches given so far."""
        for batch, blobs in self._waiting:
            values = {name: batch.cut(name, np.asarray(blob)) for name, blob in blobs.items()}
            self.loss += sum(w * float(values[name].sum()) for name, w in self._weights.items())
            for name in self._outputs:
                value = values[name].astype(np.float64).ravel()
                _require_same_size(name, value, self.sums.get(name, value))
                self.sums[name] = self.sums[name] + value if name in self.sums else value
                if self._seen is not None:
                    self._seen(self._settled, name, value)
            self._settled += 1
        self._waiting.clear()


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
    pictures: blobs that ``keep`` is given after each batch, while ``feed`` still names what it was
    made of; their mean is not taken. Without either nothing waits for a single batch: pixels are
    counted on the device. frames: of the net, where they are not to be new ones. Raises
    SolverError, and what the data raises.
    """
    buckets = buckets or SizeBuckets(net)
    require(batches > 0, f"{batches} test batches; at least 1 is needed", SolverError)
    graph = net.graph
    pairs = score_pairs(net.shapes)
    weights = {
        graph.values[i].name: weight
        for i, weight in graph.losses
        if graph.values[i].name in graph.blobs
    }
    # Scores are pictures, not figures: their mean over a set says nothing.
    outputs = [name for name in graph.outputs if name not in pairs and name not in pictures]
    figures = _Figures(outputs, weights, seen)
    count = _Count(tuple((score, label, labels) for score, (label, labels) in pairs.items()))
    tallies = {score: Tally.empty(labels.classes) for score, (_, labels) in pairs.items()}
    wanted = tuple(dict.fromkeys([*outputs, *weights, *pictures]))
    done = 0
    while done < batches and not stopped():
        batch = buckets.bucket(feed.next(net.shapes))
        # Beyond an image there is no label, and nothing counts.
        blobs, tallies = net.fold_bucketed(batch, wanted, count, tallies)
        figures.add(batch, {name: blobs[name] for name in (*outputs, *weights)})
        if keep is not None:
            keep({name: batch.cut(name, np.asarray(blobs[name])) for name in pictures})
        done += 1
    figures.settle()
    means = max(done, 1)
    return Evaluation(
        outputs={name: total / means for name, total in figures.sums.items()},
        weights={name: weights.get(name, 0.0) for name in figures.sums},
        metrics={score: Metrics(tallies[score].confusion()) for score in pairs if done},
        loss=figures.loss / means,
        batches=done,
    )


def _require_same_size(name: str, value: np.ndarray, before: np.ndarray) -> None:
    require(
        value.size == before.size,
        f'output "{name}" has {value.size} numbers in one batch, {before.size} in those before; '
        "their mean means nothing",
        SolverError,
    )


def score_pairs(shapes: Shapes) -> Mapping[str, tuple[str, Labels]]:
    """Score blob (N, C, H, W) -> its label blob and what that allows, for each segmented pair."""
    pairs: dict[str, tuple[str, Labels]] = {}
    for node, labels, label in label_blobs(shapes):
        scores = shapes.graph.values[node.bottoms[labels.scores]].name
        shape = shapes.values[node.bottoms[labels.scores]]
        if len(shape) == 4 and shape[2] * shape[3] > 1 and shape[1] == labels.classes:
            pairs.setdefault(scores, (label, labels))
    return pairs


def class_names(shapes: Shapes, feed: Feed) -> dict[str, Sequence[str]]:
    """Score blob -> what its classes are called; nothing where that is not known of all of them."""
    known = feed.about.classes
    return {
        score: names if len(names) == labels.classes else ()
        for score, (label, labels) in score_pairs(shapes).items()
        for names in [known.get(label, ())]
    }
