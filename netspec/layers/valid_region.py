"""The valid region of an array: the blob, in an array that may be larger than it.

A blob begins where its array does. Padded arrays let one compiled program serve images of many
sizes: see `netspec.runtime.masked_shapes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np

# A blob's shape whose sizes may be traced integers, and one whose varying sizes are None.
Size = tuple[int | jax.Array, ...]
PartialShape = tuple[int | None, ...]


def places(rank: int, channels_last: bool) -> tuple[int, ...]:
    """For each of Caffe's axes, which one of a run's array it is."""
    if not channels_last or rank < 4:
        return tuple(range(rank))
    return (0, rank - 1, *range(1, rank - 1))


class PaddingValue(Enum):
    """The value that a layer needs outside a bottom's valid region to change no result."""

    ANYTHING = "any finite number: it is not read"
    ZERO = "zeros"
    LEAST = "the least float, which no maximum is"


@dataclass(frozen=True)
class ValidRegion:
    """The sizes of a blob along those of Caffe's axes on which its array may be larger."""

    sizes: Mapping[int, jax.Array]

    def of(self, shape: tuple[int, ...]) -> Size:
        """The blob's own shape; shape: its array's, as Caffe has it."""
        return tuple(self.sizes.get(axis, size) for axis, size in enumerate(shape))

    def inside(self, shape: tuple[int, ...], places: tuple[int, ...]) -> jax.Array:
        """The mask of the blob's elements, booleans that broadcast to the array.

        shape: the array's. places: for each of Caffe's axes, which of the array's it is.
        """
        masks = []
        for axis, size in self.sizes.items():
            index = jax.lax.broadcasted_iota(
                jnp.int32,
                tuple(n if i == places[axis] else 1 for i, n in enumerate(shape)),
                places[axis],
            )
            masks.append(index < size)
        return reduce(jnp.logical_and, masks)


def surround(array: jax.Array, inside: jax.Array, padding_values: PaddingValue) -> jax.Array:
    """Replace an array's elements that are not ``inside`` by the value that a layer needs."""
    if padding_values is PaddingValue.ANYTHING:
        return array
    fill = 0.0 if padding_values is PaddingValue.ZERO else float(np.finfo(array.dtype).min)
    return jnp.where(inside, array, jnp.asarray(fill, array.dtype))
