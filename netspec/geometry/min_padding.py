"""The least padding with which a net can crop its scores to the image, whatever the image's size.

A fully convolutional net pads its first layer so widely that upsampled scores cover the image; a
Crop removes the rest. With another pad each Crop begins elsewhere, where the coordinate walk puts
it. A pad aligns a size if every Crop then begins on a whole pixel inside its bottom, ends
inside, and no window is larger than what it slides over.

Finitely many sizes decide. If an image grows by the period, a common multiple of all
strides, every blob grows by as much over its own stride, and what Crops leave at the border stays
the same; and what is wide enough for a window stays so as image or pad grows.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from netspec.errors import NetSpecError, blame
from netspec.frontend.graph import Graph
from netspec.frontend.shapes import KnownShapes, infer
from netspec.geometry.coords import crop_offset, mapped
from netspec.geometry.receptive_field import ReceptiveField, receptive_fields
from netspec.layers import Layer
from netspec.layers.base import Shape


class Alignment(NamedTuple):
    """The least pads that align sizes.

    layers: the first on each path from the input that can be padded (`Geometry.repadded`).
    every: the least pad that aligns every size from 1x1 on. large: the least that aligns every
    size from ``least`` on, height and width.
    """

    layers: tuple[str, ...]
    every: int
    large: int
    least: int


def alignment(shapes: KnownShapes, rank: int = 2) -> Alignment | str:
    """Find the least first-layer pads that align every input size, or say why there are none.

    shapes: of the net, with its inputs' known.
    """
    graph = shapes.graph
    first = _first_layers(graph, rank)
    if not first or not _cuts(graph, rank):
        return "nothing is cut to the size of something else"
    given = _images(shapes, rank)
    if not given:
        name = next(iter(graph.fed), "data")
        return f"the input's shape is not known; state it (--shape {name}=1,3,500,500)"
    period, far = _reach(graph, given, rank)

    def aligns(pad: int, sizes: Sequence[int]) -> bool:
        return _complaint(graph, first, given, pad, sizes) is None

    small, large_sizes = range(1, 1 + period), range(far + 1, far + 1 + period)
    if complaint := _complaint(graph, first, given, far, [*small, *large_sizes]):
        return complaint
    large = next(pad for pad in range(far + 1) if aligns(pad, large_sizes))
    every = next(pad for pad in range(large, far + 1) if aligns(pad, small))
    # What is too small for a window is too small for it at every size below, too.
    least = bisect.bisect_left(range(far + 1), True, lo=1, key=lambda n: aligns(large, [n]))
    return Alignment(tuple(graph.nodes[n].name for n in first), every, large, least)


def _first_layers(graph: Graph, rank: int) -> list[int]:
    """The first nodes with a pad on each path from an input."""
    reached = {top for node in graph.sources for top in node.tops}
    first = []
    for n, node in enumerate(graph.nodes):
        tops = [top for i, top in enumerate(node.tops) if reached.intersection(mapped(node, i))]
        if tops and node.layer.geometry(rank).repadded:
            first.append(n)
        else:
            reached.update(tops)
    return first


def _images(shapes: KnownShapes, rank: int) -> dict[str, Shape]:
    """The fed blobs that grow with the image, labels among them, and their shapes."""
    spatial = {name: s for name, s in shapes.fed.items() if s and len(s) == rank + 2}
    sizes = [shape[2:] for shape in spatial.values()]
    return {name: shape for name, shape in spatial.items() if shape[2:] == sizes[0]}


def _reach(graph: Graph, fed: Iterable[str], rank: int) -> tuple[int, int]:
    """The period of sizes, and a size at which no window is too large."""
    fields = [
        field
        for name in fed
        for field in receptive_fields(graph, name, rank).values()
        if isinstance(field, ReceptiveField)
    ]
    period = math.lcm(*(stride.numerator for field in fields for stride in field.stride))
    return period, period + max(size for field in fields for size in field.size)


def _complaint(
    graph: Graph, first: Sequence[int], given: Mapping[str, Shape], pad: int, sizes: Iterable[int]
) -> str | None:
    """The error of the first size that does not align with a pad, if there is one."""
    rank = len(next(iter(given.values()))) - 2
    try:
        padded = _padded(graph, first, pad, rank)
        for size in sizes:
            infer(padded, {name: s[:2] + (size,) * rank for name, s in given.items()}, "known")
    except NetSpecError as error:
        return str(error)
    return None


def _padded(graph: Graph, first: Sequence[int], pad: int, rank: int) -> Graph:
    """The net with another pad on its first layers, and every Crop where the walk then puts it."""
    for n in first:
        repadded = graph.nodes[n].layer.geometry(rank).repadded
        if repadded:
            graph = _with_layer(graph, n, repadded(pad))
    for n in _cuts(graph, rank):
        node = graph.nodes[n]
        (like,) = (node.bottoms[i] for i in node.layer.bottom_use.shape_only)
        with blame(node.place, node.who):
            offset = crop_offset(graph, mapped(node, 0)[0], like, rank)
        recut = node.layer.geometry(rank).recut
        if recut:
            graph = _with_layer(graph, n, recut(offset))
    return graph


def _cuts(graph: Graph, rank: int) -> list[int]:
    return [n for n, node in enumerate(graph.nodes) if node.layer.geometry(rank).recut]


def _with_layer(graph: Graph, n: int, layer: Layer) -> Graph:
    node = dataclasses.replace(graph.nodes[n], layer=layer)
    return dataclasses.replace(graph, nodes=(*graph.nodes[:n], node, *graph.nodes[n + 1 :]))
