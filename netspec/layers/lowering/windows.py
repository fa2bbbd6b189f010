"""Convolution and pooling in JAX: the one place that picks an algorithm for each.

Every function takes arrays in a run's layout: (N, C, ...) or, with ``channels_last``,
(N, ..., C). Learned arrays have Caffe's shapes throughout, brought to the type of ``x``. The
``choose_`` functions decide from backend and shape; a better algorithm is a row in one of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from netspec.layers.lowering import im2col
from netspec.layers.shape import Array, Shape, count
from netspec.layers.window import SlidingWindow

_SPATIAL = "XYZUVWABDEFGHJKLMPQRST"
# Above this many elements the zeros off the diagonal cost more than grouping does.
_DENSE_LIMIT = 1 << 22
# Up to this many taps a pooling window is unrolled into shifted slices.
_UNROLL = 16

# Maxima, and where they lie.
Pair = tuple[Array, Array]


def without_zero_dilation(window: SlidingWindow, weight: Array) -> tuple[SlidingWindow, Array]:
    """A window and weight in which elements that all touch one pixel are summed to one."""
    axes = [i for i, d in enumerate(window.dilation) if d == 0]
    if not axes:
        return window, weight
    kernel = tuple(1 if i in axes else k for i, k in enumerate(window.kernel))
    dilation = tuple(d or 1 for d in window.dilation)
    summed = weight.sum([2 + i for i in axes], keepdims=True)
    return replace(window, kernel=kernel, dilation=dilation), summed


def convolution(
    x: Array, w: Array, window: SlidingWindow, groups: int, channels_last: bool
) -> Array:
    """Cross-correlation of ``x`` with ``w`` (O, I / groups, ...)."""
    w = w.astype(x.dtype)
    how = choose_convolution(x.shape, w.shape, window, groups) if channels_last else "direct"
    if how == "product":
        return im2col.product(x, w, window)
    if how == "blocks":
        return _in_blocks(x, w, window)
    return direct(x, w, window, groups, channels_last)


def choose_convolution(x: Shape, w: Shape, window: SlidingWindow, groups: int) -> str:
    """Choose how to convolve images ``x`` (N, ..., C) with weights ``w`` (O, I / groups, ...).

    ``product``: im2col and a matrix product, where there are fewer windows than outputs, as in
    layers that were fully connected. ``blocks``: XLA's convolution with im2col for the gradient of
    the weights, which XLA computes at a small part of the CPU's rate. ``direct``: XLA's convolution
    and its gradients, which are fast on GPUs and TPUs, and for windows of one pixel.
    """
    if jax.default_backend() != "cpu" or groups > 1 or len(w) != 4:
        return "direct"
    if x[0] * math.prod(window.convolved(x[1:-1])) <= w[0]:
        return "product"
    plain = set(window.stride + window.dilation) == {1} and math.prod(window.kernel) > 1
    return "blocks" if plain else "direct"


def direct(x: Array, w: Array, window: SlidingWindow, groups: int, channels_last: bool) -> Array:
    """`convolution` by XLA's own algorithm."""
    spatial = x.shape[1:-1] if channels_last else x.shape[2:]
    return lax.conv_general_dilated(
        x,
        w,
        window_strides=window.stride,
        padding=window.padding(spatial),
        rhs_dilation=window.dilation,
        feature_group_count=groups,
        dimension_numbers=_dimensions(x.ndim, channels_last, "OI"),
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _in_blocks(x: Array, w: Array, window: SlidingWindow) -> Array:
    return direct(x, w, window, 1, True)


def _blocks_forward(x: Array, w: Array, window: SlidingWindow) -> tuple[Array, tuple[Array, Array]]:
    return direct(x, w, window, 1, True), (x, w)


def _blocks_backward(
    window: SlidingWindow, residuals: tuple[Array, Array], diff: Array
) -> tuple[Array, Array]:
    x, w = residuals
    (x_diff,) = jax.vjp(lambda x: direct(x, w, window, 1, True), x)[1](diff)
    return x_diff, im2col.weight_gradient(x, diff, window)


_in_blocks.defvjp(_blocks_forward, _blocks_backward)


def deconvolution(
    x: Array, w: Array, window: SlidingWindow, groups: int, channels_last: bool
) -> Array:
    """The transpose of `convolution`: ``x`` spread by ``w`` (I, O / groups, ...)."""
    w = w.astype(x.dtype)
    if groups > 1 and w.size * groups <= _DENSE_LIMIT:
        w, groups = _dense(w, groups), 1
    elif groups > 1:
        split = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
        w = jnp.moveaxis(split, 0, 1).reshape(split.shape[1], -1, *w.shape[2:])
    if channels_last and choose_deconvolution(window, groups) == "phases":
        return _by_phases(x, w, window)
    return direct_transposed(x, w, window, groups, channels_last)


def direct_transposed(
    x: Array, w: Array, window: SlidingWindow, groups: int, channels_last: bool
) -> Array:
    """`deconvolution` by XLA's own algorithm."""
    spatial = tuple(range(2, w.ndim))
    return lax.conv_general_dilated(
        x,
        jnp.flip(w, spatial),
        window_strides=(1,) * len(spatial),
        padding=[(k - 1 - p, k - 1 - p) for k, p in zip(window.extent, window.pad, strict=True)],
        lhs_dilation=window.stride,
        rhs_dilation=window.dilation,
        feature_group_count=groups,
        dimension_numbers=_dimensions(x.ndim, channels_last, "IO"),
    )


def choose_deconvolution(window: SlidingWindow, groups: int) -> str:
    """Choose ``phases`` where ``direct`` would run over zeros inserted for a stride."""
    plain = groups == 1 and set(window.dilation) == {1}
    return "phases" if plain and max(window.stride) > 1 else "direct"


def _by_phases(x: Array, w: Array, window: SlidingWindow) -> Array:
    """Compute all pixels of a stride's cell as channels of one small convolution, then spread them.

    Output pixel s q + r takes input pixels q, q - 1, ... with kernel elements r, r + s, ...
    """
    rank = w.ndim - 2
    taps = [-(-k // s) for k, s in zip(window.kernel, window.stride, strict=True)]
    fill = [(0, t * s - k, 0) for t, s, k in zip(taps, window.stride, window.kernel, strict=True)]
    w = lax.pad(w, w.dtype.type(0), [(0, 0, 0), (0, 0, 0), *fill])
    pairs = [n for t, s in zip(taps, window.stride, strict=True) for n in (t, s)]
    w = w.reshape(*w.shape[:2], *pairs)
    # (I, O, t1, s1, t2, s2, ...) -> (t1, t2, ..., I, s1, s2, ..., O)
    order = [*range(2, w.ndim, 2), 0, *range(3, w.ndim, 2), 1]
    outputs = w.shape[1]
    w = w.transpose(order).reshape(*taps, x.shape[-1], -1)
    axes = _SPATIAL[:rank]
    cells = lax.conv_general_dilated(
        x,
        jnp.flip(w, tuple(range(rank))),
        window_strides=(1,) * rank,
        padding=[(t - 1, t - 1) for t in taps],
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )
    size = cells.shape[1:-1]
    cells = cells.reshape(x.shape[0], *size, *window.stride, outputs)
    # (N, q1, q2, ..., s1, s2, ..., O) -> (N, q1, s1, q2, s2, ..., O)
    order = [0, *(axis for i in range(rank) for axis in (1 + i, 1 + rank + i)), 1 + 2 * rank]
    spread = cells.transpose(order).reshape(
        x.shape[0], *(q * s for q, s in zip(size, window.stride, strict=True)), outputs
    )
    cut = tuple(
        slice(p, p + n) for p, n in zip(window.pad, window.deconvolved(x.shape[1:-1]), strict=True)
    )
    return spread[(slice(None), *cut)]


def _dense(w: Array, groups: int) -> Array:
    """Grouped weights (I, O / groups, ...) as (I, O, ...), zero between groups."""
    inputs, outputs, *kernel = w.shape
    blocks = w.reshape(groups, inputs // groups, 1, outputs, *kernel)
    diagonal = jnp.eye(groups, dtype=w.dtype).reshape(groups, 1, groups, *(1,) * (w.ndim - 1))
    return (blocks * diagonal).reshape(inputs, outputs * groups, *kernel)


def _dimensions(rank: int, channels_last: bool, weights: str) -> tuple[str, str, str]:
    axes = _SPATIAL[: rank - 2]
    image = f"N{axes}C" if channels_last else f"NC{axes}"
    return image, weights + axes, image


def max_pool(
    x: Array, window: SlidingWindow, out: Shape, channels_last: bool
) -> tuple[Array, Array]:
    """Maximum of each window and where it lies, as an index h * W + w into the image.

    Of equal maxima the first in row order wins, and takes the whole gradient. A window outside the
    image (a stride greater than the kernel can leave one) gives the least float, at -1.
    """
    if math.prod(window.kernel) <= _UNROLL:
        return _max_of_taps(x, window, out, channels_last)
    return _max_by_index(x, window, out, channels_last)


def _max_of_taps(
    x: Array, window: SlidingWindow, out: Shape, channels_last: bool
) -> tuple[Array, Array]:
    padded = im2col.padded(x, window, out, float(jnp.finfo(x.dtype).min), channels_last)
    where = im2col.padded(_positions(x, channels_last), window, out, -1, channels_last)
    taps = im2col.taps(padded, window, out, channels_last)
    indices = im2col.taps(where, window, out, channels_last)
    # Caffe begins with the least float, to which NaN is not greater. One more comparison a window
    # takes 3 % of a step of a narrow FCN-8s.
    best, index = taps[0], jnp.broadcast_to(indices[0], taps[0].shape)
    for tap, here in zip(taps[1:], indices[1:], strict=True):
        better = tap > best
        best = jnp.where(better, tap, best)
        index = jnp.where(better, here, index)
    return best, index


def _max_by_index(x: Array, window: SlidingWindow, out: Shape, channels_last: bool) -> Pair:
    """Reduce (value, index) pairs in one pass; the gradient goes through a gather."""

    def first_maximum(a: Pair, b: Pair) -> Pair:
        (va, ia), (vb, ib) = a, b
        keep = (va > vb) | ((va == vb) & (ia <= ib))
        return jnp.where(keep, va, vb), jnp.where(keep, ia, ib)

    where = jnp.broadcast_to(_positions(x, channels_last), x.shape)
    size, stride = _full(window.kernel, channels_last), _full(window.stride, channels_last)
    limit = jnp.iinfo(jnp.int32).max
    # NaN is greater than nothing, as in Caffe.
    numbers = jnp.where(jnp.isnan(x), -jnp.inf, lax.stop_gradient(x))
    values = im2col.padded(numbers, window, out, -jnp.inf, channels_last)
    value, index = lax.reduce_window(
        (values, im2col.padded(where, window, out, limit, channels_last)),
        (jnp.array(-jnp.inf, x.dtype), jnp.array(limit, jnp.int32)),
        first_maximum,
        size,
        stride,
        "VALID",
    )
    flat, picks = (_flat(a, channels_last) for a in (x, index))
    best = jnp.take_along_axis(flat, picks, axis=1 if channels_last else 2).reshape(index.shape)
    outside = value == -jnp.inf
    return jnp.where(outside, jnp.finfo(x.dtype).min, best), jnp.where(outside, -1, index)


def sum_pool(x: Array, window: SlidingWindow, out: Shape, channels_last: bool) -> Array:
    """Sum over each window."""
    return lax.reduce_window(
        im2col.padded(x, window, out, 0.0, channels_last),
        x.dtype.type(0),
        lax.add,
        _full(window.kernel, channels_last),
        _full(window.stride, channels_last),
        "VALID",
    )


def stack_taps(x: Array, window: SlidingWindow, out: Shape, channels_last: bool) -> Array:
    """The elements of each window in row order, along a new first axis; padding gives zeros."""
    padded = im2col.padded(x, window, out, 0.0, channels_last)
    return jnp.stack(im2col.taps(padded, window, out, channels_last))


def _positions(x: Array, channels_last: bool) -> Array:
    spatial = x.shape[1:-1] if channels_last else x.shape[2:]
    index = jnp.arange(math.prod(spatial), dtype=jnp.int32)
    return index.reshape(1, *spatial, 1) if channels_last else index.reshape(1, 1, *spatial)


def _full(window: Shape, channels_last: bool) -> Shape:
    return (1, *window, 1) if channels_last else (1, 1, *window)


def _flat(x: Array, channels_last: bool) -> Array:
    if channels_last:
        return x.reshape(x.shape[0], count(x.shape[1:-1]), x.shape[-1])
    return x.reshape(*x.shape[:2], count(x.shape[2:]))
