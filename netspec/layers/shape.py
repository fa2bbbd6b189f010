"""Shapes in Caffe's axis order, the axes that settings name, and what messages call them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax

from netspec.errors import require

Shape = tuple[int, ...]
Array = jax.Array


def count(shape: Sequence[int]) -> int:
    """The number of elements in a shape."""
    return math.prod(shape)


def text(shape: Sequence[int]) -> str:
    """A shape as people write it: ``1x3x500x500``; ``scalar`` for rank 0."""
    return "x".join(map(str, shape)) or "scalar"


def canonical_axis(axis: int, rank: int) -> int:
    """``axis`` counted from the front; raises LayerError if a blob of ``rank`` axes lacks it."""
    require(-rank <= axis < rank, f"axis {axis} of a blob with {rank} axes")
    return axis % rank


def axis_or_legacy(param: Any, legacy: str, rank: int) -> int:
    """The axis that a message names in ``axis`` or in the older field ``legacy``.

    Counted from the front. Raises LayerError if both fields are given, or the axis does not exist.
    """
    require(
        not (param.HasField("axis") and param.HasField(legacy)), f"give axis or {legacy}, not both"
    )
    if param.HasField(legacy):
        axis = getattr(param, legacy)
        require(axis < rank, f"{legacy} {axis} of {rank} axes")
        return axis
    return canonical_axis(param.axis, rank)


def is_spatial(axis: int, rank: int) -> bool:
    """Whether ``axis`` of a blob (N, C, ...) with ``rank`` spatial axes is one of those."""
    return axis >= 2 or -rank <= axis < 0


def same_shape(bottoms: Sequence[Shape]) -> None:
    """Raise LayerError unless all bottoms have the first one's shape."""
    for i, bottom in enumerate(bottoms[1:], 1):
        require(
            bottom == bottoms[0],
            f"bottoms must have one shape: bottom 0 is {text(bottoms[0])}, "
            f"bottom {i} is {text(bottom)}",
        )
