"""Coordinate maps between blobs, composed by walking the layers between them.

Every layer says how its output pixels sit on its input pixels (`Layer.coords`); along a path these
affine maps compose. Two blobs are related through the nearest blobs that both come from.

A rank is how many axes a blob has from axis 2 on. These are its spatial axes, unless layers on the
way have their channels on another axis than 1: then the axes after those are.

Caffe: ``python/caffe/coord_map.py``. Differs: paths that disagree are an error, where Caffe takes
whichever it walks last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple, NoReturn

from netspec.errors import GraphError, LayerError, NetSpecError, Place, blame
from netspec.frontend.graph import Graph, Node
from netspec.frontend.shapes import KnownShapes, infer
from netspec.layers.coord_map import CoordMap

Axes = tuple[Fraction, ...]  # one number for each spatial axis
FIRST = 2  # the first spatial axis where channels lie on axis 1
_RANKS = (2, 3, 1, 4, 5, 6)  # images are the most frequent


class Placement(NamedTuple):
    """Pixel ``p`` of one blob sits at ``scale * p + shift`` of another, axis by axis.

    axis: the first spatial axis, to which ``scale[0]`` belongs.
    """

    scale: Axes
    shift: Axes
    axis: int = FIRST

    def __str__(self) -> str:
        return f"scale {axes_text(self.scale)}, shift {axes_text(self.shift)}"


def placement(graph: Graph, blob: str | int, reference: str | int, rank: int = 2) -> Placement:
    """Where the pixels of ``blob`` sit on those of ``reference``.

    blob, reference: a blob's name (its last value) or the index of a value of the graph.
    rank: how many axes they have from axis 2 on. Raises GraphError if no common ancestor relates
    them, or if several paths relate them differently.
    """
    of, on = _value(graph, blob), _value(graph, reference)
    theirs = walk(graph, on, rank)
    mine = walk(graph, of, rank, until=theirs.found)
    first = first_axis([*theirs.nodes, *mine.nodes], rank)
    if first != FIRST:
        theirs = walk(graph, on, rank, first=first)
        mine = walk(graph, of, rank, theirs.found, first)
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

    As of `crop_start`, without the axis.
    """
    return crop_start(graph, blob, reference, rank)[1]


def crop_start(
    graph: Graph, blob: str | int, reference: str | int, rank: int = 2
) -> tuple[int, tuple[int, ...]]:
    """The first spatial axis, and where from there on a Crop to ``reference`` must begin.

    One offset for each spatial axis, in pixels of ``blob``. Raises GraphError if the blobs' scales
    differ, or an offset is negative or no whole number.
    """
    of, on = _value(graph, blob), _value(graph, reference)
    scale, shift, axis = placement(graph, of, on, rank)
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
    return axis, tuple(map(int, offset))


@dataclass
class Walk:
    """The result of a walk up from a value.

    found: per value, how the first one sits on it, by each path that differs. nodes: the layers
    walked over. blocks: those that have no map.
    """

    found: dict[int, set[Placement]]
    nodes: list[Node] = field(default_factory=list)
    blocks: list[Node] = field(default_factory=list)


def walk(
    graph: Graph, value: int, rank: int, until: Collection[int] = (), first: int = FIRST
) -> Walk:
    """Walk up to everything that ``value`` comes from; stop at values in ``until``.

    A value is numbered after all that it comes from, so counting down meets each one when all
    paths to it are known.
    """
    itself = CoordMap.identity(rank + FIRST - first)
    walked = Walk({value: {Placement(itself.scale, itself.shift, first)}})
    for current in range(value, -1, -1):
        if current not in walked.found or current in until:
            continue
        node = graph.nodes[graph.values[current].producer]
        if not node.bottoms:
            continue
        across = step(node, rank, first)
        if across is None:
            walked.blocks.append(node)
            continue
        walked.nodes.append(node)
        further = {
            Placement(_times(across.scale, place.scale), _apply(across, place.shift), first)
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


def step(node: Node, rank: int, first: int = FIRST) -> CoordMap | None:
    """The map of one layer over exactly the spatial axes, those from blob axis ``first`` on."""
    with blame(node.place, node.who):
        given = node.layer.coords(rank)
    if given is None:
        return None
    axes = max(rank + FIRST - first, 0)
    scale, shift, extent = (list(numbers) for numbers in CoordMap.identity(axes)[1:])
    for i, numbers in enumerate(zip(given.scale, given.shift, given.extent, strict=True)):
        axis = given.axis - first + i
        if 0 <= axis < axes:
            scale[axis], shift[axis], extent[axis] = numbers
    return CoordMap(first, tuple(scale), tuple(shift), tuple(extent))


def first_axis(nodes: Iterable[Node], rank: int) -> int:
    """The first axis that all of some layers take for a spatial one."""
    channels = [node.layer.geometry(rank).channel_axis for node in nodes]
    return max((axis + 1 for axis in channels if axis is not None), default=FIRST)


def ranks(shapes: KnownShapes) -> list[int]:
    """For each value of a graph, how many axes it has from axis 2 on.

    Where it is not known, layers are taken to keep the rank of their first bottom, as all do that
    have a coordinate map; and what is fed to have `fitting_rank`.
    """
    graph, found = shapes.graph, list[int]()
    assumed = 2 if len(shapes.fed) == len(graph.fed) else fitting_rank(graph)
    with suppress(NetSpecError):
        # A net may be measured, and its pads sought, though blobs do not fit together yet.
        shapes = infer(graph, shapes.fed, "known")
    for each in shapes.nodes:
        for shape in each.tops:
            kept = found[each.node.bottoms[0]] if each.node.bottoms else assumed
            found.append(kept if shape is None else len(shape) - FIRST)
    return found


def fitting_rank(graph: Graph) -> int:
    """How many axes from axis 2 on the settings of all layers fit; 2, as of images, if they can."""
    for rank in _RANKS:
        with suppress(LayerError):
            maps = [node.layer.coords(rank) for node in graph.nodes]
            if all(found is None or found.scale for found in maps):
                return rank
    return _RANKS[0]


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
        a.axis,
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
