"""How a run computes what it computes: its precision, and which residuals it keeps.

The one place that decides which array of a run is of which type.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from netspec.errors import GraphError, require
from netspec.frontend.graph import Node
from netspec.layers.base import Array
from netspec.layers.numerics import Precision

# What matrix products of float32 are computed in, as JAX calls it. Left to itself, it takes less
# than float32 on a GPU or a TPU.
_PRODUCTS = {"f32": "highest", "tf32": "tensorfloat32", "bf16": "tensorfloat32"}
DTYPES = tuple(_PRODUCTS)


@dataclass(frozen=True)
class ComputePolicy:
    """How a run computes.

    dtype: ``f32``: all in float32. ``tf32``: products of float32 by the short multiplication of
    tensor cores, where a device has such. ``bf16``: products of bfloat16, which the blobs between
    them are held in. remat: most blobs are not kept as residuals but computed again.
    """

    dtype: str = "f32"
    remat: bool = False

    def __post_init__(self) -> None:
        """Refuse an unknown dtype with GraphError."""
        known = ", ".join(DTYPES)
        require(self.dtype in DTYPES, f'unknown dtype "{self.dtype}" ({known})', GraphError)

    @property
    def blob_bytes(self) -> int:
        """The bytes of a number in the blobs between layers."""
        return 2 if self.dtype == "bf16" else 4

    def describe(self) -> str:
        """In which types blobs are computed and held."""
        return {
            "f32": "all in float32",
            "tf32": "products in tf32 where the device has it, all else in float32",
            "bf16": "products in bfloat16; parameters, statistics and losses in float32",
        }[self.dtype]

    def products(self) -> AbstractContextManager[Any]:
        """While it is open, matrix products are traced in this precision."""
        return jax.default_matmul_precision(_PRODUCTS[self.dtype])

    def bottoms(self, node: Node, arrays: Sequence[Array]) -> list[Array]:
        """A layer's bottoms as it computes with them."""
        if self.dtype != "bf16":
            return list(arrays)
        if node.layer.numerics.precision is Precision.PRODUCTS:
            return [array.astype(jnp.bfloat16) for array in arrays]
        return [wide(array) for array in arrays]

    def tops(
        self, node: Node, bottoms: Sequence[Array], tops: Sequence[Array]
    ) -> tuple[Array, ...]:
        """A layer's tops as they are held. bottoms: as they were held."""
        if self.dtype != "bf16" or node.layer.numerics.precision is Precision.FULL:
            return tuple(tops)
        if node.layer.numerics.precision is Precision.PRODUCTS:
            return tuple(top.astype(jnp.bfloat16) for top in tops)
        looked_at = [
            array.dtype
            for i, array in enumerate(bottoms)
            if i not in node.layer.bottom_use.shape_only
        ]
        if not looked_at:
            return tuple(tops)
        return tuple(top.astype(jnp.result_type(*looked_at)) for top in tops)


PLAIN = ComputePolicy()


def wide(array: Array) -> Array:
    """An array in float32, if it is narrower."""
    return array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array
