"""Cut an image into overlapping tiles whose scores equal those of the whole image.

Each score of a convolutional net depends on a window of pixels. A tile is run as an image of its
own, and only those scores are kept whose window holds what it holds in the whole image: real
pixels, or the net's padding where the tile ends at the image's border. Tiles begin at multiples of
the net's stride, so that windows fall on the same pixels as in the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, NoReturn

from netspec.errors import GraphError, SourceError, require
from netspec.frontend.graph import Graph, Node
from netspec.frontend.shapes import Shapes
from netspec.geometry.coords import Axes, axes_text, mapped, step
from netspec.layers.base import Shape, count
from netspec.layers.coord_map import CoordMap

RANK = 2
FLOAT_BYTES = 4


class TileSpan(NamedTuple):
    """Along one axis: the pixels ``start`` to ``stop`` are run, scores ``low`` to ``high`` kept."""

    start: int
    stop: int
    low: int
    high: int

    def kept(self, shift: int = 0) -> slice:
        """The scores that are kept, ``shift`` pixels further on."""
        return slice(self.low + shift, self.high + shift)


class Sound(NamedTuple):
    """On one axis, the pixels of a tile's blob that equal the whole image's: low <= p < high.

    None: up to the border and in the padding, where the whole image's blob ends with the tile's.
    """

    low: int | None
    high: int | None


@dataclass(frozen=True, eq=False)
class Tiling:
    """How scores depend on an image: both are values of ``graph``.

    steps: the layers between them, with their maps. scales: value -> how many pixels of the image
    lie from one of its pixels to the next, on each axis.
    """

    graph: Graph
    image: int
    scores: int
    steps: tuple[tuple[Node, CoordMap], ...]
    scales: Mapping[int, Axes]

    def period(self, axis: int) -> int:
        """A tile may begin at multiples of so many pixels."""
        return math.lcm(*(scale[axis].numerator for scale in self.scales.values()))

    def sound(self, shapes: Shapes, axis: int, first: bool, last: bool) -> Sound:
        """Which scores of a tile hold.

        shapes: those that the net has on the tile. first, last: whether the tile begins, or ends,
        at the border of the image.
        """
        size = shapes.values[self.image][RANK + axis]
        sound = {self.image: Sound(None if first else 0, None if last else size)}
        for node, across in self.steps:
            for slot, top in enumerate(node.tops):
                bottoms = [sound[bottom] for bottom in mapped(node, slot)]
                size = shapes.values[top][RANK + axis]
                sound[top] = _passed(bottoms, across, axis, size, first, last)
        return sound[self.scores]

    def overlap(self, shapes: Shapes, axis: int) -> int:
        """How many scores of a tile inside the image are lost at its two ends.

        Tiles whose sizes differ by whole periods lose as many, others less than a period more.
        """
        low, high = self.sound(shapes, axis, first=False, last=False)
        return (low or 0) + shapes.values[self.scores][RANK + axis] - (high or 0)

    def least(self, size: Shape, shapes: Shapes) -> Shape:
        """The least (height, width) of tiles that cover an image of ``size``; any shapes do."""
        # One period is lost where `fitted` rounds, one more as sizes end at another pixel of it.
        enough = (self.overlap(shapes, i) + 3 * self.period(i) for i in range(RANK))
        return tuple(min(whole, least) for whole, least in zip(size, enough, strict=True))

    def fitted(self, size: Shape, most: Shape) -> Shape:
        """The largest tile up to ``most`` that can lie at either border of an image of ``size``.

        All tiles have one size then, and the net is compiled once.
        """
        return tuple(
            whole if whole <= limit else limit - (limit - whole) % self.period(i)
            for i, (whole, limit) in enumerate(zip(size, most, strict=True))
        )

    def check(self, tile: Shapes, larger: Shapes) -> None:
        """Raise GraphError unless all blobs grow with the tile.

        larger: the shapes on a tile that is larger by a period on each axis.
        """
        for value, scale in self.scales.items():
            small, large = (shapes.values[value][RANK:] for shapes in (tile, larger))
            grown = [(b - a) * scale[i] for i, (a, b) in enumerate(zip(small, large, strict=True))]
            if grown != [self.period(axis) for axis in range(RANK)]:
                name = self.graph.values[value].name
                why = f'hang on "{name}", which does not grow with the image'
                _refuse(self.graph, self.scores, why)

    def cover(self, shapes: Shapes, axis: int, length: int) -> list[TileSpan]:
        """Tiles of the size that ``shapes`` are for, over ``length`` pixels of an image.

        They keep each score once, in order. Raises SourceError if they are too small for that.
        """
        size, period = shapes.values[self.image][RANK + axis], self.period(axis)

        @cache
        def sound(first: bool, last: bool) -> Sound:
            return self.sound(shapes, axis, first, last)

        tiles: list[TileSpan] = []
        start, done = 0, 0
        while done < length:
            low, high = sound(start == 0, start + size == length)
            end = length if high is None else start + high
            lost = self.overlap(shapes, axis)
            require(
                end > done and start + (low or 0) <= done,
                f"tiles of {size} pixels are too small: {lost} scores of each hang on what lies "
                f"beyond it, and tiles begin at multiples of {period} pixels; make them "
                f"{lost + 2 * period} or more",
                SourceError,
            )
            tiles.append(TileSpan(start, start + size, done, end))
            done = end
            inner = sound(False, False).low or 0
            start = min(length - size, (done - inner) // period * period)
        return tiles


def tiling(graph: Graph, image: int, scores: int) -> Tiling:
    """How scores depend on an image; raises GraphError where tiles cannot give the same scores."""
    steps: list[tuple[Node, CoordMap]] = []
    one = CoordMap.identity(RANK).scale
    scales: dict[int, Axes] = {image: one}
    for node in made_by(graph, scores):
        if image in node.tops:
            continue
        if node.layer.geometry(RANK).sees_all:
            _refuse(graph, scores, f"see all of the image: {node.who}")
        across = step(node, RANK)
        if across is None:
            _refuse(graph, scores, f"have no place on the image: {node.who} keeps none")
        steps.append((node, across))
        for slot, top in enumerate(node.tops):
            ways = {_times(scales[bottom], across.scale) for bottom in mapped(node, slot)}
            if len(ways) != 1:
                strides = ", ".join(map(axes_text, sorted(ways))) or "none"
                _refuse(graph, scores, f"come by ways of several strides ({strides}): {node.who}")
            scales[top] = ways.pop()
    if scales[scores] != one:
        _refuse(graph, scores, f"have a stride of {axes_text(scales[scores])}")
    return Tiling(graph, image, scores, tuple(steps), scales)


def made_by(graph: Graph, value: int) -> list[Node]:
    """The layers that a value depends on, in order, beginning with those that the host feeds."""
    values, found = {value}, []
    for node in reversed(graph.nodes):
        slots = [slot for slot, top in enumerate(node.tops) if top in values]
        if slots:
            found.append(node)
            values.update(*(mapped(node, slot) for slot in slots))
    return found[::-1]


def live_bytes(shapes: Shapes, scores: int) -> int:
    """Estimate the peak memory of a run up to the scores: the blobs that are still to be read."""
    nodes = made_by(shapes.graph, scores)
    last = {scores: len(nodes)}
    for n, node in enumerate(nodes):
        last.update(dict.fromkeys(node.bottoms, n))
    alive: set[int] = set()
    peak = 0
    for n, node in enumerate(nodes):
        alive |= set(node.tops)
        peak = max(peak, sum(count(shapes.values[value]) for value in alive))
        alive = {value for value in alive if last.get(value, -1) > n}
    return FLOAT_BYTES * peak


def largest(fits: Callable[[int], bool], least: int, most: int) -> int:
    """The largest number that fits; ``least`` where none does. A smaller one fits if one does."""
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least


def _passed(
    bottoms: list[Sound], across: CoordMap, axis: int, size: int, first: bool, last: bool
) -> Sound:
    """The sound pixels of a layer's top, given those of its bottoms.

    size: of the top in the tile. first, last: as in `Tiling.sound`.
    """
    scale, shift = across.scale[axis], across.shift[axis]
    half = (across.extent[axis] - 1) / 2
    lows = [b.low for b in bottoms if b.low is not None]
    highs = [b.high for b in bottoms if b.high is not None]
    # A pixel p sees the whole numbers from scale p + shift - half to scale p + shift + half.
    low = max([0, *(math.floor((low - 1 + half - shift) / scale) + 1 for low in lows)])
    high = min([size, *(math.ceil((high - half - shift) / scale) for high in highs)])
    return Sound(None if first else low, None if last else high)


def _times(a: Axes, b: Axes) -> Axes:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _refuse(graph: Graph, scores: int, why: str) -> NoReturn:
    name = graph.values[scores].name
    raise GraphError(
        f'{graph.file}: the scores "{name}" cannot be made tile by tile, as they {why}'
    )
