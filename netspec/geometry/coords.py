"""Coordinate maps between blobs, composed by walking the layers between them.

Every layer says how its output pixels sit on its input pixels (`Layer.coords`); along a path these
affine maps compose. Two blobs are related through the nearest blobs that both come from.

Caffe: ``python/caffe/coord_map.py``. Differs: paths that disagree are an error, where Caffe takes
whichever it walks last.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple, NoReturn

from netspec.errors import GraphError, Place, blame
from netspec.frontend.graph import Graph, Node
from netspec.layers.coord_map import CoordMap

Axes = tuple[Fraction, ...]  # one number for each spatial axis


class Placement(NamedTuple):
    """Pixel ``p`` of one blob sits at ``scale * p + shift`` of another, axis by axis."""

    scale: Axes
    shift: Axes

    def __str__(self) -> str:
        return f"scale {axes_text(self.scale)}, shift {axes_text(self.shift)}"


def placement(graph: Graph, blob: str | int, reference: str | int, rank: int = 2) -> Placement:
    """Where the pixels of ``blob`` sit on those of ``reference``.

    blob, reference: a blob's name (its last value) or the index of a value of the graph.
    rank: how many spatial axes they have. Raises GraphError if no common ancestor relates them, or
    if several paths relate them differently.
    """
    of, on = _value(graph, blob), _value(graph, reference)
    theirs = walk(graph, on, rank)
    mine = walk(graph, of, rank, until=theirs.found)
    ways: dict[Placement, str] = {}
    for value in mine.found.keys() & theirs.found.keys():
        for a in mine.found[value]:
            for b in theirs.found[value]:
                ways.setdefault(_relate(a, b), graph.values[value].name)
    names = f'"{graph.values[of].name}" and "{graph.values[on].name}"'
    if not ways:
        blocks = dict.fromkeys((*mine.blocks, *theirs.blocks))
        _fail(graph, f"{names} have no common ancestor that coordinates reach{_text_of(blocks)}")
    if len(ways) > 1:
        listing = "; ".join(f'{way} by way of "{name}"' for way, name in sorted(ways.items()))
        _fail(
            graph,
            f"{names} are related by paths that do not align: {listing}; "
            "change a pad or kernel on one of the paths",
        )
    return next(iter(ways))


def crop_offset(
    graph: Graph, blob: str | int, reference: str | int, rank: int = 2
) -> tuple[int, ...]:
    """The offsets at which a Crop of ``blob`` to ``reference`` puts pixels on their own place.

    One offset for each of the ``rank`` spatial axes, in pixels of ``blob``. Raises GraphError if
    the blobs' scales differ, or an offset is negative or no whole number.
    """
    of, on = _value(graph, blob), _value(graph, reference)
    scale, shift = placement(graph, of, on, rank)
    offset = tuple(-s for s in shift)
    what = f'cannot crop "{graph.values[of].name}" to "{graph.values[on].name}"'
    if any(s != 1 for s in scale):
        _fail(
            graph,
            f"{what}: scales differ, one pixel of the first is {axes_text(scale)} of the second; "
            "the strides on the way to each must multiply to the same",
        )
    if any(o.denominator != 1 for o in offset):
        _fail(
            graph,
            f"{what}: offset {axes_text(offset)} is no whole number of pixels; "
            "change a pad or kernel by one",
        )
    if any(o < 0 for o in offset):
        _fail(
            graph,
            f"{what}: offset {axes_text(offset)} is negative, the first begins inside the second; "
            "pad an early layer more",
        )
    return tuple(map(int, offset))


@dataclass
class Walk:
    """The result of a walk up from a value.

    found: per value, how the first one sits on it, by each path that differs. blocks: the layers
    that have no map.
    """

    found: dict[int, set[Placement]]
    blocks: list[Node] = field(default_factory=list)


def walk(graph: Graph, value: int, rank: int, until: Collection[int] = ()) -> Walk:
    """Walk up to everything that ``value`` comes from; stop at values in ``until``.

    A value is numbered after all that it comes from, so counting down meets each one when all
    paths to it are known.
    """
    walked = Walk({value: {Placement((Fraction(1),) * rank, (Fraction(0),) * rank)}})
    for current in range(value, -1, -1):
        if current not in walked.found or current in until:
            continue
        node = graph.nodes[graph.values[current].producer]
        if not node.bottoms:
            continue
        across = step(node, rank)
        if across is None:
            walked.blocks.append(node)
            continue
        further = {
            Placement(_times(across.scale, place.scale), _apply(across, place.shift))
            for place in walked.found[current]
        }
        for bottom in mapped(node, graph.values[current].slot):
            walked.found.setdefault(bottom, set()).update(further)
    return walked


def mapped(node: Node, slot: int) -> tuple[int, ...]:
    """The bottoms on which the layer's map places its top number ``slot``."""
    if node.layer.arity.tops_as_bottoms:
        return (node.bottoms[slot],)
    shape_only = node.layer.bottom_use.shape_only
    return tuple(bottom for i, bottom in enumerate(node.bottoms) if i not in shape_only)


def step(node: Node, rank: int) -> CoordMap | None:
    """The map of one layer over exactly the spatial axes, those from blob axis 2 on."""
    with blame(node.place, node.who):
        given = node.layer.coords(rank)
    if given is None:
        return None
    scale, shift, extent = (list(numbers) for numbers in CoordMap.identity(rank)[1:])
    for i, numbers in enumerate(zip(given.scale, given.shift, given.extent, strict=True)):
        axis = given.axis - 2 + i
        if 0 <= axis < rank:
            scale[axis], shift[axis], extent[axis] = numbers
    return CoordMap(2, tuple(scale), tuple(shift), tuple(extent))


def _times(a: Axes, b: Axes) -> Axes:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _apply(step: CoordMap, position: Axes) -> Axes:
    return tuple(a * x + b for a, b, x in zip(step.scale, step.shift, position, strict=True))


def _relate(a: Placement, b: Placement) -> Placement:
    """How one blob sits on another, from how both sit on a third."""
    axes = list(zip(a.scale, a.shift, b.scale, b.shift, strict=True))
    return Placement(
        tuple(mine / theirs for mine, _, theirs, _ in axes),
        tuple((here - there) / theirs for _, here, theirs, there in axes),
    )


def _fail(graph: Graph, message: str) -> NoReturn:
    raise GraphError(message, Place(graph.file) if graph.file else None)


def _value(graph: Graph, blob: str | int) -> int:
    return graph.blob(blob) if isinstance(blob, str) else blob


def _text_of(blocks: Collection[Node]) -> str:
    """``; layer "ip" (InnerProduct) keeps none``, for the layers that ended a walk."""
    names = ", ".join(node.who for node in blocks)
    return f"; {names} keep{'s' if len(blocks) == 1 else ''} none" if names else ""


def axes_text(numbers: Axes) -> str:
    """One number for all axes if they agree, else one for each: ``3/2`` or ``1 x 2``."""
    return str(numbers[0]) if len(set(numbers)) == 1 else " x ".join(map(str, numbers))
