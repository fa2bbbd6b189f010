"""What windows see, and convolution as a product of matrices whose rows are that.

Products take images (N, H, W, C) and weights (O, I, kh, kw), ungrouped; they add up in float32 or
more.
"""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
from jax import lax

from netspec.layers.base import Array, Shape
from netspec.layers.window import Window

# Elements of the rows that are laid out at a time: they should stay in the processor's caches.
_BLOCK = 1 << 20


def product(x: Array, w: Array, window: Window) -> Array:
    """The convolution in one product, which reads the weights as they lie in memory."""
    out = window.convolved(x.shape[1:3])
    seen = jnp.stack(taps(padded(x, window, out), window, out), axis=-1)
    length = math.prod(w.shape[1:])
    rows = seen.reshape(*seen.shape[:3], length)
    return _matmul(rows, w.reshape(w.shape[0], length), contracting=(3, 1)).astype(x.dtype)


def weight_gradient(x: Array, diff: Array, window: Window) -> Array:
    """What ``diff`` (N, h, w, O) at the top makes of the weights, some lines of it at a time."""
    samples, height, width, outputs = diff.shape
    length = math.prod(window.kernel) * x.shape[-1]
    lines = min(height, max(1, _BLOCK // max(1, samples * width * length)))
    blocks = -(-height // lines)
    lines = -(-height // blocks)
    (stride, _), (extent, _) = window.stride, window.extent
    image = padded(x, window, (blocks * lines, width))
    diff = lax.pad(
        diff, diff.dtype.type(0), [(0, 0, 0), (0, blocks * lines - height, 0), *[(0, 0, 0)] * 2]
    )

    def block(i: Array | int) -> Array:
        seen = lax.dynamic_slice_in_dim(
            image, i * lines * stride, (lines - 1) * stride + extent, axis=1
        )
        rows = jnp.concatenate(taps(seen, window, (lines, width)), axis=-1)
        above = lax.dynamic_slice_in_dim(diff, i * lines, lines, axis=1)
        windows = samples * lines * width
        return _matmul(
            rows.reshape(windows, length), above.reshape(windows, outputs), contracting=(0, 0)
        )

    total = block(0)
    if blocks > 1:
        total = lax.fori_loop(1, blocks, lambda i, total: total + block(i), total)
    shaped = total.reshape(*window.kernel, x.shape[-1], outputs)
    return shaped.transpose(3, 2, 0, 1).astype(x.dtype)


def taps(padded: Array, window: Window, out: Shape, channels_last: bool = True) -> list[Array]:
    """For each element of the kernel, in row order, the pixels that ``out`` windows see there."""
    found = []
    for offset in itertools.product(*map(range, window.kernel)):
        cut = [
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, d, n, s in zip(offset, window.dilation, out, window.stride, strict=True)
        ]
        outer = (slice(None),)
        found.append(padded[(*outer, *cut) if channels_last else (*outer, *outer, *cut)])
    return found


def padded(
    x: Array, window: Window, out: Shape, value: float = 0.0, channels_last: bool = True
) -> Array:
    """``x`` with padding in front, and cut or filled behind so that ``out`` windows fit exactly."""
    spatial = x.shape[1:-1] if channels_last else x.shape[2:]
    edges = [
        (p, (o - 1) * s + k - n - p, 0)
        for n, o, s, k, p in zip(
            spatial, out, window.stride, window.extent, window.pad, strict=True
        )
    ]
    none = (0, 0, 0)
    config = [none, *edges, none] if channels_last else [none, none, *edges]
    return lax.pad(x, jnp.array(value, x.dtype), config)


def _matmul(a: Array, b: Array, contracting: tuple[int, int]) -> Array:
    axes = ((contracting[0],), (contracting[1],))
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=wide)
