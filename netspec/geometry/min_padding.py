"""The least padding with which a net can crop its scores to the image, whatever the image's size.

A fully convolutional net pads its first layer so widely that upsampled scores cover the image; a
Crop removes the rest. With another pad each Crop begins elsewhere, where the coordinate walk puts
it. A pad aligns a size if every Crop then begins on a whole pixel inside its bottom, ends
inside, and every layer has a window.

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
from netspec.frontend.graph import Graph, Node
from netspec.frontend.shapes import KnownShapes, infer
from netspec.geometry.coords import FIRST, crop_start, first_axis, mapped, ranks
from netspec.geometry.receptive_field import ReceptiveField, receptive_fields
from netspec.layers import Layer
from netspec.layers.base import Shape


class Alignment(NamedTuple):
    """The least pads that align sizes.

    layers: the first on each path from the input that can be padded (`Geometry.repadded`).
    every: the least pad that aligns every size from 1x1 on. large: the least that aligns every
    size from ``least`` on, along each of ``axes`` spatial axes.
    """

    layers: tuple[str, ...]
    every: int
    large: int
    least: int
    axes: int = 2


def alignment(shapes: KnownShapes) -> Alignment | str:
    """Find the least first-layer pads that align every input size, or say why there are none.

    shapes: of the net, with its inputs' known.
    """
    graph = shapes.graph
    axes = _growing(shapes)
    first = _first_layers(graph, axes)
    if not first or not _cuts(graph, axes):
        return "nothing is cut to the size of something else"
    if axes.first < FIRST:
        return "without a batch axis, the first layers' pads are not sought"
    given = _images(shapes, axes)
    if not given:
        name = next(iter(graph.fed), "data")
        shape = ",".join(["1", "3", *["500"] * axes.rank])
        return f"the input's shape is not known; state it (--shape {name}={shape})"
    period, far = _reach(graph, given, axes)

    def aligns(pad: int, sizes: Sequence[int]) -> bool:
        return _complaint(graph, axes, first, given, pad, sizes) is None

    small, large_sizes = range(1, 1 + period), range(far + 1, far + 1 + period)
    if complaint := _complaint(graph, axes, first, given, far, [*small, *large_sizes]):
        return complaint
    large = next(pad for pad in range(far + 1) if aligns(pad, large_sizes))
    every = next(pad for pad in range(large, far + 1) if aligns(pad, small))
    # What is too small for a window is too small for it at every size below, too.
    least = bisect.bisect_left(range(far + 1), True, lo=1, key=lambda n: aligns(large, [n]))
    names = tuple(graph.nodes[n].name for n in first)
    return Alignment(names, every, large, least, axes.rank + FIRST - axes.first)


class _Growing(NamedTuple):
    """Which axes grow with the image, of those blobs that have as many as the first that is cut.

    rank: how many axes these have from axis 2 on. first: the first that grows. ranks: of each value
    of the graph.
    """

    rank: int
    first: int
    ranks: list[int]

    def has(self, node: Node) -> bool:
        """Whether a layer works on such blobs."""
        return bool(node.bottoms) and self.ranks[node.bottoms[0]] == self.rank


def _growing(shapes: KnownShapes) -> _Growing:
    graph, each = shapes.graph, ranks(shapes)
    cut = (node.bottoms[0] for node in graph.nodes if node.layer.geometry(2).recut)
    rank = each[next(cut, 0)] if each else 2
    alike = _Growing(rank, FIRST, each)
    return alike._replace(first=first_axis(filter(alike.has, graph.nodes), rank))


def _first_layers(graph: Graph, axes: _Growing) -> list[int]:
    """The first nodes with a pad on each path from an input."""
    reached = {top for node in graph.sources for top in node.tops}
    first = []
    for n, node in enumerate(graph.nodes):
        tops = [top for i, top in enumerate(node.tops) if reached.intersection(mapped(node, i))]
        if tops and axes.has(node) and node.layer.geometry(axes.rank).repadded:
            first.append(n)
        else:
            reached.update(tops)
    return first


def _images(shapes: KnownShapes, axes: _Growing) -> dict[str, Shape]:
    """The fed blobs that grow with the image, labels among them, and their shapes."""
    spatial = {name: s for name, s in shapes.fed.items() if s and len(s) == axes.rank + FIRST}
    sizes = [shape[axes.first :] for shape in spatial.values()]
    return {name: shape for name, shape in spatial.items() if shape[axes.first :] == sizes[0]}


def _reach(graph: Graph, fed: Iterable[str], axes: _Growing) -> tuple[int, int]:
    """The period of sizes, and a size at which no window is too large."""
    fields = [
        field
        for name in fed
        for field in receptive_fields(graph, name, axes.ranks).values()
        if isinstance(field, ReceptiveField)
    ]
    period = math.lcm(*(stride.numerator for field in fields for stride in field.stride))
    return period, period + max(size for field in fields for size in field.size)


def _complaint(
    graph: Graph,
    axes: _Growing,
    first: Sequence[int],
    given: Mapping[str, Shape],
    pad: int,
    sizes: Iterable[int],
) -> str | None:
    """The error of the first size that does not align with a pad, if there is one."""
    start = axes.first
    try:
        padded = _padded(graph, axes, first, pad)
        for size in sizes:
            fed = {name: s[:start] + (size,) * (len(s) - start) for name, s in given.items()}
            infer(padded, fed, "known")
    except NetSpecError as error:
        return str(error)
    return None


def _padded(graph: Graph, axes: _Growing, first: Sequence[int], pad: int) -> Graph:
    """The net with another pad on its first layers, and every Crop where the walk then puts it."""
    for n in first:
        repadded = graph.nodes[n].layer.geometry(axes.rank).repadded
        if repadded:
            graph = _with_layer(graph, n, repadded(pad))
    for n in _cuts(graph, axes):
        node = graph.nodes[n]
        (like,) = (node.bottoms[i] for i in node.layer.bottom_use.shape_only)
        with blame(node.place, node.who):
            start, offset = crop_start(graph, mapped(node, 0)[0], like, axes.rank)
        recut = node.layer.geometry(axes.rank).recut
        if recut:
            graph = _with_layer(graph, n, recut((0,) * (start - FIRST) + offset))
    return graph


def _cuts(graph: Graph, axes: _Growing) -> list[int]:
    """The nodes that cut such blobs."""
    nodes = enumerate(graph.nodes)
    return [n for n, node in nodes if axes.has(node) and node.layer.geometry(axes.rank).recut]


def _with_layer(graph: Graph, n: int, layer: Layer) -> Graph:
    node = dataclasses.replace(graph.nodes[n], layer=layer)
    return dataclasses.replace(graph, nodes=(*graph.nodes[:n], node, *graph.nodes[n + 1 :]))
