"""im2col: lay out the pixels under each window as rows, and convolve by a matrix product.

Products take images (N, H, W, C) and weights (O, I, kh, kw), ungrouped; they accumulate in float32
or more.
"""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
from jax import lax

from netspec.layers.shape import Array, Shape
from netspec.layers.window import SlidingWindow

# At most so many elements of rows are laid out at a time, so that they stay in the CPU's caches.
_BLOCK = 1 << 20


def product(x: Array, w: Array, window: SlidingWindow) -> Array:
    """Convolve in one matrix product, which reads the weights as they lie in memory."""
    out = window.convolved(x.shape[1:3])
    patches = jnp.stack(taps(padded(x, window, out), window, out), axis=-1)
    length = math.prod(w.shape[1:])
    rows = patches.reshape(*patches.shape[:3], length)
    return _matmul(rows, w.reshape(w.shape[0], length), contracting=(3, 1)).astype(x.dtype)


def weight_gradient(x: Array, diff: Array, window: SlidingWindow) -> Array:
    """The gradient of the weights for the top's, ``diff`` (N, h, w, O), in blocks of lines."""
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
        patches = lax.dynamic_slice_in_dim(
            image, i * lines * stride, (lines - 1) * stride + extent, axis=1
        )
        rows = jnp.concatenate(taps(patches, window, (lines, width)), axis=-1)
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


def taps(
    padded: Array, window: SlidingWindow, out: Shape, channels_last: bool = True
) -> list[Array]:
    """The pixels of ``out`` windows under each element of the kernel, in row order."""
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
    x: Array, window: SlidingWindow, out: Shape, value: float = 0.0, channels_last: bool = True
) -> Array:
    """Pad ``x`` in front, and cut or fill it behind so that ``out`` windows fit exactly."""
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
