"""Place the boxes of a drawing in ranks from top to bottom, and lead lines around boxes.

In four steps: ranks and the order within each (`ranks`), positions along the ranks (a linear
programme), and lines.

Source: Gansner, Koutsofios, North, Vo: "A Technique for Drawing Directed Graphs", 1993. Differs:
lines that carry one value share a trunk, and boxes with several lines seek the middle of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from netspec.inspect.placement import DrawingLayout, Point, Route, Size, Wire
from netspec.inspect.ranks import LinePiece, RankedNet, matrix, rank_boxes

BOX_GAP = 30.0
LINE_GAP = 22.0
RANK_GAP = 38.0

# How much it matters that a piece of line is upright, by how many of its ends are bends, and what
# the ends of a faint line keep of it; how much, that a box with many lines stands in their middle.
_STRAIGHT = {0: 2.0, 1: 3.0, 2: 8.0}
_FAINT = 0.2
_MIDDLE = 2.5


def arrange(sizes: Sequence[Size], wires: Sequence[Wire]) -> DrawingLayout:
    """Place boxes so that wires run downwards; every wire's tail must come before its head."""
    if not sizes:
        return DrawingLayout((), (), Size(0, 0), ())
    net = rank_boxes(sizes, wires)
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
    return DrawingLayout(corners, tuple(_routes(net, corners, across, tops, feet)), extent, feet)


class _Wish(NamedTuple):
    """That ``sum(factor * x[item]) + constant`` be near 0, with a weight."""

    weight: float
    terms: tuple[tuple[int, float], ...]
    constant: float


def _across(net: RankedNet) -> list[float]:
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
        cost, matrix(rows, len(cost)), bounds, bounds=[(low, None) for low in least]
    ).x
    left_margin = min(solution[i] - net.sizes[i].width / 2 for i in range(items))
    return [float(x - left_margin) for x in solution[:items]]


def _distance(net: RankedNet, left: int, right: int) -> float:
    """How far apart the middles of two neighbours must be."""
    gap = BOX_GAP if max(left, right) < net.boxes else LINE_GAP
    return (net.sizes[left].width + net.sizes[right].width) / 2 + gap


def _straight(net: RankedNet) -> Iterator[_Wish]:
    """Every segment upright, long lines above all."""
    for segment in net.segments:
        bends = net.bends(segment)
        weight = _STRAIGHT[bends] * (_FAINT if segment.faint and bends < 2 else 1)
        yield _Wish(weight, ((segment.upper, 1.0), (segment.lower, -1.0)), segment.exit)


def _middles(net: RankedNet) -> Iterator[_Wish]:
    """Boxes in the middle of the lines that reach them, and of three or more that leave.

    Of two that leave, one had better be straight: the other is a branch.
    """
    heads: dict[int, list[LinePiece]] = {}
    values: dict[tuple[int, float], list[LinePiece]] = {}
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


def _down(net: RankedNet, across: Sequence[float]) -> tuple[list[float], list[float]]:
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
    net: RankedNet,
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
