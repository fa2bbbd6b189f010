"""Running a test net: the mean of its outputs, and segmentation metrics where it segments.

Caffe: ``Solver::Test``; metrics as Long et al. define them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from netspec.errors import SolverError, require
from netspec.layers.base import Labels
from netspec.module import Net
from netspec.segmentation.score import Metrics, confusion
from netspec.shapes import Shapes
from netspec.sources.feed import Feed, label_blobs


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


def evaluate(
    net: Net,
    feed: Feed,
    batches: int,
    stopped: Callable[[], bool] = lambda: False,
    seen: Callable[[int, str, np.ndarray], None] = lambda batch, name, value: None,
) -> Evaluation:
    """Run a net on the next ``batches`` batches of its data, or on fewer once ``stopped()``.

    seen: is told each output of each batch, flattened, but for scores that have labels. Raises
    SolverError, and what the data raises.
    """
    require(batches > 0, f"{batches} test batches; at least 1 is needed", SolverError)
    graph = net.graph
    pairs = score_pairs(net.shapes)
    weights = {
        graph.values[i].name: weight
        for i, weight in graph.losses
        if graph.values[i].name in graph.blobs
    }
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, np.ndarray] = {}
    loss = 0.0
    labels_read = [label for label, _ in pairs.values()]
    wanted = tuple(dict.fromkeys([*graph.outputs, *weights, *pairs, *labels_read]))
    done = 0
    while done < batches and not stopped():
        blobs = net.forward(feed.next(net.shapes), wanted)
        loss += sum(w * float(blobs[name].sum()) for name, w in weights.items())
        for name in graph.outputs:
            # Scores are pictures, not figures: their mean over a set says nothing.
            if name not in pairs:
                value = np.asarray(blobs[name], np.float64).ravel()
                _require_same_size(name, value, sums.get(name, value))
                sums[name] = sums[name] + value if name in sums else value
                seen(done, name, value)
        for score, (label, labels) in pairs.items():
            found = confusion(blobs[score], blobs[label], labels.classes, labels.ignore)
            counts[score] = counts[score] + found if score in counts else found
        done += 1
    means = max(done, 1)
    return Evaluation(
        outputs={name: total / means for name, total in sums.items()},
        weights={name: weights.get(name, 0.0) for name in sums},
        metrics={score: Metrics(found) for score, found in counts.items()},
        loss=loss / means,
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
