"""Predict the class of each pixel of an image, with any net that scores pixels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from netspec.errors import GraphError, LayerError, blame, fail, require
from netspec.frontend.graph import Graph
from netspec.frontend.shapes import Shapes
from netspec.layers.base import Array, Shape, text
from netspec.proto.layers_pb2 import TEST
from netspec.runtime.module import Net
from netspec.runtime.size_buckets import SizeBuckets
from netspec.segmentation.tiles import TileSpan, Tiling, largest, live_bytes, tiling
from netspec.sources.images.decode import MEAN as MEAN
from netspec.sources.images.decode import preprocess as preprocess

MEMORY = 4 << 30
"""How many bytes one run may take, by an estimate, before an image is cut into tiles."""

# An image of this size shows what a net makes of any.
_PROBE = 1024


class Piece(NamedTuple):
    """The scores of a part of an image.

    scores: (C, h, w), of which ``inside`` (rows, columns) holds. place: where that lies.
    """

    scores: Array
    inside: tuple[slice, slice]
    place: tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A net that scores the pixels of images, in tiles where an image is large.

    mean: of blue, green, red, subtracted. blob: the scores (1, C, H, W); by default those that a
    loss or Accuracy layer compares with labels, or else the net's only output of the image's size.
    tile: the most (height, width) that is run at once; by default as much as ``memory`` bytes hold
    by `live_bytes`. Whatever it is, the scores are the same: see `netspec.segmentation.tiles`.
    buckets: the net's size buckets for images that are run whole; by default new ones.

    The net must be in phase TEST, fed by one image blob of an Input or a data layer.
    """

    net: Net
    mean: float | Sequence[float] = MEAN
    blob: str | None = None
    tile: Shape | None = None
    memory: int = MEMORY
    buckets: SizeBuckets | None = None

    def __post_init__(self) -> None:
        graph = self.net.graph
        require(
            graph.phase == TEST,
            f'{graph.file}: predictions need phase TEST; load the net with phase="test"',
            GraphError,
        )

    def labels(self, image: NDArray[np.uint8]) -> NDArray[np.int32]:
        """The class of each pixel of an image (H, W, 3) of red, green, blue, as (H, W)."""
        labels = np.empty(image.shape[:2], np.int32)
        for piece in self.pieces(image):
            labels[piece.place] = np.asarray(jnp.argmax(piece.scores, axis=0))[piece.inside]
        return labels

    def pieces(self, image: NDArray[np.uint8]) -> Iterator[Piece]:
        """The scores of an image (H, W, 3) of red, green, blue, a tile at a time.

        Raises GraphError, LayerError, and SourceError for tiles that are too small.
        """
        plan = self.plan(image.shape[:2])
        feeds = {name: np.zeros(shape, np.float32) for name, shape in plan.feeds.items()}
        for row, column in itertools.product(plan.rows, plan.columns):
            part = image[row.start : row.stop, column.start : column.stop]
            feeds[plan.image] = preprocess(part, self.mean)
            yield Piece(
                self._scores(plan, feeds),
                (row.kept(-row.start), column.kept(-column.start)),
                (row.kept(), column.kept()),
            )

    def _scores(self, plan: TilePlan, feeds: Mapping[str, Any]) -> Array:
        """The scores (C, h, w) of what is run at once, in an array that may be larger."""
        if not plan.whole:
            # All tiles are of one size, and have one program.
            return self.net.forward(feeds, (plan.scores,))[plan.scores][0]
        batch = (self.buckets or SizeBuckets(self.net)).bucket(feeds)
        return self.net.forward_bucketed(batch, (plan.scores,))[plan.scores][0]

    def plan(self, size: Shape) -> TilePlan:
        """What is run for an image of a size; raises as `pieces` does."""
        graph, name = self.net.graph, image_blob(self.net.shapes)
        probe = self._shapes(name, tuple(map(min, size, self.tile or (_PROBE, _PROBE))))
        scores = self.blob or score_blob(probe, name)
        image = probe.values[graph.first_blobs[name]]
        require(
            len(probe[scores]) == 4 and probe[scores][2:] == image[2:],
            f'{graph.file}: blob "{scores}" is {text(probe[scores])}; scores of this image are '
            f"1xCx{text(image[2:])}",
            GraphError,
        )
        _require_enough(graph, name, scores)
        tile = self._tile(name, scores, size, probe)
        shapes = self._shapes(name, tile)
        feeds = dict(shapes.fed)
        if tile == size:
            rows, columns = ([TileSpan(0, n, 0, n)] for n in size)
            return TilePlan(name, scores, feeds, rows, columns)
        tiles = self._tiling(name, scores)
        larger = tuple(n + tiles.period(axis) for axis, n in enumerate(tile))
        tiles.check(shapes, self._shapes(name, larger))
        asked = "" if self.tile is None else f"tiles of at most {text(self.tile)}"
        with blame(None, asked):
            rows, columns = (tiles.cover(shapes, axis, n) for axis, n in enumerate(size))
        return TilePlan(name, scores, feeds, rows, columns)

    def _tile(self, name: str, scores: str, size: Shape, probe: Shapes) -> Shape:
        """The size that is run at once, for an image of a size."""
        if self.tile is not None:
            most = tuple(map(min, size, self.tile))
            return size if most == size else self._tiling(name, scores).fitted(size, most)
        value = self.net.graph.blob(scores)

        def fits(side: int) -> bool:
            try:
                shapes = self._shapes(name, tuple(min(side, n) for n in size))
            except LayerError:
                # A blob of so many numbers that it has no shape.
                return False
            return live_bytes(shapes, value) <= self.memory

        if fits(max(size)):
            return size
        try:
            tiles = self._tiling(name, scores)
        except GraphError:
            # The whole image may be possible where tiles are not: the bound is an estimate.
            return size
        least = max(tiles.least(size, probe))
        side = largest(fits, least, max(size))
        require(
            fits(side),
            f"{self.net.graph.file}: tiles of {least}x{least} pixels, the least that make scores, "
            f"take more than {self.memory / 2**30:g} GiB; allow more",
        )
        return tiles.fitted(size, tuple(min(side, n) for n in size))

    def _tiling(self, name: str, scores: str) -> Tiling:
        graph = self.net.graph
        return tiling(graph, graph.first_blobs[name], graph.blob(scores))

    def _shapes(self, name: str, size: Shape) -> Shapes:
        """The net's shapes for one image of a size."""
        return self.net.shapes_for(_fed_shapes(self.net.shapes, name, (1, 3, *size)))


class TilePlan(NamedTuple):
    """The tiles to run for an image, each row with each column, and the shapes that they are fed.

    image, scores: blobs. feeds: every fed blob's shape for one tile.
    """

    image: str
    scores: str
    feeds: Mapping[str, Shape]
    rows: Sequence[TileSpan]
    columns: Sequence[TileSpan]

    @property
    def whole(self) -> bool:
        """Whether the image is one tile."""
        return len(self.rows) == len(self.columns) == 1

    @property
    def told(self) -> str:
        """The number and the size of the tiles, in words."""
        height, width = self.feeds[self.image][2:]
        down, across = len(self.rows), len(self.columns)
        return f"run in {down * across} tiles ({down}x{across}) of {height}x{width} pixels"


def predict(
    net: Net,
    image: NDArray[np.uint8],
    mean: float | Sequence[float] = MEAN,
    blob: str | None = None,
    buckets: SizeBuckets | None = None,
) -> NDArray[np.int32]:
    """The class of each pixel of an image (H, W, 3) of red, green, blue, as (H, W).

    What a `Segmenter` with these settings says. Raises GraphError, LayerError.
    """
    return Segmenter(net, mean, blob, buckets=buckets).labels(image)


def _require_enough(graph: Graph, image: str, scores: str) -> None:
    """Raise GraphError if scores are made from another fed blob than the image."""
    values, seen = [graph.blob(scores)], set()
    while values:
        value = graph.values[values.pop()]
        producer = graph.nodes[value.producer]
        require(
            not producer.layer.traits.is_source or value.name == image,
            f'{graph.file}: "{scores}" needs "{value.name}" beside the image "{image}"',
            GraphError,
        )
        if value.producer not in seen:
            seen.add(value.producer)
            values.extend(producer.bottoms)


def image_blob(shapes: Shapes) -> str:
    """The fed blob that takes an image: (N, 3, H, W); raises GraphError unless there is one."""
    fed = shapes.fed
    found = [name for name, shape in fed.items() if len(shape) == 4 and shape[1] == 3]
    if len(found) != 1:
        listing = ", ".join(f"{name} {text(shape)}" for name, shape in fed.items())
        fail(
            f"{shapes.graph.file}: one image blob Nx3xHxW is needed; the net is fed "
            f"{listing or 'nothing'}",
            GraphError,
        )
    return found[0]


def score_blob(shapes: Shapes, image: str) -> str:
    """The blob with the scores of an image's pixels: see `predict`; raises GraphError."""
    graph = shapes.graph
    size = shapes.values[graph.first_blobs[image]][2:]
    candidates = _scored(shapes) or graph.outputs
    found = [name for name in candidates if shapes[name][2:] == size and len(shapes[name]) == 4]
    if len(found) != 1:
        listing = ", ".join(f"{name} {text(shapes[name])}" for name in candidates)
        fail(
            f"{graph.file}: scores of an image of {text(size)} are needed; the net makes "
            f"{listing or 'nothing'}; if another blob holds them, name it",
            GraphError,
        )
    return found[0]


def _scored(shapes: Shapes) -> tuple[str, ...]:
    """The blobs that layers compare with labels."""
    names: dict[str, None] = {}
    for each in shapes.nodes:
        labels = each.node.layer.scoring(*each.bottoms).labels
        if labels is not None:
            names[shapes.graph.values[each.node.bottoms[labels.scores]].name] = None
    return tuple(names)


def _fed_shapes(shapes: Shapes, image: str, given: Shape) -> Mapping[str, Shape]:
    """Shapes of all fed blobs if the image has this one: labels of the old size get the new."""
    fed = shapes.fed
    count, size = fed[image][0], fed[image][2:]
    return {
        name: given
        if name == image
        else (1, *shape[1:-2], *given[2:])
        if shape[:1] == (count,) and shape[-2:] == size
        else shape
        for name, shape in fed.items()
    }
