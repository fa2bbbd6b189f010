"""Where the boxes of a drawing go: ranks from top to bottom, and lines that go around boxes.

In four steps, each a function: ranks (a linear programme), the order within each rank (sweeps of
barycentres), positions along the ranks (a linear programme), and lines.

Source: Gansner, Koutsofios, North, Vo: "A Technique for Drawing Directed Graphs", 1993. Differs:
lines that carry one value share a trunk, and boxes with several lines seek the middle of them.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

BOX_GAP = 30.0
LINE_GAP = 22.0
RANK_GAP = 38.0
SWEEPS = 24

# How much it matters that a piece of line is upright, by how many of its ends are bends, and what
# the ends of a faint line keep of it; how much, that a box with many lines stands in their middle.
_STRAIGHT = {0: 2.0, 1: 3.0, 2: 8.0}
_FAINT = 0.2
_MIDDLE = 2.5

# What it costs to stand a rank lower where nothing else decides.
_EARLY = 1e-3


class Point(NamedTuple):
    """A place in a drawing, in pixels from its top left corner."""

    x: float
    y: float


class Size(NamedTuple):
    """A box's extent in pixels."""

    width: float
    height: float


class Wire(NamedTuple):
    """A line to be drawn from the foot of box ``tail`` to the head of box ``head``.

    exit: where it leaves, in pixels from the middle of the foot. Wires with the same tail and exit
    carry the same value. faint: whether it matters little that the line is straight.
    """

    tail: int
    exit: float
    head: int
    faint: bool = False


class Route(NamedTuple):
    """The points that a wire passes.

    branch: it begins at the foot of a rank, on an earlier route of the same value.
    """

    wire: Wire
    points: tuple[Point, ...]
    branch: bool


@dataclass(frozen=True)
class Layout:
    """Where everything goes: the top left corner of every box, the lines, the whole extent.

    feet: how far down each rank reaches; there, every line that goes further is upright.
    """

    corners: tuple[Point, ...]
    routes: tuple[Route, ...]
    size: Size
    feet: tuple[float, ...]


def arrange(sizes: Sequence[Size], wires: Sequence[Wire]) -> Layout:
    """Place boxes so that wires run downwards; every wire's tail must come before its head."""
    if not sizes:
        return Layout((), (), Size(0, 0), ())
    net = _with_bends(sizes, wires, _ranks(len(sizes), wires))
    _order(net)
    across = _across(net)
    tops, heights = _down(net, across)
    corners = tuple(
        Point(
            across[i] - size.width / 2,
            tops[net.rank[i]] + (heights[net.rank[i]] - size.height) / 2,
        )
        for i, size in enumerate(sizes)
    )
    extent = Size(
        max(x + size.width / 2 for x, size in zip(across, net.sizes, strict=True)),
        tops[-1] + heights[-1],
    )
    feet = tuple(top + height for top, height in zip(tops, heights, strict=True))
    return Layout(corners, tuple(_routes(net, corners, across, tops, feet)), extent, feet)


# Per item, the items at the other ends of its segments, each with where it is met, as a share.
_Ends = list[list[tuple[int, float]]]


class _Segment(NamedTuple):
    """A piece of line from an item of one rank to an item of the next."""

    upper: int
    exit: float
    lower: int
    faint: bool


@dataclass
class _Net:
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
    segments: list[_Segment] = field(default_factory=list)

    def above(self, wire: Wire) -> tuple[int, float]:
        """The item that a wire comes from in the rank above its head, and its exit there."""
        passed = self.rank[wire.head] - self.rank[wire.tail] - 1
        if not passed:
            return wire.tail, wire.exit
        return self.trunks[wire.tail, wire.exit][passed - 1], 0.0

    def bends(self, segment: _Segment) -> int:
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
    solution = linprog(cost, _matrix(rows, len(cost)), bounds, method="highs-ds").x
    return [round(rank) for rank in solution[:boxes]]


def _with_bends(sizes: Sequence[Size], wires: Sequence[Wire], rank: list[int]) -> _Net:
    net = _Net(
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
            net.segments.append(_Segment(*start, bend, all(wire.faint for wire in passing)))
    net.segments.extend(_Segment(*net.above(wire), wire.head, wire.faint) for wire in net.wires)
    for item in _walk(net):
        net.rows[net.rank[item]].append(item)
    return net


def _walk(net: _Net) -> list[int]:
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


def _order(net: _Net) -> None:
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


def _crossings(net: _Net) -> int:
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


class _Wish(NamedTuple):
    """That ``sum(factor * x[item]) + constant`` be near 0, with a weight."""

    weight: float
    terms: tuple[tuple[int, float], ...]
    constant: float


def _across(net: _Net) -> list[float]:
    """The middle of every item, left to right, such that lines are straight where they can be."""
    wishes = [*_straight(net), *_middles(net)]
    items = len(net.rank)
    rows: list[list[tuple[int, float]]] = []
    bounds: list[float] = []
    for row in net.rows:
        for left, right in itertools.pairwise(row):
            rows.append([(left, 1.0), (right, -1.0)])
            bounds.append(-_distance(net, left, right))
    for i, wish in enumerate(wishes):
        for sign in (1.0, -1.0):
            terms = [(item, sign * factor) for item, factor in wish.terms]
            rows.append([*terms, (items + i, -1.0)])
            bounds.append(-sign * wish.constant)
    cost = np.array([0.0] * items + [wish.weight for wish in wishes])
    least = [size.width / 2 for size in net.sizes] + [0.0] * len(wishes)
    solution = linprog(
        cost, _matrix(rows, len(cost)), bounds, bounds=[(low, None) for low in least]
    ).x
    left_margin = min(solution[i] - net.sizes[i].width / 2 for i in range(items))
    return [float(x - left_margin) for x in solution[:items]]


def _distance(net: _Net, left: int, right: int) -> float:
    """How far apart the middles of two neighbours must be."""
    gap = BOX_GAP if max(left, right) < net.boxes else LINE_GAP
    return (net.sizes[left].width + net.sizes[right].width) / 2 + gap


def _straight(net: _Net) -> Iterator[_Wish]:
    """Every segment upright, long lines above all."""
    for segment in net.segments:
        bends = net.bends(segment)
        weight = _STRAIGHT[bends] * (_FAINT if segment.faint and bends < 2 else 1)
        yield _Wish(weight, ((segment.upper, 1.0), (segment.lower, -1.0)), segment.exit)


def _middles(net: _Net) -> Iterator[_Wish]:
    """Boxes in the middle of the lines that reach them, and of three or more that leave.

    Of two that leave, one had better be straight: the other is a branch.
    """
    heads: dict[int, list[_Segment]] = {}
    values: dict[tuple[int, float], list[_Segment]] = {}
    for segment in net.segments:
        heads.setdefault(segment.lower, []).append(segment)
        values.setdefault((segment.upper, segment.exit), []).append(segment)
    for head, into in heads.items():
        if len(into) > 2:
            share = 1 / len(into)
            terms = tuple((segment.upper, share) for segment in into)
            exits = sum(segment.exit for segment in into) * share
            yield _Wish(_MIDDLE, ((head, -1.0), *terms), exits)
    for (tail, exit), out in values.items():
        if len(out) > 2:
            terms = tuple((segment.lower, -1 / len(out)) for segment in out)
            yield _Wish(_MIDDLE, ((tail, 1.0), *terms), exit)


def _matrix(rows: Sequence[Sequence[tuple[int, float]]], columns: int) -> csr_array:
    entries = [(i, column, factor) for i, row in enumerate(rows) for column, factor in row]
    at, column, factor = zip(*entries, strict=True) if entries else ((), (), ())
    return csr_array((factor, (at, column)), shape=(len(rows), columns))


def _down(net: _Net, across: Sequence[float]) -> tuple[list[float], list[float]]:
    """Top and height of every rank; lines that go far sideways get more room to turn."""
    heights = [max(net.sizes[item].height for item in row) for row in net.rows]
    gaps = [RANK_GAP] * len(heights)
    for upper, exit, lower, _ in net.segments:
        rank, sideways = net.rank[upper], abs(across[upper] + exit - across[lower])
        gaps[rank] = max(gaps[rank], min(RANK_GAP + sideways / 12, 2.5 * RANK_GAP))
    tops, top = [], 0.0
    for height, gap in zip(heights, gaps, strict=True):
        tops.append(top)
        top += height + gap
    return tops, heights


def _routes(
    net: _Net,
    corners: Sequence[Point],
    across: Sequence[float],
    tops: Sequence[float],
    feet: Sequence[float],
) -> Iterator[Route]:
    """Each wire's points: from its tail, or from where a wire of the same value has gone before."""
    reached: dict[tuple[int, float], int] = {}
    for wire in sorted(net.wires, key=lambda wire: (wire.faint, -net.rank[wire.head])):
        value, rank = wire[:2], net.rank[wire.tail]
        passed = [wire.tail, *net.trunks[value][: net.rank[wire.head] - rank - 1]]
        branch = value in reached
        start = min(reached.get(value, 0), len(passed) - 1)
        reached[value] = max(reached.get(value, 0), len(passed) - 1)
        points: list[Point] = []
        for i, item in enumerate(passed[start:], start):
            x = across[item] + (0 if i else wire.exit)
            top, foot = tops[net.rank[item]], feet[net.rank[item]]
            if not i:
                top = min(corners[item].y + net.sizes[item].height, foot)
            if not branch or i > start:
                points.append(Point(x, top))
            points.append(Point(x, foot))
        x = across[wire.head]
        points += [Point(x, tops[net.rank[wire.head]]), Point(x, corners[wire.head].y)]
        yield Route(wire, tuple(dict.fromkeys(points)), branch)
