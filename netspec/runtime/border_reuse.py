"""Border reuse: windows wholly in padding give identical rows, of which only some are computed.

Where a window sees nothing but zeros, a layer's output is one vector. A fully convolutional net
pads its image by a hundred pixels, so that the borders of its first layers are rows of such
vectors. Of these rows only as many are computed as later layers need, up to some layer with a
stride or to the last one that is shift-equivariant; copies of one row stand in where the net would
run out of them. Outputs and gradients are the same functions of image and weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from netspec.frontend.shapes import Shapes
from netspec.layers.base import Array, Layer, Shape
from netspec.layers.coord_map import CoordMap
from netspec.layers.records import multiply_adds
from netspec.runtime.owned import owned_cache


@dataclass(frozen=True)
class Border:
    """Rows ``start`` to ``stop`` of an array, all identical, and how many more were left out."""

    start: int
    stop: int
    left_out: int

    @property
    def whole(self) -> int:
        """How many rows it has, with those left out."""
        return self.stop - self.start + self.left_out

    def of_top(self, scale: int, first: int, extent: int) -> Border:
        """The rows of a layer's top whose windows lie within these rows.

        The window of row r of the top is the ``extent`` rows from ``scale * r + first`` on.
        """
        start = max(0, -((first - self.start) // scale))
        stop = (self.stop - extent - first) // scale + 1
        return Border(start, stop, self.left_out // scale)


# For each spatial axis, the borders of an array along it, from its start to its end. Empty where
# nothing is left out.
Borders = tuple[tuple[Border, ...], ...]


class ReducedLayer(NamedTuple):
    """A layer that computes fewer rows, and the borders of its bottom and its top.

    It is the layer itself, or the same with less padding, whose bottom is whole.
    """

    layer: Layer
    bottom: Borders
    top: Borders


def put_back(array: Array, axes: Sequence[int], held: Borders, wanted: Borders) -> Array:
    """An array with rows that ``held`` leaves out put back, but for those that ``wanted`` does.

    axes: those of the array that the borders are along.
    """
    wanted = wanted or tuple(_leaving_out(along, [0] * len(along)) for along in held)
    for axis, before, after in zip(axes, held, wanted, strict=True):
        parts, done = [], 0
        for old, new in zip(before, after, strict=True):
            row = lax.slice_in_dim(array, old.stop - 1, old.stop, axis=axis)
            more = old.left_out - new.left_out
            shape = tuple(more if i == axis else n for i, n in enumerate(array.shape))
            parts += [
                lax.slice_in_dim(array, done, old.stop, axis=axis),
                jnp.broadcast_to(row, shape),
            ]
            done = old.stop
        if before != after:
            parts.append(lax.slice_in_dim(array, done, array.shape[axis], axis=axis))
            array = jnp.concatenate(parts, axis)
    return array


@owned_cache
def reduced_layers(shapes: Shapes) -> Mapping[int, ReducedLayer]:
    """The layers, by number, that compute fewer rows; none where that saves nothing."""
    reduced: dict[int, ReducedLayer] = {}
    for n in range(len(shapes.graph.nodes)):
        if n not in reduced:
            reduced.update(_Chain.at(shapes, n).best())
    return reduced


def held_shapes(shapes: Shapes) -> list[Shape]:
    """The shape of each value as a run holds it, Caffe's axes in Caffe's order."""
    held = list(shapes.values)
    for n, layer in reduced_layers(shapes).items():
        for top in shapes.graph.nodes[n].tops:
            held[top] = _held(held[top], layer.top)
    return held


@dataclass(frozen=True, eq=False)
class _Chain:
    """Shift-equivariant layers one after another, the first of which pads widely.

    maps: how the pixels of each one's top sit on its bottom.
    """

    shapes: Shapes
    nodes: Sequence[int]
    maps: Sequence[CoordMap]

    @staticmethod
    def at(shapes: Shapes, first: int) -> _Chain:
        """The chain from a layer on; an empty one if none of its windows is wholly in padding."""
        nodes, maps = list[int](), list[CoordMap]()
        n: int | None = first
        while n is not None:
            found = _uniform_map(shapes, n)
            if found is None or (not nodes and not _pads_widely(shapes, n, found)):
                break
            nodes.append(n)
            maps.append(found)
            readers = shapes.graph.readers[shapes.graph.nodes[n].tops[0]]
            n = next((m for m in readers if _uniform_map(shapes, m)), None)
        return _Chain(shapes, nodes, maps)

    def best(self) -> Mapping[int, ReducedLayer]:
        """The reduced layers that take the fewest multiplications.

        Tries to leave rows out up to each layer with a stride.
        """
        least, best = self._cost({}), dict[int, ReducedLayer]()
        strides = [i for i, found in enumerate(self.maps) if i and _scale(found) > 1]
        for end in [*strides, len(self.nodes)] if self.nodes else ():
            reduced = self._reduced(end)
            if (cost := self._cost(reduced)) < least:
                least, best = cost, reduced
        return best

    def _cost(self, reduced: Mapping[int, ReducedLayer]) -> int:
        """Multiplications of the chain. Where nothing is multiplied, a pixel counts as one."""
        total = 0
        for n in self.nodes:
            node = self.shapes.graph.nodes[n]
            layer, bottom = node.layer, self.shapes.values[node.bottoms[0]]
            if n in reduced:
                layer = reduced[n].layer
                bottom = _held(bottom, reduced[n].bottom)
            total += max(multiply_adds(layer.blobs(bottom)), math.prod(bottom))
        return total

    def _reduced(self, end: int) -> dict[int, ReducedLayer]:
        """The first ``end`` layers with as many rows as possible left out of all their tops."""
        reduced = dict[int, ReducedLayer]()
        needs, units = self._needs(end)
        borders = self._first(needs[0], units[0])
        if borders is None:
            return reduced
        node = self.shapes.graph.nodes[self.nodes[0]]
        pad = _pad(node.layer, self.maps[0]) - borders[0][0].left_out * _scale(self.maps[0])
        repadded = node.layer.geometry(2).repadded
        if repadded is None:
            return reduced
        less = repadded(pad)
        reduced[self.nodes[0]] = ReducedLayer(less, (), borders)
        for i in range(1, end):
            bottom = tuple(_with_at_least(along, needs[i], units[i]) for along in borders)
            borders = _borders_of_top(bottom, self.maps[i])
            if not any(border.left_out for along in borders for border in along):
                break
            reduced[self.nodes[i]] = ReducedLayer(
                self.shapes.graph.nodes[self.nodes[i]].layer, bottom, borders
            )
        return reduced

    def _needs(self, end: int) -> tuple[list[int], list[int]]:
        """What may be left out of each layer's bottom, or of the first one's top.

        How many rows of a border are needed up to the next layer with a stride, and what the number
        of those left out must be a multiple of.
        """
        need, unit = 1, 1
        needs, units = list[int](), list[int]()
        for i in range(end - 1, 0, -1):
            scale, extent = _scale(self.maps[i]), int(self.maps[i].extent[0])
            # After a stride, rows that are missing are put back.
            need = (1 if scale > 1 else need) * scale + extent - 1
            unit *= scale
            needs.append(need)
            units.append(unit)
        needs.append(need)
        units.append(unit)
        return needs[::-1], units[::-1]

    def _first(self, need: int, unit: int) -> Borders | None:
        """The borders of the first layer's top with the most rows left out; None if none can be."""
        found = self.maps[0]
        scale, extent = _scale(found), int(found.extent[0])
        node = self.shapes.graph.nodes[self.nodes[0]]
        pad = _pad(node.layer, found)
        sizes = self.shapes.values[node.bottoms[0]][2:]
        most = (pad - extent) // scale + 1 - need
        for out in range(most // unit * unit, 0, -unit):
            kept = pad - scale * out
            borders = tuple(
                tuple(
                    replace(border.of_top(scale, 0, extent), left_out=out)
                    for border in (Border(0, kept, 0), Border(kept + size, size + 2 * kept, 0))
                )
                for size in sizes
            )
            if all(m.stop - m.start >= need for along in borders for m in along):
                return borders
        return None


def _uniform_map(shapes: Shapes, n: int) -> CoordMap | None:
    """How a layer's pixels sit on those of its bottom, if it is shift-equivariant."""
    node = shapes.graph.nodes[n]
    equivariant = node.layer.geometry(2).shift_equivariant
    if not equivariant or len(node.bottoms) != 1 or len(node.tops) != 1:
        return None
    if len(shapes.values[node.bottoms[0]]) != 4:
        return None
    found = node.layer.coords(2)
    # One rule for both axes keeps borders as wide on both.
    if found is None or found.axis != 2 or len({*zip(*found[1:], strict=True)}) > 1:
        return None
    return found if found.scale[0].denominator == 1 else None


def _pads_widely(shapes: Shapes, n: int, found: CoordMap) -> bool:
    """Whether the windows of two rows of a layer's top, or more, lie wholly in padding."""
    return _pad(shapes.graph.nodes[n].layer, found) >= int(found.extent[0]) + _scale(found)


def _scale(found: CoordMap) -> int:
    return int(found.scale[0])


def _window_start(found: CoordMap) -> int:
    """The row of the bottom where the window of row 0 of the top begins; negative in padding."""
    return int(found.shift[0] - (found.extent[0] - 1) / 2)


def _pad(layer: Layer, found: CoordMap) -> int:
    """The padding of a layer that can have less of it; else 0."""
    return -_window_start(found) if layer.geometry(2).repadded else 0


def _borders_of_top(borders: Borders, found: CoordMap) -> Borders:
    extent = int(found.extent[0])
    return tuple(
        tuple(
            border.of_top(_scale(found), _window_start(found), extent)
            for border in along
            if border.left_out
        )
        for along in borders
    )


def _with_at_least(along: tuple[Border, ...], need: int, unit: int) -> tuple[Border, ...]:
    """Borders with at least ``need`` rows there, and a multiple of ``unit`` left out."""
    return _leaving_out(
        along, [max(0, min(m.left_out, m.whole - need)) // unit * unit for m in along]
    )


def _leaving_out(along: Sequence[Border], outs: Sequence[int]) -> tuple[Border, ...]:
    """The borders along an axis with these numbers of rows left out."""
    more = [border.left_out - out for border, out in zip(along, outs, strict=True)]
    before = [0, *accumulate(more)]
    return tuple(
        Border(border.start + shift, border.stop + shift + put, out)
        for border, shift, put, out in zip(along, before, more, outs, strict=False)
    )


def _held(shape: Shape, borders: Borders) -> Shape:
    """The shape of a value's array with rows left out."""
    if not borders:
        return shape
    sizes = (
        size - sum(border.left_out for border in along)
        for size, along in zip(shape[2:], borders, strict=True)
    )
    return (*shape[:2], *sizes)
