"""Receptive fields: the input pixels that a pixel of a blob depends on, found by walking layers.

A layer's map (`Layer.coords`) says which pixels of its input one pixel of its output sees. The
first and the last of them are followed up to the input in whole numbers, so that fields are exact
for deconvolutions too, whose pixels do not all see equally far. Dilation counts as if it skipped
nothing.

Fields extend over the border as if the image were larger: the pixels there are padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from netspec.errors import GraphError, Place
from netspec.frontend.graph import Graph, Node
from netspec.geometry.coords import (
    FIRST,
    Axes,
    Placement,
    axes_text,
    first_axis,
    mapped,
    step,
    walk,
)
from netspec.layers.base import Shape

# How many axes all values of a graph have from axis 2 on, or each of them (`coords.ranks`).
Ranks = int | Sequence[int]


class ReceptiveField(NamedTuple):
    """The input pixels that the pixels of a blob see, axis by axis.

    stride: input pixels from one pixel to the next, a fraction where the blob is finer than the
    input. size: how many input pixels one pixel sees at most. offset: where the centre of pixel
    0's field lies, halves between two pixels; where pixels do not all see equally far, it is where
    the straight line through all centres begins.
    """

    stride: Axes
    size: Shape
    offset: Axes


class Span(NamedTuple):
    """Pixels along one axis from ``low`` to ``high``, both counted in."""

    low: int
    high: int


def receptive_field(
    graph: Graph, blob: str | int, source: str | int | None = None, rank: Ranks = 2
) -> ReceptiveField:
    """What the pixels of ``blob`` see of a blob that the host feeds.

    blob: a name (its last value) or the index of a value of the graph. source: the fed blob;
    without it, the first that ``blob`` comes from. rank: how many axes values have from axis 2 on.
    Where several paths lead there, their fields are united. Raises GraphError, with the reason, if
    there is no such field.
    """
    value, start = _ends(graph, blob, source)
    found = _found(graph, value, start, rank)
    if isinstance(found, str):
        raise _error(graph, value, found)
    return found


def receptive_fields(
    graph: Graph, source: str | int, rank: Ranks = 2
) -> dict[str, ReceptiveField | str]:
    """What `receptive_field` says of each blob that comes from ``source``, or why it says nothing.

    rank: as in `receptive_field`. The reason is worded to follow the blob's name.
    """
    start = _value(graph, source)
    return {
        name: _found(graph, value, start, rank)
        for name, value in graph.blobs.items()
        if value == start or _between(graph, value, start)
    }


def seen(
    graph: Graph, blob: str | int, pixel: Shape, source: str | int | None = None
) -> tuple[Span, ...] | None:
    """The input pixels that one ``pixel`` of ``blob`` sees, axis by axis; None if it sees none.

    pixel: its index on each axis from axis 2 on; channels may lie on the first of these. source,
    and what is raised: as in `receptive_field`.
    """
    rank = len(pixel)
    value, start = _ends(graph, blob, source)
    found = _found(graph, value, start, rank)
    if isinstance(found, str):
        raise _error(graph, value, found)
    first = max(first_axis(_between(graph, value, start), rank), FIRST)
    spans = [
        _spans(graph, value, start, [p], axis, rank)[0]
        for axis, p in enumerate(pixel[first - FIRST :], first)
    ]
    known = tuple(span for span in spans if span is not None)
    return known if len(known) == len(spans) else None


def _found(graph: Graph, value: int, start: int, ranks: Ranks) -> ReceptiveField | str:
    """The field, or why there is none, in words that follow the blob's name."""
    between = _between(graph, value, start)
    name = f'"{graph.values[start].name}"'
    if value != start and not between:
        return f"does not come from {name}"
    rank = _of(ranks, value)
    if rank < 1 and not any(_has_window(node) for node in between):
        # What keeps an image's pixels in their places keeps a vector's numbers so.
        rank = ranks = 2
    for node in between:
        if node.layer.geometry(rank).sees_all:
            return f"sees all of {name}: {node.who}"
    for node in between:
        if step(node, _of(ranks, node.bottoms[0])) is None:
            return f"has no coordinates on {name}: {node.who} keeps none"
    first = first_axis(between, rank)
    if first >= rank + FIRST:
        return "has no spatial axes"
    places = walk(graph, value, rank, first=first).found
    strides = sorted({place.scale for place in places[start]})
    if len(strides) > 1:
        listing = ", ".join(map(axes_text, strides))
        return f"comes from {name} by paths of different strides: {listing}"
    period = _period(place for way in places.values() for place in way)
    axes = []
    for axis, stride in enumerate(strides[0], first):
        spans = _spans(graph, value, start, range(period), axis, rank)
        if not any(spans):
            return f"sees nothing of {name}"
        axes.append(_measured(spans, stride))
    sizes, offsets = zip(*axes, strict=True)
    return ReceptiveField(strides[0], sizes, offsets)


def _of(ranks: Ranks, value: int) -> int:
    return ranks if isinstance(ranks, int) else ranks[value]


def _has_window(node: Node) -> bool:
    return node.layer.geometry(2).channel_axis is not None


def _measured(spans: Sequence[Span | None], stride: Fraction) -> tuple[int, Fraction]:
    """Size and offset along one axis, from what each pixel of one period sees."""
    size = max(span.high - span.low + 1 for span in spans if span)
    starts = [
        Fraction(span.low + span.high, 2) - stride * pixel
        for pixel, span in enumerate(spans)
        if span
    ]
    return size, sum(starts, Fraction(0)) / len(starts)


def _period(places: Iterable[Placement]) -> int:
    """After how many pixels fields repeat: all placements on the path are whole numbers apart."""
    return math.lcm(*(scale.denominator for place in places for scale in place.scale))


def _spans(
    graph: Graph, value: int, start: int, pixels: Sequence[int], axis: int, rank: int
) -> list[Span | None]:
    """What each of some pixels of ``value`` sees of ``start`` along one axis of the blob."""
    found: dict[int, list[Span | None]] = {value: [Span(pixel, pixel) for pixel in pixels]}
    for current in range(value, start, -1):
        if current not in found:
            continue
        node = graph.nodes[graph.values[current].producer]
        across = step(node, rank, axis)
        if across is None:
            continue
        half = (across.extent[0] - 1) / 2
        reached = [_reach(span, across.scale[0], across.shift[0], half) for span in found[current]]
        for bottom in mapped(node, graph.values[current].slot):
            others = found.get(bottom, [None] * len(pixels))
            found[bottom] = [_united(*pair) for pair in zip(reached, others, strict=True)]
    return found[start]


def _reach(span: Span | None, scale: Fraction, shift: Fraction, half: Fraction) -> Span | None:
    """What pixels of a layer's output see of its input."""
    if span is None:
        return None
    low, high = scale * span.low + shift - half, scale * span.high + shift + half
    # Between the taps of a strided deconvolution there may be no pixel.
    return Span(math.ceil(low), math.floor(high)) if math.ceil(low) <= high else None


def _united(one: Span | None, other: Span | None) -> Span | None:
    if one is None or other is None:
        return one or other
    return Span(min(one.low, other.low), max(one.high, other.high))


def _between(graph: Graph, value: int, start: int) -> list[Node]:
    """The layers on all paths from ``start`` down to ``value``, in the order of the net."""
    below = {start}
    for node in graph.nodes:
        below.update(
            top for slot, top in enumerate(node.tops) if below.intersection(mapped(node, slot))
        )
    above, found = {value}, []
    for node in reversed(graph.nodes):
        ways: set[int] = set()
        for slot, top in enumerate(node.tops):
            if top in above:
                ways |= below.intersection(mapped(node, slot))
        if ways:
            above |= ways
            found.append(node)
    return found[::-1]


def _ends(graph: Graph, blob: str | int, source: str | int | None) -> tuple[int, int]:
    """The value of a blob, and that of its source; raises GraphError if it has none."""
    value = graph.blob(blob) if isinstance(blob, str) else blob
    if source is not None:
        return value, _value(graph, source)
    fed = [top for node in graph.sources for top in node.tops]
    start = next((top for top in fed if top == value or _between(graph, value, top)), None)
    if start is None:
        raise _error(graph, value, "comes from no input")
    return value, start


def _value(graph: Graph, source: str | int) -> int:
    """The value of a source: of a fed blob as the host fills it, of another the last."""
    if isinstance(source, int):
        return source
    return graph.first_blobs[source] if source in graph.fed else graph.blob(source)


def _error(graph: Graph, value: int, message: str) -> GraphError:
    place = Place(graph.file) if graph.file else None
    return GraphError(f'"{graph.values[value].name}" {message}', place)
