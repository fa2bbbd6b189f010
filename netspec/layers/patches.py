"""Convolution as a matrix product: each window of the image laid out as a row.

Images are (N, H, W, C), weights (O, I, kh, kw), ungrouped. All products add up in float32 or more.
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
    taps = jnp.stack(_taps(x, window, window.convolved(x.shape[1:3])), axis=-1)
    length = math.prod(w.shape[1:])
    rows = taps.reshape(*taps.shape[:3], length)
    return _matmul(rows, w.reshape(w.shape[0], length), contracting=(3, 1)).astype(x.dtype)


def weight_gradient(x: Array, diff: Array, window: Window) -> Array:
    """What ``diff`` (N, h, w, O) at the top makes of the weights, some lines of it at a time."""
    samples, height, width, outputs = diff.shape
    length = math.prod(window.kernel) * x.shape[-1]
    lines = min(height, max(1, _BLOCK // max(1, samples * width * length)))
    blocks = -(-height // lines)
    lines = -(-height // blocks)
    (stride, _), (extent, _) = window.stride, window.extent
    padded = _padded(x, window, (blocks * lines, width))
    diff = lax.pad(
        diff, diff.dtype.type(0), [(0, 0, 0), (0, blocks * lines - height, 0), *[(0, 0, 0)] * 2]
    )
    unpadded = Window(window.kernel, window.stride, (0, 0), window.dilation)

    def block(i: Array | int) -> Array:
        seen = lax.dynamic_slice_in_dim(
            padded, i * lines * stride, (lines - 1) * stride + extent, axis=1
        )
        rows = jnp.concatenate(_taps(seen, unpadded, (lines, width)), axis=-1)
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


def _taps(x: Array, window: Window, size: Shape) -> list[Array]:
    """For each element of the kernel, the pixels (N, h, w, C) that h by w windows see there."""
    padded = _padded(x, window, size)
    taps = []
    for offset in itertools.product(*map(range, window.kernel)):
        cut = [
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, d, n, s in zip(offset, window.dilation, size, window.stride, strict=True)
        ]
        taps.append(padded[(slice(None), *cut)])
    return taps


def _padded(x: Array, window: Window, size: Shape) -> Array:
    """``x`` with its padding, and as much behind, perhaps less than none, as ``size`` windows see.

    Rows and columns that no window sees are cut away.
    """
    edges = [
        (p, (n - 1) * s + k - old - p, 0)
        for old, n, s, k, p in zip(
            x.shape[1:3], size, window.stride, window.extent, window.pad, strict=True
        )
    ]
    return lax.pad(x, x.dtype.type(0), [(0, 0, 0), *edges, (0, 0, 0)])


def _matmul(a: Array, b: Array, contracting: tuple[int, int]) -> Array:
    axes = ((contracting[0],), (contracting[1],))
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=wide)
