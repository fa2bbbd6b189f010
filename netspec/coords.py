"""Where the pixels of one blob sit on another's, found by walking the layers between them.

Every layer says how its output pixels sit on its input pixels (`Layer.coords`); along a path these
affine maps compose. Two blobs are related through the nearest blobs that both come from.

Caffe: ``python/caffe/coord_map.py``. Differs: paths that disagree are an error, where Caffe takes
whichever it walks last.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple, NoReturn

from netspec.errors import GraphError, Place, blame
from netspec.graph import Graph, Node
from netspec.layers.coordinates import CoordMap

Axes = tuple[Fraction, ...]  # one number for each spatial axis


class Placement(NamedTuple):
    """Pixel ``p`` of one blob sits at ``scale * p + shift`` of another, axis by axis."""

    scale: Axes
    shift: Axes

    def __str__(self) -> str:
        return f"scale {_text(self.scale)}, shift {_text(self.shift)}"


class ReceptiveField(NamedTuple):
    """The input pixels that one pixel of a blob depends on, axis by axis.

    stride: input pixels from one pixel to the next. size: how many input pixels one pixel sees at
    most. offset: where the centre of pixel 0's field lies; halves lie between two pixels.
    """

    stride: Axes
    size: tuple[int, ...]
    offset: Axes


def placement(graph: Graph, blob: str | int, reference: str | int, rank: int = 2) -> Placement:
    """Where the pixels of ``blob`` sit on those of ``reference``.

    blob, reference: a blob's name (its last value) or the index of a value of the graph.
    rank: how many spatial axes they have. Raises GraphError if no common ancestor relates them, or
    if several paths relate them differently.
    """
    of, on = _value(graph, blob), _value(graph, reference)
    theirs = _walk(graph, on, rank)
    mine = _walk(graph, of, rank, until=theirs.found)
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
            f"{what}: scales differ, one pixel of the first is {_text(scale)} of the second; "
            "the strides on the way to each must multiply to the same",
        )
    if any(o.denominator != 1 for o in offset):
        _fail(
            graph,
            f"{what}: offset {_text(offset)} is no whole number of pixels; "
            "change a pad or kernel by one",
        )
    if any(o < 0 for o in offset):
        _fail(
            graph,
            f"{what}: offset {_text(offset)} is negative, the first begins inside the second; "
            "pad an early layer more",
        )
    return tuple(map(int, offset))


def receptive_field(
    graph: Graph, blob: str | int, source: str | int | None = None, rank: int = 2
) -> ReceptiveField:
    """What one pixel of ``blob`` sees of a blob that the host feeds.

    source: the fed blob; without it, the first that ``blob`` comes from. Where several paths lead
    there, their fields are united. Raises GraphError if none does, or if their strides differ.
    """
    value = _value(graph, blob)
    walk = _walk(graph, value, rank)
    start = _first_fed(graph, walk.found) if source is None else _value(graph, source)
    if start not in walk.found:
        what = "an input" if start is None else f'"{graph.values[start].name}"'
        _fail(
            graph,
            f'"{graph.values[value].name}" has no coordinates on {what}{_text_of(walk.blocks)}',
        )
    paths = walk.found[start]
    strides = {path.scale for path in paths}
    if len(strides) > 1:
        _fail(
            graph,
            f'paths from "{graph.values[start].name}" to "{graph.values[value].name}" have '
            f"different strides: {', '.join(map(_text, sorted(strides)))}",
        )
    seen = _united(list(paths.values()))
    axes = list(zip(seen.low, seen.high, strict=True))
    return ReceptiveField(
        stride=strides.pop(),
        size=tuple(math.floor(high - low) + 1 for low, high in axes),
        offset=tuple((low + high) / 2 for low, high in axes),
    )


class _Span(NamedTuple):
    """The pixels of an ancestor that pixel 0 sees: from ``low`` to ``high``, both seen."""

    low: Axes
    high: Axes


@dataclass
class _Walk:
    """What a walk up from a value came to.

    found: per value, how the first one sits on it, by each path that differs, and what it sees
    there. blocks: the layers that have no map.
    """

    found: dict[int, dict[Placement, _Span]]
    blocks: list[Node] = field(default_factory=list)


def _walk(graph: Graph, value: int, rank: int, until: Collection[int] = ()) -> _Walk:
    """Everything that ``value`` comes from; values in ``until`` are reached, but not passed.

    A value is numbered after all that it comes from, so counting down meets each one when all
    paths to it are known.
    """
    none = (Fraction(0),) * rank
    itself = Placement((Fraction(1),) * rank, none)
    walk = _Walk({value: {itself: _Span(none, none)}})
    for current in range(value, -1, -1):
        if current not in walk.found or current in until:
            continue
        node = graph.nodes[graph.values[current].producer]
        if not node.bottoms:
            continue
        step = _step(node, rank)
        if step is None:
            walk.blocks.append(node)
            continue
        for bottom in _mapped(node, graph.values[current].slot):
            paths = walk.found.setdefault(bottom, {})
            for place, span in walk.found[current].items():
                further = Placement(_times(step.scale, place.scale), _apply(step, place.shift))
                reached = _reach(step, span)
                paths[further] = _united([reached, *filter(None, [paths.get(further)])])
    return walk


def _mapped(node: Node, slot: int) -> tuple[int, ...]:
    """The bottoms on which the layer's map places its top number ``slot``."""
    if node.layer.same_count:
        return (node.bottoms[slot],)
    shape_only = node.layer.shape_bottoms
    return tuple(bottom for i, bottom in enumerate(node.bottoms) if i not in shape_only)


def _step(node: Node, rank: int) -> CoordMap | None:
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


def _reach(step: CoordMap, span: _Span) -> _Span:
    """What pixels of a layer's output see of its input."""
    half = [(extent - 1) / 2 for extent in step.extent]
    return _Span(
        tuple(x - h for x, h in zip(_apply(step, span.low), half, strict=True)),
        tuple(x + h for x, h in zip(_apply(step, span.high), half, strict=True)),
    )


def _united(spans: list[_Span]) -> _Span:
    return _Span(
        tuple(map(min, zip(*(span.low for span in spans), strict=True))),
        tuple(map(max, zip(*(span.high for span in spans), strict=True))),
    )


def _relate(a: Placement, b: Placement) -> Placement:
    """How one blob sits on another, from how both sit on a third."""
    axes = list(zip(a.scale, a.shift, b.scale, b.shift, strict=True))
    return Placement(
        tuple(mine / theirs for mine, _, theirs, _ in axes),
        tuple((here - there) / theirs for _, here, theirs, there in axes),
    )


def _first_fed(graph: Graph, found: Collection[int]) -> int | None:
    fed = (top for node in graph.sources for top in node.tops)
    return min((top for top in fed if top in found), default=None)


def _fail(graph: Graph, message: str) -> NoReturn:
    raise GraphError(message, Place(graph.file) if graph.file else None)


def _value(graph: Graph, blob: str | int) -> int:
    return graph.blob(blob) if isinstance(blob, str) else blob


def _text_of(blocks: Collection[Node]) -> str:
    """``; layer "ip" (InnerProduct) keeps none``, for the layers that ended a walk."""
    names = ", ".join(node.who for node in blocks)
    return f"; {names} keep{'s' if len(blocks) == 1 else ''} none" if names else ""


def _text(numbers: Axes) -> str:
    """One number for all axes if they agree, else one for each: ``3/2`` or ``1 x 2``."""
    return str(numbers[0]) if len(set(numbers)) == 1 else " x ".join(map(str, numbers))
