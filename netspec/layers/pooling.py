"""Pooling over images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import require
from netspec.layers import lowering
from netspec.layers.base import Array, Context, Layer, Layout, Shape, register, text
from netspec.layers.coordinates import CoordMap
from netspec.layers.window import Window, pooling_window
from netspec.proto.layers_pb2 import PoolingParameter


@register(param="pooling_param", tops=(1, 2))
class Pooling(Layer):
    """Maximum, average or random pick of each window.

    (N, C, H, W) -> (N, C, H', W') with H' = ceil((H + 2 pad - kernel) / stride) + 1 (floor if
    ``round_mode: FLOOR``), less one where the last window would start beyond image + pad.
    MAX: the first of equal maxima takes the gradient; a second top holds where each maximum lies,
    as h * W + w. AVE divides by the part of the window inside image + pad. STOCHASTIC picks an
    element with its value as probability in TRAIN, and takes the mean so weighted in TEST.
    Caffe: ``pooling_layer.cpp``, ``pooling_layer.cu``.
    """

    formula = "y = max, mean or random pick over windows"
    layout = Layout.CHANNELS_LAST

    def window(self, bottom: Shape) -> Window:
        """The window, which global pooling takes from the bottom."""
        require(len(bottom) == 4, f"pools images (N, C, H, W), but the bottom is {text(bottom)}")
        window = pooling_window(self.param, bottom[2:])
        require(
            self.param.pool != PoolingParameter.STOCHASTIC or window.pad == (0, 0),
            "STOCHASTIC pooling takes no pad",
        )
        return window

    def shape(self, bottom: Shape) -> Shape | tuple[Shape, ...]:  # type: ignore[override]
        """(N, C, H, W) -> (N, C, H', W'), for the mask too."""
        require(
            self.num_tops == 1 or self.param.pool == PoolingParameter.MAX,
            "only MAX pooling has a second top (the mask)",
        )
        ceil = self.param.round_mode == PoolingParameter.CEIL
        top = (*bottom[:2], *self.window(bottom).pooled(bottom[2:], ceil))
        return (top,) * self.num_tops

    def apply(self, ctx: Context, bottom: Array) -> tuple[Array, ...]:  # type: ignore[override]
        """Pool by the method asked for."""
        shape = ctx.shape(bottom)
        window = self.window(shape)
        ceil = self.param.round_mode == PoolingParameter.CEIL
        out = window.pooled(shape[2:], ceil)
        if self.param.pool == PoolingParameter.MAX:
            top, index = lowering.max_pool(bottom, window, out, ctx.channels_last)
            mask = jax.lax.stop_gradient(index).astype(bottom.dtype)
            return (top, mask)[: self.num_tops]
        if self.param.pool == PoolingParameter.AVE:
            total = lowering.sum_pool(bottom, window, out, ctx.channels_last)
            counts = _spread(_counts(window, shape[2:], out), ctx.channels_last)
            return (total / jnp.asarray(counts, bottom.dtype),)
        return (self._stochastic(ctx, lowering.stack_taps(bottom, window, out, ctx.channels_last)),)

    def _stochastic(self, ctx: Context, taps: Array) -> Array:
        """Over the first axis: a pick in TRAIN, the weighted mean in TEST."""
        if not self.train:
            return (taps * taps).sum(0) / (taps.sum(0) + jnp.finfo(taps.dtype).tiny)
        # Not taps.sum(0): rounded otherwise, it could exceed the last of the partial sums.
        sums = jnp.cumsum(taps, 0)
        threshold = jax.random.uniform(ctx.key(), sums[-1:].shape, taps.dtype) * sums[-1:]
        pick = jnp.argmax(sums >= threshold, axis=0)
        return jnp.take_along_axis(taps, pick[None], axis=0)[0]

    def coords(self, rank: int) -> CoordMap | None:
        """Output pixel p sits at stride p + (kernel - 1) / 2 - pad; none for global pooling."""
        return None if self.param.global_pooling else pooling_window(self.param, (1,) * rank).down()

    def describe(self) -> str:
        """Method and window."""
        method = PoolingParameter.PoolMethod.Name(self.param.pool)
        if self.param.global_pooling:
            return f"{method}, global"
        return f"{method} {pooling_window(self.param, (1, 1)).describe()}"


def _counts(window: Window, size: Shape, out: Shape) -> np.ndarray:
    """How many pixels of image + pad each window covers, (H', W')."""
    covered = []
    for n, o, k, s, p in zip(size, out, window.kernel, window.stride, window.pad, strict=True):
        start = np.arange(o) * s - p
        covered.append(np.minimum(start + k, n + p) - start)
    return np.outer(*covered)


def _spread(counts: np.ndarray, channels_last: bool) -> np.ndarray:
    return counts[None, :, :, None] if channels_last else counts[None, None]
