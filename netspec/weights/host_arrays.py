"""Learned arrays on their way from a device to a file."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from netspec.frontend.shapes import ParamKey
from netspec.layers.base import Shape

ArrayLike = np.ndarray | jax.Array
# What to write: "data" and perhaps "diff" -> array by key, None for zeros.
Kinds = dict[str, Mapping[ParamKey, ArrayLike | None]]


def on_host(array: ArrayLike | None, shape: Shape) -> np.ndarray:
    """An array as NumPy's, in a shape of equal count; zeros for None."""
    if array is None:
        return np.zeros(shape, np.float32)
    if isinstance(array, jax.Array) and array.is_fully_replicated:
        # An array keeps what was once fetched of it; this one is soon gone.
        array = array.addressable_data(0)
    return np.asarray(array, np.float32).reshape(shape)
