"""One program for images of many sizes: arrays of a size bucket, with masks around valid regions.

A size bucket is a size rounded up, and the valid region of an array is the blob in it. The true
size of every value, as the shape rules give it, is an argument of the program. Layers compute on
whole arrays. Before a layer whose windows reach outside the valid region, the rest of the array is
set to what the layer would find there in an array of the true size (`Layer.padding_values`); layers
that count or average do so within the region. So scores, losses and gradients are those of a
program compiled for the true size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from netspec.errors import LayerError, blame, fail
from netspec.frontend.graph import Graph
from netspec.frontend.shapes import Shapes, infer
from netspec.layers.base import Shape
from netspec.layers.context import Context
from netspec.layers.valid_region import PaddingValue, PartialShape, ValidRegion, places, surround
from netspec.runtime.owned import owned_cache

# Sizes up to this are rounded to multiples of an eighth of it.
_LEAST = 128
# Added to the images' sizes to find what varies with them: no net's strides multiply to more.
_PROBE = 256


def rounded(size: int) -> int:
    """A size rounded up: four steps to an octave, e.g. 320, 384, 448, 512, 640; 16 at least."""
    step = max(_LEAST, 1 << size.bit_length()) // 8
    return -(-size // step) * step


def spatial(shape: Shape) -> tuple[int, ...]:
    """The axes of a fed blob that a size bucket may enlarge: those of images and label images."""
    if len(shape) < 3:
        return ()
    # An axis of 1 holds no pixels: a label of 1x1x1 for each image, say.
    return tuple(axis for axis in range(1 if len(shape) == 3 else 2, len(shape)) if shape[axis] > 1)


def _resized(shape: Shape, sizes: Mapping[int, int]) -> Shape:
    return tuple(sizes.get(axis, size) for axis, size in enumerate(shape))


def rounded_shape(shape: Shape) -> Shape:
    """The shape of the size bucket that a fed blob is put into."""
    return _resized(shape, {axis: rounded(shape[axis]) for axis in spatial(shape)})


@dataclass(frozen=True, eq=False)
class MaskedShapes:
    """What a program of many sizes knows when it is compiled.

    shapes: of its arrays. slots: (value, axis) of each size that varies, in the order in which a
    run is handed them. padding_values: for each layer, what must lie outside the valid regions of
    its bottoms; empty where none of their sizes varies.
    """

    shapes: Shapes
    slots: tuple[tuple[int, int], ...]
    padding_values: tuple[tuple[PaddingValue, ...], ...]

    def fits(self, exact: Shapes) -> bool:
        """Whether every value of these shapes lies in its array, and varies as expected."""
        varying = set(self.slots)
        return all(
            n <= room if (value, axis) in varying else n == room
            for value, (shape, array) in enumerate(
                zip(exact.values, self.shapes.values, strict=True)
            )
            for axis, (n, room) in enumerate(zip(shape, array, strict=True))
        )

    def sizes(self, exact: Shapes) -> NDArray[np.int32]:
        """What a run is handed for these true shapes."""
        return np.array([exact.values[value][axis] for value, axis in self.slots], np.int32)


@owned_cache
def masked_shapes(shapes: Shapes) -> MaskedShapes:
    """What a program whose arrays have these shapes needs to mask them.

    Raises LayerError where a layer cannot work in arrays larger than its blobs.
    """
    graph = shapes.graph
    slots = _varying(shapes)
    varying = set(slots)
    partial: list[PartialShape] = [
        tuple(None if (value, axis) in varying else n for axis, n in enumerate(shape))
        for value, shape in enumerate(shapes.values)
    ]
    return MaskedShapes(
        shapes, slots, tuple(_padding_values(graph, n, partial) for n in range(len(graph.nodes)))
    )


def _varying(shapes: Shapes) -> tuple[tuple[int, int], ...]:
    """(value, axis) of each size that depends on the images' sizes."""
    larger = {
        name: _resized(shape, {axis: shape[axis] + _PROBE for axis in spatial(shape)})
        for name, shape in shapes.fed.items()
    }
    other = infer(shapes.graph, larger)
    return tuple(
        (value, axis)
        for value, (shape, probed) in enumerate(zip(shapes.values, other.values, strict=True))
        for axis, (n, m) in enumerate(zip(shape, probed, strict=True))
        if n != m
    )


def _padding_values(
    graph: Graph, n: int, partial: Sequence[PartialShape]
) -> tuple[PaddingValue, ...]:
    node = graph.nodes[n]
    bottoms = [partial[i] for i in node.bottoms]
    if not any(None in bottom for bottom in bottoms):
        return ()
    with blame(node.place, node.who):
        needs = node.layer.padding_values(*bottoms)
        if needs is None:
            fail("needs blobs of their own size", LayerError)
    return needs


class ValidRegions:
    """The valid region of each array of one run, from the run's true sizes."""

    def __init__(self, masked_shapes: MaskedShapes, sizes: jax.Array) -> None:
        self.masked_shapes = masked_shapes
        found: dict[int, dict[int, jax.Array]] = {}
        for slot, (value, axis) in enumerate(masked_shapes.slots):
            found.setdefault(value, {})[axis] = sizes[slot]
        self._regions = {value: ValidRegion(along) for value, along in found.items()}

    def of(self, values: Sequence[int]) -> tuple[ValidRegion | None, ...]:
        """The valid regions of some values; None where all of the array is valid."""
        return tuple(self._regions.get(value) for value in values)

    def surrounded(self, n: int, ctx: Context, arrays: Sequence[jax.Array]) -> list[jax.Array]:
        """A layer's bottoms, with the padding values that it needs outside their regions."""
        needs = self.masked_shapes.padding_values[n] or (PaddingValue.ANYTHING,) * len(arrays)
        return [
            array if (inside := ctx.inside(i, array)) is None else surround(array, inside, need)
            for i, (array, need) in enumerate(zip(arrays, needs, strict=True))
        ]

    def cleared(
        self, value: int, array: jax.Array, fill: float = 0.0, channels_last: bool = False
    ) -> jax.Array:
        """An array of a value with ``fill`` outside its valid region."""
        region = self._regions.get(value)
        if region is None:
            return array
        inside = region.inside(array.shape, places(array.ndim, channels_last))
        return jnp.where(inside, array, jnp.asarray(fill, array.dtype))


@dataclass(frozen=True, eq=False)
class Bucketed:
    """A batch in the arrays of a size bucket, as a program takes it.

    feeds: arrays by blob. shapes: of the arrays, and of all that is made of them. exact: the shapes
    of the blobs themselves. sizes: the true sizes, as `MaskedShapes.sizes` gives them; None if the
    arrays are no larger than the blobs.
    """

    feeds: Mapping[str, Any]
    shapes: Shapes
    exact: Shapes
    sizes: Any = None

    def cut(self, name: str, array: Any) -> Any:
        """The valid region of an array that a run made for a blob."""
        shape = self.exact.values[self.exact.graph.all_blobs[name]]
        return array if array.shape == shape else array[tuple(slice(n) for n in shape)]

    @cached_property
    def unpadded(self) -> Bucketed:
        """The same batch in arrays of its own size, for a program of that size."""
        if self.sizes is None:
            return self
        exact = self.exact.fed
        feeds = {
            name: array[tuple(slice(n) for n in exact[name])] for name, array in self.feeds.items()
        }
        return Bucketed(feeds, self.exact, self.exact)
