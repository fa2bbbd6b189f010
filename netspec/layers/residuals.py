"""What a layer's gradient is taken from where forward and backward are passes of their own.

In pycaffe arrays may be edited between a net's ``forward`` and its ``backward``. A layer's backward
then reads its bottoms, tops and learned arrays as they are, and what its own forward kept in
buffers as it was. A layer says which is which in its arithmetic: by `Context.kept` and
`Context.by_top`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax

from netspec.layers.shape import Array


@dataclass(frozen=True)
class Left:
    """What a layer's backward finds besides its bottoms and its learned arrays.

    buffers: what its last forward kept, by name. top: a top by its number, as it is now. Both are
    called only if they are needed, for they may have to be computed once more.
    """

    buffers: Callable[[], Mapping[str, Array]]
    top: Callable[[int], Array]


@jax.custom_jvp
def substitute(value: Array, computed: Array) -> Array:
    """``value``, whose gradient goes to what was ``computed`` in its place."""
    return value


@substitute.defjvp
def _substitute_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    return primals[0], tangents[1]
