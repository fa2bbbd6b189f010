"""Fold a tall drawing into columns, as in a newspaper, where few lines pass from one to the next.

A line that continues in the next column runs up through the gutter between them; lines keep their
order and do not cross there.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netspec.inspect.placement import DrawingLayout, Point, Route, Size

GUTTER = 36.0
LANE = 12.0
MOST_LINES = 3

# How much shorter or longer a column may be, as a share, to save a line through the gutter.
_LINE_COST = 0.2


def fold(layout: DrawingLayout, sizes: Sequence[Size]) -> DrawingLayout:
    """The layout in as many columns as make it about as wide as tall; ``sizes`` are the boxes'."""
    cuts = _cuts(layout)
    if not cuts:
        return layout
    columns = _columns(layout, sizes, cuts)

    corners = tuple(_moved(corner, columns) for corner in layout.corners)
    routes = tuple(
        route._replace(points=tuple(_continued(route, columns))) for route in layout.routes
    )
    placed = [Point(c.x + s.width, c.y + s.height) for c, s in zip(corners, sizes, strict=True)]
    placed += itertools.chain.from_iterable(route.points for route in routes)
    size = Size(max(point.x for point in placed), max(point.y for point in placed))
    return DrawingLayout(corners, routes, size, ())


@dataclass(frozen=True)
class _Column:
    """A stretch of the drawing down to ``foot``, and how far it moves ``right`` and ``down``.

    passing: where lines go on to the next column, from left to right. edge: its right end, moved.
    """

    foot: float
    passing: tuple[float, ...]
    edge: float
    right: float
    down: float


def _cuts(layout: DrawingLayout) -> list[float]:
    """The feet of ranks after which new columns begin."""
    wanted = round(math.sqrt(layout.size.height / max(layout.size.width, 1)))
    lines = {foot: len(_passing(layout, foot)) for foot in layout.feet[:-1]}
    allowed = [foot for foot in lines if 0 < lines[foot] <= MOST_LINES]
    if not allowed:
        return []
    height = layout.size.height / max(wanted, 1)

    def cost(foot: float, mark: float) -> float:
        return abs(foot - mark) / height + _LINE_COST * lines[foot]

    marks = [height * i for i in range(1, wanted)]
    return sorted({min(allowed, key=lambda foot: cost(foot, mark)) for mark in marks})


def _passing(layout: DrawingLayout, foot: float) -> tuple[float, ...]:
    """Where lines pass the foot of a rank."""
    return tuple(
        sorted(
            {
                start.x
                for route in layout.routes
                for start, end in itertools.pairwise(route.points)
                if start.y <= foot < end.y
            }
        )
    )


def _columns(layout: DrawingLayout, sizes: Sequence[Size], cuts: Sequence[float]) -> list[_Column]:
    columns: list[_Column] = []
    for top, foot in itertools.pairwise([-math.inf, *cuts, math.inf]):
        spans = [
            (corner.x, corner.x + size.width)
            for corner, size in zip(layout.corners, sizes, strict=True)
            if top < corner.y < foot
        ]
        spans += [
            (point.x, point.x)
            for route in layout.routes
            for point in route.points
            if top < point.y <= foot
        ]
        left, down = 0.0, 0.0
        if columns:
            lanes = len(columns[-1].passing)
            left = columns[-1].edge + 2 * GUTTER + LANE * (lanes - 1)
            down = LANE * lanes - top
        right = left - min(span[0] for span in spans)
        edge = right + max(span[1] for span in spans)
        columns.append(_Column(foot, _passing(layout, foot), edge, right, down))
    return columns


def _moved(point: Point, columns: Sequence[_Column]) -> Point:
    column = columns[_column_of(point, columns)]
    return Point(point.x + column.right, point.y + column.down)


def _column_of(point: Point, columns: Sequence[_Column]) -> int:
    """Which column a point lies in; a foot belongs to the column above it."""
    return bisect.bisect_left([column.foot for column in columns], point.y)


def _continued(route: Route, columns: Sequence[_Column]) -> Iterator[Point]:
    """A line's points, moved with their columns, and its turns from one column to the next.

    A branch that begins at the foot of a column begins at the head of the next.
    """
    if not route.branch or len({_column_of(point, columns) for point in route.points[:2]}) == 1:
        yield _moved(route.points[0], columns)
    for start, end in itertools.pairwise(route.points):
        at = _column_of(start, columns)
        if _column_of(end, columns) > at:
            turn = _turn(start.x, columns[at], columns[at + 1])
            yield from turn[-1:] if route.branch and start == route.points[0] else turn
        yield _moved(end, columns)


def _turn(x: float, column: _Column, after: _Column) -> list[Point]:
    """Down from the foot of a column, up through the gutter, and down to the head of the next.

    What is further left turns deeper and goes up further right, so lines do not cross.
    """
    order = column.passing.index(x)
    lanes = len(column.passing) - order
    bottom = column.foot + column.down + LANE * lanes
    lane = column.edge + GUTTER + LANE * (lanes - 1)
    top = LANE * (lanes - 1)
    head = LANE * len(column.passing)
    return [
        Point(x + column.right, bottom),
        Point(lane, bottom),
        Point(lane, top),
        Point(x + after.right, top),
        Point(x + after.right, head),
    ]
