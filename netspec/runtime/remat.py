"""Rematerialisation: what a training step keeps for its backward pass, and how to keep less.

The backward pass takes the layers from last to first, and each layer's gradient needs residuals of
its forward pass. A net cut into segments keeps of most of them only what later ones read; all else
within is computed again when gradients come to it. Cuts are put where this takes the least memory,
as far as shapes tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from netspec.frontend.shapes import Shapes
from netspec.layers.base import count
from netspec.layers.numerics import Precision
from netspec.runtime.border_reuse import held_shapes
from netspec.runtime.owned import owned_cache

FLOAT_BYTES = 4
# How far above the least memory a net in segments may go, to compute less of it again.
_SLACK = 1.01
# Cuts are looked for at so many places at most, where the least crosses.
_PLACES = 250

Bytes = NDArray[np.int64]


@dataclass(frozen=True)
class Segment:
    """Layers in a row. rematerialised: whether the backward pass computes them again."""

    nodes: range
    rematerialised: bool


@dataclass(frozen=True, eq=False)
class Loads:
    """Bytes that a step holds at each layer, but for parameters and their history.

    before: the residuals of all layers before each one, and at the end of all layers. work: while
    gradients go through a layer: its own blobs' gradients, and those of the parameters from it on.
    crossing: for each cut, by layer: what that layer and those up to the cut make that is read
    after the cut.
    """

    before: Bytes
    work: Bytes
    crossing: tuple[Bytes, ...]

    def most(self, span: range) -> int:
        """What a segment takes when gradients go through it, beside the residuals before it."""
        held = self.before[span.start + 1 : span.stop + 1] - self.before[span.start]
        return int(np.max(held + self.work[span.start : span.stop], initial=0))

    def left(self, segment: Segment) -> int:
        """What is kept of a segment until gradients come to it."""
        a, b = segment.nodes.start, segment.nodes.stop
        crossing, all_of_it = self.crossing[b][a], self.before[b] - self.before[a]
        return int(crossing if segment.rematerialised else all_of_it)

    def peak(self, segments: Sequence[Segment]) -> int:
        """What the backward pass takes at most."""
        kept, most = 0, 0
        for segment in segments:
            most = max(most, kept + self.most(segment.nodes))
            kept += self.left(segment)
        return most


@owned_cache
def loads(shapes: Shapes, blob_bytes: int = FLOAT_BYTES) -> Loads:
    """The loads of a net's layers. blob_bytes: what a number of the blobs between layers takes."""
    graph = shapes.graph
    learned = [_learned(shapes, n) for n in range(len(graph.nodes))]
    carries = [any(each.wanted) or bool(p) for each, p in zip(shapes.nodes, learned, strict=True)]
    overwritten = {node.bottoms[slot] for node in graph.nodes for slot in node.in_place}
    sizes = [count(shape) for shape in held_shapes(shapes)]
    kept, own = [], []
    for n, node in enumerate(graph.nodes):
        needed = not node.layer.traits.is_source and (
            carries[n] or any(carries[m] for i in node.tops for m in graph.readers[i])
        )
        # Of what is overwritten in place, the residual is which elements passed: a byte each.
        mine = sum(sizes[i] * (1 if i in overwritten else blob_bytes) for i in node.tops)
        reads = sum(sizes[i] for i in node.bottoms)
        if carries[n] and node.layer.numerics.precision is Precision.FULL:
            mine += FLOAT_BYTES * reads
        kept.append(mine if needed else 0)
        diffs = sum(sizes[i] for i in node.tops)
        wanted = shapes.nodes[n].wanted
        diffs += sum(sizes[i] for i, want in zip(node.bottoms, wanted, strict=True) if want)
        # Products take arrays and weights in a layout of their own.
        moved = FLOAT_BYTES * (diffs + reads) + 2 * learned[n] if learned[n] else 0
        own.append(blob_bytes * diffs + moved if carries[n] else 0)
    gradients = np.cumsum(learned[::-1])[::-1]
    before = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    return Loads(before, np.array(own, np.int64) + gradients, _crossing(shapes, blob_bytes))


def _learned(shapes: Shapes, n: int) -> int:
    """The bytes of a layer's arrays that training changes; of shared ones, those of their owner."""
    each = shapes.nodes[n]
    return FLOAT_BYTES * sum(
        count(shapes.params[key].shape)
        for key in each.keys.values()
        if key.layer == each.layer
        and shapes.params[key].learned
        and shapes.param_specs[key].lr_mult
    )


def _crossing(shapes: Shapes, blob_bytes: int) -> tuple[Bytes, ...]:
    graph = shapes.graph
    # What the host feeds is there all the time.
    made = [
        (value.producer, readers[-1], blob_bytes * count(shape))
        for value, readers, shape in zip(
            graph.values, graph.readers, held_shapes(shapes), strict=True
        )
        if readers and not graph.nodes[value.producer].layer.traits.is_source
    ]
    producers, lasts, sizes = np.array(made, np.int64).reshape(-1, 3).T
    found = []
    for cut in range(len(graph.nodes) + 1):
        alive = np.where((producers < cut) & (lasts >= cut), sizes, 0)
        each = np.bincount(producers, alive, len(graph.nodes)).astype(np.int64)
        found.append(np.cumsum(each[::-1])[::-1])
    return tuple(found)


@owned_cache
def segments(shapes: Shapes, blob_bytes: int = FLOAT_BYTES) -> tuple[Segment, ...]:
    """The segments of a net in order, each layer in one of them. blob_bytes: see `loads`."""
    found = loads(shapes, blob_bytes)
    cuts = _cuts(found)
    spans = [range(a, b) for a, b in zip([0, *cuts], [*cuts, len(found.work)], strict=True)]
    # Gradients begin in the last one: all of it is still there.
    redo = [
        not any(shapes.graph.nodes[n].layer.traits.on_host for n in span) and span is not spans[-1]
        for span in spans
    ]

    def made() -> tuple[Segment, ...]:
        return tuple(map(Segment, spans, redo))

    room = _SLACK * found.peak(made())
    for i in sorted(range(len(spans)), key=lambda i: found.left(Segment(spans[i], False))):
        before, redo[i] = redo[i], False
        if found.peak(made()) > room:
            redo[i] = before
    return made()


def _cuts(loads: Loads) -> list[int]:
    """The layers before which to cut: for the least peak, then for the least across the cuts."""
    nodes = len(loads.work)
    inner = sorted(range(1, nodes), key=lambda cut: int(loads.crossing[cut][0]))[:_PLACES]
    places = np.array([0, *sorted(inner), nodes])
    # most[j][i]: what a segment from place i to place j takes.
    most = []
    for b in places:
        ends = np.maximum.accumulate((loads.before[1 : b + 1] + loads.work[:b])[::-1])[::-1]
        most.append(np.array([ends[a] - loads.before[a] for a in places[places < b]], np.int64))
    low, high = 0, loads.peak([Segment(range(nodes), False)])
    best = list[int]()
    # To a percent of the peak.
    for _ in range(7):
        limit = (low + high) // 2
        found = _within(loads, places, most, limit)
        if found is None:
            low = limit
        else:
            high, best = limit, found
    return best


def _within(loads: Loads, places: Bytes, most: Sequence[Bytes], limit: int) -> list[int] | None:
    """The cuts within a limit of memory that the least crosses; None if there are none."""
    never = np.iinfo(np.int64).max
    costs, froms = np.full(len(places), never), [0] * len(places)
    costs[0] = 0
    for j in range(1, len(places)):
        so_far = costs[:j]
        # What cannot be reached costs more than any limit.
        fits = (so_far <= limit) & (most[j] <= limit - np.minimum(so_far, limit))
        cost = np.where(fits, so_far + loads.crossing[places[j]][places[:j]], never)
        froms[j] = int(np.argmin(cost))
        costs[j] = cost[froms[j]]
    if costs[-1] == never:
        return None
    cuts, j = list[int](), froms[-1]
    while j:
        cuts.append(int(places[j]))
        j = froms[j]
    return cuts[::-1]


def rematerialised(
    compute: Callable[[Any, Any], tuple[Any, Any]],
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """A function whose only residuals are its arguments: its gradient computes all else again.

    compute: (arrays, weights) -> (arrays, others), pytrees; gradients go through the former alone.
    """

    @jax.custom_vjp
    def once(arrays: Any, weights: Any) -> tuple[Any, Any]:
        return compute(arrays, weights)

    def forward(arrays: Any, weights: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        return compute(arrays, weights), (arrays, weights)

    def backward(residuals: tuple[Any, Any], diffs: tuple[Any, Any]) -> tuple[Any, Any]:
        arrays, diff = _ordered(residuals[0], diffs[0])
        back = jax.vjp(lambda *args: compute(*args)[0], arrays, residuals[1])[1]
        return back(diff)

    once.defvjp(forward, backward)
    return once


def _ordered(arrays: Any, diffs: Any) -> tuple[Any, Any]:
    """The same, the arrays only once the gradients are there.

    Without this XLA takes the second computation for the first, and keeps the arrays instead.
    """
    arrays, diffs = lax.optimization_barrier((arrays, diffs))
    if jax.default_backend() == "cpu":
        # XLA drops barriers early there. It can't drop a zero that it does not know to be one.
        leaves = [diff for diff in jax.tree.leaves(diffs) if diff.size]
        some = jnp.asarray(sum(diff.ravel()[0].astype(jnp.float32) for diff in leaves))
        # A gradient that is NaN must not spread to arrays that a layer would keep from it.
        zero = jnp.minimum(jnp.abs(jnp.where(some == some, some, 0.0)), 0.0)
        arrays = jax.tree.map(lambda array: array + zero.astype(array.dtype), arrays)
    return arrays, diffs
