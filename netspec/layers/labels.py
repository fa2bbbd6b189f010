"""Class indices and row numbers, which Caffe's blobs hold as floats."""

from __future__ import annotations

import jax.numpy as jnp

from netspec.layers.shape import Array


def as_labels(array: Array) -> Array:
    """Class indices held in floats, as integers (truncated, as a cast in C does)."""
    return array.astype(jnp.int32)


def pick_rows(table: Array, indices: Array) -> Array:
    """The rows of ``table`` that indices held in floats name (truncated); NaN outside the table.

    (R, ...), (...) -> (..., ...). Gradients of a row picked more than once add up.
    """
    inside = (indices >= 0) & (indices < table.shape[0])
    # Negative indices would wrap around.
    rows = jnp.where(inside, as_labels(indices), table.shape[0])
    return table.at[rows].get(mode="fill", fill_value=jnp.nan)
