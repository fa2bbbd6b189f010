"""Points, sizes and lines of a drawing, and where everything in it goes; all in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


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
class DrawingLayout:
    """Where everything goes: the top left corner of every box, the lines, the whole extent.

    feet: how far down each rank reaches; there, every line that goes further is upright.
    """

    corners: tuple[Point, ...]
    routes: tuple[Route, ...]
    size: Size
    feet: tuple[float, ...]
