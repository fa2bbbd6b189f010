"""Pooling over images, by windows and by pyramids of bins."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import counted, require
from netspec.layers.base import Geometry, Layer
from netspec.layers.context import Context
from netspec.layers.coord_map import CoordMap
from netspec.layers.lowering import windows
from netspec.layers.numerics import MemoryLayout, Numerics, Precision
from netspec.layers.records import PhaseChoice, Traits
from netspec.layers.registry import register
from netspec.layers.shape import Array, Shape, count, text
from netspec.layers.valid_region import PaddingValue, PartialShape, Size
from netspec.layers.window import SlidingWindow, pooling_window
from netspec.proto.layers_pb2 import PoolingParameter, SPPParameter


class _Pooled(Layer):
    """The base of Pooling and SPP: the arithmetic of one pooling."""

    drawn_as = "pooling"
    traits = Traits(phase_choice=PhaseChoice.NOISE)

    def pool(
        self, ctx: Context, method: int, x: Array, window: SlidingWindow, out: Shape, level: int = 0
    ) -> tuple[Array, ...]:
        """Pool ``out`` windows by a ``PoolMethod``; for MAX, say where each maximum lies as well.

        level: which of the layer's poolings this is, as each draws its own random numbers.
        """
        if method != PoolingParameter.AVE:
            x = ctx.kept(f"bottom{level}", x)
        if method == PoolingParameter.MAX:
            top, index = windows.max_pool(x, window, out, ctx.channels_last)
            return top, jax.lax.stop_gradient(index).astype(x.dtype)
        if method == PoolingParameter.AVE:
            total = windows.sum_pool(x, window, out, ctx.channels_last)
            counts = _lay_out(_counts(window, ctx.size(0, x)[2:], out), ctx.channels_last)
            return (total / jnp.asarray(counts, x.dtype),)
        taps = windows.stack_taps(x, window, out, ctx.channels_last)
        return (self._stochastic(ctx, taps, level),)

    def _stochastic(self, ctx: Context, taps: Array, level: int) -> Array:
        """Over the first axis: a pick in TRAIN, the weighted mean in TEST."""
        if not self.train:
            return (taps * taps).sum(0) / (taps.sum(0) + jnp.finfo(taps.dtype).tiny)
        # Not taps.sum(0): with other rounding it could exceed the last of the partial sums.
        sums = jnp.cumsum(taps, 0)
        key = jax.random.fold_in(ctx.key(), level) if level else ctx.key()
        threshold = jax.random.uniform(key, sums[-1:].shape, taps.dtype) * sums[-1:]
        pick = jnp.argmax(sums >= threshold, axis=0)
        return jnp.take_along_axis(taps, pick[None], axis=0)[0]


def pooled_size(window: SlidingWindow, size: Shape, ceil: bool) -> Shape:
    """Caffe's rule for the output size of pooling over an image of ``size``; raises LayerError.

    ceil: steps are rounded up, so that the last window may hang over the border, but with a pad it
    must still start inside image + pad. Caffe: ``PoolingLayer::Reshape``.
    """
    out = []
    for i, (n, k, s, p) in enumerate(window.axes(size)):
        steps = Fraction(n + 2 * p - k, s)
        pooled = (math.ceil(steps) if ceil else math.floor(steps)) + 1
        if any(window.pad) and (pooled - 1) * s >= n + p:
            pooled -= 1
        require(pooled > 0, f"spatial axis {i}: kernel {k} > size {n} + pad {2 * p}")
        out.append(pooled)
    return tuple(out)


@register(param="pooling_param", tops=(1, 2))
class Pooling(_Pooled):
    """Maximum, average or random pick of each window.

    (N, C, H, W) -> (N, C, H', W') with H' = ceil((H + 2 pad - kernel) / stride) + 1 (floor if
    ``round_mode: FLOOR``), less one where the last window would start beyond image + pad.
    MAX: the first of equal maxima takes the gradient; a second top holds where each maximum lies,
    as h * W + w. AVE divides by the part of the window inside image + pad. STOCHASTIC picks an
    element with its value as probability in TRAIN, and takes the mean so weighted in TEST.
    Caffe: ``pooling_layer.cpp``, ``pooling_layer.cu``.
    """

    formula = "y = max, mean or random pick over windows"
    numerics = Numerics(layout=MemoryLayout.CHANNELS_LAST)

    def configure(self) -> None:
        """Indices of maxima need full precision."""
        if self.num_tops == 2:
            self.numerics = replace(self.numerics, precision=Precision.FULL)

    def window(self, bottom: Shape) -> SlidingWindow:
        """The window, which global pooling takes from the bottom."""
        require(len(bottom) == 4, f"pools images (N, C, H, W), but the bottom is {text(bottom)}")
        window = pooling_window(self.param, bottom[2:])
        require(
            self.param.pool != PoolingParameter.STOCHASTIC or window.pad == (0, 0),
            "STOCHASTIC pooling takes no pad",
        )
        return window

    def shape(self, bottom: Shape) -> Shape | tuple[Shape, ...]:
        """(N, C, H, W) -> (N, C, H', W'), for the mask too."""
        require(
            self.num_tops == 1 or self.param.pool == PoolingParameter.MAX,
            "only MAX pooling has a second top (the mask)",
        )
        ceil = self.param.round_mode == PoolingParameter.CEIL
        top = (*bottom[:2], *pooled_size(self.window(bottom), bottom[2:], ceil))
        return (top,) * self.num_tops

    def apply(self, ctx: Context, bottom: Array) -> tuple[Array, ...]:
        shape = ctx.shape(bottom)
        window = self.window(shape)
        ceil = self.param.round_mode == PoolingParameter.CEIL
        out = pooled_size(window, shape[2:], ceil)
        if ctx.left is not None and self.num_tops == 2:
            return _picked(bottom, ctx.left.top(1), ctx.channels_last)
        return self.pool(ctx, self.param.pool, bottom, window, out)[: self.num_tops]

    def padding_values(self, bottom: PartialShape) -> tuple[PaddingValue, ...] | None:
        """What padding holds; indices of maxima and random picks depend on the array's size."""
        p = self.param
        if p.pool == PoolingParameter.MAX:
            return (PaddingValue.LEAST,) if self.num_tops == 1 else None
        window = pooling_window(p, (1, 1))
        gaps = any(s > k for s, k in zip(window.stride, window.kernel, strict=True))
        return (PaddingValue.ZERO,) if p.pool == PoolingParameter.AVE and not gaps else None

    def coords(self, rank: int) -> CoordMap | None:
        """Output pixel p sits at stride p + (kernel - 1) / 2 - pad; none for global pooling."""
        if self.param.global_pooling:
            return None
        return pooling_window(self.param, (1, 1)).over(rank).down()

    def geometry(self, rank: int) -> Geometry:
        """Random picks and indices of maxima are not shift equivariant."""
        stochastic = self.param.pool == PoolingParameter.STOCHASTIC
        return Geometry(
            sees_all=self.param.global_pooling,
            shift_equivariant=self.num_tops == 1 and not stochastic,
        )

    def describe(self) -> str:
        method = PoolingParameter.PoolMethod.Name(self.param.pool)
        if self.param.global_pooling:
            return f"{method}, global"
        return f"{method} {pooling_window(self.param, (1, 1)).describe()}"


@register(param="spp_param")
class SPP(_Pooled):
    """Pool a pyramid of grids over the whole image: a vector whose size no image size changes.

    (N, C, H, W) -> (N, C (1 + 4 + 16 + ...)) of ``pyramid_height`` levels; level i pools into
    2^i x 2^i bins, each level is flattened, and they are joined. A single level stays unflattened:
    (N, C, 1, 1). Padding makes bins of one size, ceil(H / 2^i).
    Caffe: ``spp_layer.cpp``. Differs: STOCHASTIC takes the weighted mean in TEST, as Pooling does,
    where Caffe draws in both phases.
    """

    formula = "y = [max, mean or random pick over 1x1, 2x2, 4x4, ... bins]"
    numerics = Numerics(layout=MemoryLayout.EITHER)

    def levels(self, bottom: Shape) -> list[tuple[SlidingWindow, Shape]]:
        """For each level, the window and how many of them there are."""
        require(len(bottom) == 4, f"pools images (N, C, H, W), but the bottom is {text(bottom)}")
        require(self.param.pyramid_height > 0, "needs pyramid_height")
        levels = []
        for level in range(self.param.pyramid_height):
            window = _bins(bottom[2:], level)
            require(
                self.param.pool != SPPParameter.STOCHASTIC or window.pad == (0, 0),
                f"level {level}: {text(bottom[2:])} does not divide into {text((2**level,) * 2)} "
                "bins, and STOCHASTIC pooling takes no pad",
            )
            levels.append((window, pooled_size(window, bottom[2:], ceil=True)))
        return levels

    def shape(self, bottom: Shape) -> Shape:
        """(N, C, H, W) -> (N, C bins), or (N, C, 1, 1) for one level."""
        sizes = [out for _, out in self.levels(bottom)]
        if len(sizes) == 1:
            return bottom[:2] + sizes[0]
        return bottom[0], bottom[1] * sum(map(count, sizes))

    def apply(self, ctx: Context, x: Array) -> Array:
        tops = [
            self.pool(ctx, self.param.pool, x, window, out, level)[0]
            for level, (window, out) in enumerate(self.levels(ctx.shape(x)))
        ]
        if len(tops) == 1:
            return tops[0]
        if ctx.channels_last:
            tops = [jnp.moveaxis(top, -1, 1) for top in tops]
        return jnp.concatenate([top.reshape(len(top), count(top.shape[1:])) for top in tops], 1)

    def geometry(self, rank: int) -> Geometry:
        """One bin holds the whole image."""
        return Geometry(sees_all=True)

    def describe(self) -> str:
        method = SPPParameter.PoolMethod.Name(self.param.pool)
        return f"{method}, {counted(self.param.pyramid_height, 'level')}"


def _picked(x: Array, index: Array, channels_last: bool) -> tuple[Array, Array]:
    """The pixels of ``x`` at the places h * W + w in ``index``, and the index."""
    n, axis = len(x), 1 if channels_last else 2
    flat = (n, -1, x.shape[-1]) if channels_last else (n, x.shape[1], -1)
    places = index.reshape(flat).astype(jnp.int32)
    return jnp.take_along_axis(x.reshape(flat), places, axis).reshape(index.shape), index


def _bins(size: Shape, level: int) -> SlidingWindow:
    """The window that cuts an image of ``size`` into 2^level bins along each axis."""
    bins = 2**level
    kernel = tuple(math.ceil(Fraction(n, bins)) for n in size)
    pad = tuple((k * bins - n + 1) // 2 for n, k in zip(size, kernel, strict=True))
    for i, (n, p, k) in enumerate(zip(size, pad, kernel, strict=True)):
        require(
            p < k,
            f"level {level}: {bins} bins along spatial axis {i} of size {n}: pad {p} must be less "
            f"than kernel {k}",
        )
    return SlidingWindow(kernel, kernel, pad, (1,) * len(size))


def _counts(window: SlidingWindow, size: Size, out: Shape) -> np.ndarray | Array:
    """How many pixels of image + pad each window covers, (H', W'); 1 where that is none."""
    covered: list[Any] = []
    for n, o, k, s, p in zip(size, out, window.kernel, window.stride, window.pad, strict=True):
        start = np.arange(o) * s - p
        if isinstance(n, int):
            covered.append(np.minimum(start + k, n + p) - start)
        else:
            # Windows outside the valid region cover nothing; their results are masked.
            covered.append(jnp.maximum(jnp.minimum(start + k, n + p) - start, 1))
    if all(isinstance(counts, np.ndarray) for counts in covered):
        return np.outer(*covered)
    return jnp.outer(*covered)


def _lay_out(counts: np.ndarray | Array, channels_last: bool) -> np.ndarray | Array:
    return counts[None, :, :, None] if channels_last else counts[None, None]
