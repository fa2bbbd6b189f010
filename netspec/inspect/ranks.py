"""Ranks of a drawing: which boxes stand side by side, and in what order, so that few lines cross.

Ranks are a linear programme; the order within them comes from sweeps of barycentres. Source:
Gansner, Koutsofios, North, Vo: "A Technique for Drawing Directed Graphs", 1993.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from netspec.inspect.placement import Size, Wire

SWEEPS = 24

# What it costs to stand a rank lower where nothing else decides.
_EARLY = 1e-3

# Per item, the items at the other ends of its segments, each with where it is met, as a share.
_Ends = list[list[tuple[int, float]]]


class LinePiece(NamedTuple):
    """A piece of line from an item of one rank to an item of the next."""

    upper: int
    exit: float
    lower: int
    faint: bool


@dataclass
class RankedNet:
    """Boxes and the bends between them: an item is a box, or where a trunk passes through a rank.

    sizes, rank: per item, boxes first. rows: the items of each rank from left to right. trunks: per
    value (tail, exit), its bends from top to bottom.
    """

    boxes: int
    sizes: list[Size]
    rank: list[int]
    rows: list[list[int]]
    trunks: dict[tuple[int, float], list[int]]
    wires: tuple[Wire, ...]
    segments: list[LinePiece] = field(default_factory=list)

    def above(self, wire: Wire) -> tuple[int, float]:
        """The item that a wire comes from in the rank above its head, and its exit there."""
        passed = self.rank[wire.head] - self.rank[wire.tail] - 1
        if not passed:
            return wire.tail, wire.exit
        return self.trunks[wire.tail, wire.exit][passed - 1], 0.0

    def bends(self, segment: LinePiece) -> int:
        """How many of a segment's two ends are bends."""
        return sum(item >= self.boxes for item in (segment.upper, segment.lower))


def _ranks(boxes: int, wires: Sequence[Wire]) -> list[int]:
    """A rank for each box, below those of its tails, such that trunks are short altogether.

    Each value also has a rank: that of its lowest head. Such constraints have integer solutions.
    """
    values = {value: boxes + i for i, value in enumerate(dict.fromkeys(w[:2] for w in wires))}
    rows = [[(wire.tail, 1.0), (wire.head, -1.0)] for wire in wires]
    rows += [[(wire.head, 1.0), (values[wire[:2]], -1.0)] for wire in wires]
    bounds = [-1.0] * len(wires) + [0.0] * len(wires)
    cost = np.full(boxes + len(values), _EARLY)
    for (tail, _), value in values.items():
        cost[value] += 1
        cost[tail] -= 1
    solution = linprog(cost, matrix(rows, len(cost)), bounds, method="highs-ds").x
    return [round(rank) for rank in solution[:boxes]]


def rank_boxes(sizes: Sequence[Size], wires: Sequence[Wire]) -> RankedNet:
    """Rank boxes, break long wires into bends, one a rank, and order each rank."""
    net = _with_bends(sizes, wires, _ranks(len(sizes), wires))
    _order(net)
    return net


def _with_bends(sizes: Sequence[Size], wires: Sequence[Wire], rank: list[int]) -> RankedNet:
    net = RankedNet(
        boxes=len(sizes),
        sizes=list(sizes),
        rank=rank,
        rows=[[] for _ in range(max(rank) + 1)],
        trunks={},
        wires=tuple(dict.fromkeys(wires)),
    )
    for tail, exit in dict.fromkeys(wire[:2] for wire in wires):
        lowest = max(rank[wire.head] for wire in wires if wire[:2] == (tail, exit))
        trunk = [len(net.rank) + i for i in range(lowest - rank[tail] - 1)]
        net.trunks[tail, exit] = trunk
        net.rank.extend(range(rank[tail] + 1, lowest))
        net.sizes.extend(Size(0, 0) for _ in trunk)
        starts = [(tail, exit), *((bend, 0.0) for bend in trunk)]
        for start, bend in zip(starts, trunk, strict=False):
            passing = (w for w in wires if w[:2] == (tail, exit) and rank[w.head] > net.rank[bend])
            net.segments.append(LinePiece(*start, bend, all(wire.faint for wire in passing)))
    net.segments.extend(LinePiece(*net.above(wire), wire.head, wire.faint) for wire in net.wires)
    for item in _walk(net):
        net.rows[net.rank[item]].append(item)
    return net


def _walk(net: RankedNet) -> list[int]:
    """All items, depth first along the segments: a first order in which chains stay together."""
    lower: list[list[int]] = [[] for _ in net.rank]
    for segment in net.segments:
        lower[segment.upper].append(segment.lower)
    seen: dict[int, None] = {}
    for root in range(len(net.rank)):
        waiting = [root]
        while waiting:
            item = waiting.pop()
            if item not in seen:
                seen[item] = None
                waiting.extend(reversed(lower[item]))
    return list(seen)


def _order(net: RankedNet) -> None:
    """Sort each rank so that few lines cross: by the mean place of the items they lead to."""
    upper: _Ends = [[] for _ in net.rank]
    lower: _Ends = [[] for _ in net.rank]
    for segment in net.segments:
        share = segment.exit / max(net.sizes[segment.upper].width, 1)
        upper[segment.lower].append((segment.upper, share))
        lower[segment.upper].append((segment.lower, -share))
    best, rows = _crossings(net), [list(row) for row in net.rows]
    for sweep in range(SWEEPS):
        rows_in_turn, ends = (net.rows, upper) if sweep % 2 == 0 else (net.rows[::-1], lower)
        for fixed, free in itertools.pairwise(rows_in_turn):
            _sort_row(fixed, free, ends)
        _swap(net.rows, upper, lower)
        crossings = _crossings(net)
        if crossings < best:
            best, rows = crossings, [list(row) for row in net.rows]
        if not best:
            break
    net.rows = rows


def _sort_row(fixed: list[int], free: list[int], ends: _Ends) -> None:
    """Sort a rank by the places of its ends in the rank beside it; items without ends stay."""
    place = {item: i for i, item in enumerate(fixed)}

    def mean(item: int) -> float:
        return sum(place[end] + share for end, share in ends[item]) / len(ends[item])

    held = [i for i, item in enumerate(free) if ends[item]]
    for i, item in zip(held, sorted((free[i] for i in held), key=mean), strict=True):
        free[i] = item


def _swap(rows: list[list[int]], upper: _Ends, lower: _Ends) -> None:
    """Exchange neighbours in a rank wherever that saves crossings on both of its sides."""
    place = {item: i for row in rows for i, item in enumerate(row)}

    def crossings(left: int, right: int) -> int:
        return sum(
            place[a] + at_a > place[b] + at_b
            for ends in (upper, lower)
            for a, at_a in ends[left]
            for b, at_b in ends[right]
        )

    for row in rows:
        for i in range(len(row) - 1):
            left, right = row[i], row[i + 1]
            if crossings(right, left) < crossings(left, right):
                row[i], row[i + 1] = right, left
                place[left], place[right] = i + 1, i


def _crossings(net: RankedNet) -> int:
    """How many pairs of segments cross, counted rank by rank."""
    place = {item: i for row in net.rows for i, item in enumerate(row)}
    ranks: list[list[tuple[float, float, int]]] = [[] for _ in net.rows]
    for segment in net.segments:
        at = (place[segment.upper], segment.exit, place[segment.lower])
        ranks[net.rank[segment.upper]].append(at)
    total = 0
    for rank in ranks:
        passed: list[int] = []
        for *_, lower in sorted(rank):
            total += len(passed) - bisect.bisect_right(passed, lower)
            bisect.insort(passed, lower)
    return total


def matrix(rows: Sequence[Sequence[tuple[int, float]]], columns: int) -> csr_array:
    """A sparse matrix of rows of (column, factor)."""
    entries = [(i, column, factor) for i, row in enumerate(rows) for column, factor in row]
    at, column, factor = zip(*entries, strict=True) if entries else ((), (), ())
    return csr_array((factor, (at, column)), shape=(len(rows), columns))
