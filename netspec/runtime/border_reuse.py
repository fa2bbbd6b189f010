"""Convolution of images with wide padding, without computing the same pixels again and again.

Where zeros are all that a window sees, the outputs of a layer are one vector, in every row alike. A
fully convolutional net pads its image by a hundred pixels, so that most rows of its first layers
are such. Of those in a row only as many are computed as later layers need to see, up to some layer
with a stride or to the last that works the same way on all rows; the others stand in again where
the net would run out of them. What comes out is the same function of image and weights, and so are
its gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import cast

import jax.numpy as jnp
from jax import lax

from netspec.frontend.shapes import Shapes
from netspec.layers.base import Array, Layer, Shape
from netspec.layers.coord_map import CoordMap


@dataclass(frozen=True)
class Margin:
    """Rows ``start`` to ``stop`` of an array that are alike, and how many more were left out."""

    start: int
    stop: int
    left_out: int

    @property
    def whole(self) -> int:
        """How many there are, with those left out."""
        return self.stop - self.start + self.left_out

    def seen(self, scale: int, first: int, extent: int) -> Margin:
        """The rows of a layer's top that see no others.

        Row r of the top sees ``extent`` rows from ``scale * r + first`` on.
        """
        start = max(0, -((first - self.start) // scale))
        stop = (self.stop - extent - first) // scale + 1
        return Margin(start, stop, self.left_out // scale)


# For each spatial axis, the margins of an array along it, from its start to its end; of an array
# that nothing is left out of, none at all.
Margins = tuple[tuple[Margin, ...], ...]


@dataclass(frozen=True)
class Step:
    """How a layer computes on less: itself or one of less padding; margins of bottom and top.

    The bottom of a layer of less padding has none: it is whole.
    """

    layer: Layer
    bottom: Margins
    top: Margins


def put_back(array: Array, axes: Sequence[int], held: Margins, wanted: Margins) -> Array:
    """An array with as many of the rows that were left out as ``wanted`` has.

    axes: of the array, those that the margins are along.
    """
    wanted = wanted or tuple(_lacking(along, [0] * len(along)) for along in held)
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


@lru_cache(maxsize=256)
def plan(shapes: Shapes) -> Mapping[int, Step]:
    """The layers, by number, that compute on less; none where that saves nothing."""
    steps: dict[int, Step] = {}
    for n in range(len(shapes.graph.nodes)):
        if n not in steps:
            steps.update(_Chain.at(shapes, n).best())
    return steps


def held_shapes(shapes: Shapes) -> list[Shape]:
    """The shape of each value as a run holds it, Caffe's axes in Caffe's order."""
    held = list(shapes.values)
    for n, step in plan(shapes).items():
        for top in shapes.graph.nodes[n].tops:
            held[top] = _held(held[top], step.top)
    return held


@dataclass(frozen=True, eq=False)
class _Chain:
    """Layers one after another that work the same way on all rows, from one that pads widely.

    maps: how the pixels of each one's top sit on its bottom.
    """

    shapes: Shapes
    nodes: Sequence[int]
    maps: Sequence[CoordMap]

    @staticmethod
    def at(shapes: Shapes, first: int) -> _Chain:
        """The chain from a layer on; an empty one if none of its rows sees padding alone."""
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

    def best(self) -> Mapping[int, Step]:
        """The steps that take the fewest multiplications.

        Tried is leaving rows out up to each layer with a stride.
        """
        least, best = self._cost({}), dict[int, Step]()
        strides = [i for i, found in enumerate(self.maps) if i and _scale(found) > 1]
        for end in [*strides, len(self.nodes)] if self.nodes else ():
            steps = self._steps(end)
            if (cost := self._cost(steps)) < least:
                least, best = cost, steps
        return best

    def _cost(self, steps: Mapping[int, Step]) -> int:
        """Multiplications of the chain. Where nothing is multiplied, a pixel counts as one."""
        total = 0
        for n in self.nodes:
            node = self.shapes.graph.nodes[n]
            layer, bottom = node.layer, self.shapes.values[node.bottoms[0]]
            if n in steps:
                layer = steps[n].layer
                bottom = _held(bottom, steps[n].bottom)
            total += max(layer.multiply_adds(bottom), math.prod(bottom))
        return total

    def _steps(self, end: int) -> dict[int, Step]:
        """What the first ``end`` layers do if rows are left out of all their tops, at most."""
        steps = dict[int, Step]()
        needs, units = self._needs(end)
        margins = self._first(needs[0], units[0])
        if margins is None:
            return steps
        node = self.shapes.graph.nodes[self.nodes[0]]
        pad = _pad(node.layer, self.maps[0]) - margins[0][0].left_out * _scale(self.maps[0])
        less = cast(Layer, node.layer.repadded(pad))
        steps[self.nodes[0]] = Step(less, (), margins)
        for i in range(1, end):
            bottom = tuple(_lessened(along, needs[i], units[i]) for along in margins)
            margins = _seen(bottom, self.maps[i])
            if not any(margin.left_out for along in margins for margin in along):
                break
            steps[self.nodes[i]] = Step(
                self.shapes.graph.nodes[self.nodes[i]].layer, bottom, margins
            )
        return steps

    def _needs(self, end: int) -> tuple[list[int], list[int]]:
        """For each layer's bottom (of the first, its top): which rows may be left out of it.

        How many of a margin must be there up to the next layer with a stride, and what the number
        of those left out must be a multiple of.
        """
        need, unit = 1, 1
        needs, units = list[int](), list[int]()
        for i in range(end - 1, 0, -1):
            scale, extent = _scale(self.maps[i]), int(self.maps[i].extent[0])
            # Behind a stride, rows that are missing are put back.
            need = (1 if scale > 1 else need) * scale + extent - 1
            unit *= scale
            needs.append(need)
            units.append(unit)
        needs.append(need)
        units.append(unit)
        return needs[::-1], units[::-1]

    def _first(self, need: int, unit: int) -> Margins | None:
        """The margins of the first layer's top, the most rows left out; None if none can be."""
        found = self.maps[0]
        scale, extent = _scale(found), int(found.extent[0])
        node = self.shapes.graph.nodes[self.nodes[0]]
        pad = _pad(node.layer, found)
        sizes = self.shapes.values[node.bottoms[0]][2:]
        most = (pad - extent) // scale + 1 - need
        for out in range(most // unit * unit, 0, -unit):
            kept = pad - scale * out
            margins = tuple(
                tuple(
                    replace(margin.seen(scale, 0, extent), left_out=out)
                    for margin in (Margin(0, kept, 0), Margin(kept + size, size + 2 * kept, 0))
                )
                for size in sizes
            )
            if all(m.stop - m.start >= need for along in margins for m in along):
                return margins
        return None


def _uniform_map(shapes: Shapes, n: int) -> CoordMap | None:
    """How a layer's pixels sit on those of its bottom, if it works the same way on all rows."""
    node = shapes.graph.nodes[n]
    if not node.layer.shift_equivariant or len(node.bottoms) != 1 or len(node.tops) != 1:
        return None
    if len(shapes.values[node.bottoms[0]]) != 4:
        return None
    found = node.layer.coords(2)
    # One rule for both axes keeps margins as wide on both.
    if found is None or found.axis != 2 or len({*zip(*found[1:], strict=True)}) > 1:
        return None
    return found if found.scale[0].denominator == 1 else None


def _pads_widely(shapes: Shapes, n: int, found: CoordMap) -> bool:
    """Whether two rows of a layer's top or more see nothing but padding."""
    return _pad(shapes.graph.nodes[n].layer, found) >= int(found.extent[0]) + _scale(found)


def _scale(found: CoordMap) -> int:
    return int(found.scale[0])


def _first_seen(found: CoordMap) -> int:
    """The row of the bottom that row 0 of the top sees first; before the bottom if it is padded."""
    return int(found.shift[0] - (found.extent[0] - 1) / 2)


def _pad(layer: Layer, found: CoordMap) -> int:
    """The padding of a layer that may have less of it; else 0."""
    return -_first_seen(found) if layer.repadded(0) is not None else 0


def _seen(margins: Margins, found: CoordMap) -> Margins:
    extent = int(found.extent[0])
    return tuple(
        tuple(
            margin.seen(_scale(found), _first_seen(found), extent)
            for margin in along
            if margin.left_out
        )
        for along in margins
    )


def _lessened(along: tuple[Margin, ...], need: int, unit: int) -> tuple[Margin, ...]:
    """Margins of which at least ``need`` rows are there, and a multiple of ``unit`` is not."""
    return _lacking(along, [max(0, min(m.left_out, m.whole - need)) // unit * unit for m in along])


def _lacking(along: Sequence[Margin], outs: Sequence[int]) -> tuple[Margin, ...]:
    """The margins along an axis when so many rows are left out."""
    more = [margin.left_out - out for margin, out in zip(along, outs, strict=True)]
    before = [0, *accumulate(more)]
    return tuple(
        Margin(margin.start + shift, margin.stop + shift + put, out)
        for margin, shift, put, out in zip(along, before, more, outs, strict=False)
    )


def _held(shape: Shape, margins: Margins) -> Shape:
    """The shape of an array of a value, with rows left out."""
    if not margins:
        return shape
    sizes = (
        size - sum(margin.left_out for margin in along)
        for size, along in zip(shape[2:], margins, strict=True)
    )
    return (*shape[:2], *sizes)
