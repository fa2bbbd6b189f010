"""Blobs in arrays larger than themselves: how much of an array is the blob, what lies beyond it.

A blob begins where its array does. So one compiled program serves images of many sizes: see
`netspec.runtime.masked_shapes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np

# A blob's shape where its sizes may be traced integers; and where those that vary are None.
Size = tuple[int | jax.Array, ...]
PartialShape = tuple[int | None, ...]


def places(rank: int, channels_last: bool) -> tuple[int, ...]:
    """For each of Caffe's axes, which one of a run's array it is."""
    if not channels_last or rank < 4:
        return tuple(range(rank))
    return (0, rank - 1, *range(1, rank - 1))


class PaddingValue(Enum):
    """What must lie beyond a bottom, so that the top is there as if nothing did."""

    ANYTHING = "any finite number: it is not looked at"
    ZERO = "zeros"
    LEAST = "the least float, which no maximum is"


@dataclass(frozen=True)
class ValidRegion:
    """The true sizes of a blob, by Caffe's axis, along the axes on which its array is larger."""

    sizes: Mapping[int, jax.Array]

    def of(self, shape: tuple[int, ...]) -> Size:
        """The blob's own shape; shape: its array's, as Caffe has it."""
        return tuple(self.sizes.get(axis, size) for axis, size in enumerate(shape))

    def inside(self, shape: tuple[int, ...], places: tuple[int, ...]) -> jax.Array:
        """Which elements of the array are the blob's, as booleans that broadcast to it.

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
    """An array with what a layer needs where it is not ``inside``."""
    if padding_values is PaddingValue.ANYTHING:
        return array
    fill = 0.0 if padding_values is PaddingValue.ZERO else float(np.finfo(array.dtype).min)
    return jnp.where(inside, array, jnp.asarray(fill, array.dtype))
