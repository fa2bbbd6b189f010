"""Layers that rescale blobs: local response normalisation."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from netspec.errors import require
from netspec.layers.activation import Elementwise
from netspec.layers.base import Array, Context, Layout, Shape, register, text
from netspec.proto.layers_pb2 import LRNParameter


@register(param="lrn_param")
class LRN(Elementwise):
    """Divide each element by a power of the energy around it.

    ACROSS_CHANNELS: y = x (k + alpha / local_size * sum of squares over ``local_size`` channels)
    ^ -beta. WITHIN_CHANNEL: the squares are averaged over a square of ``local_size`` pixels, zeros
    beyond the border counted in, and ``k`` is 1 whatever is written.
    (N, C, H, W) -> (N, C, H, W). Caffe: ``lrn_layer.cpp``.
    """

    formula = "y = x (k + alpha mean(x^2)) ^ -beta"
    layout = Layout.EITHER

    def shape(self, bottom: Shape) -> Shape:  # type: ignore[override]
        """The bottom's."""
        require(
            len(bottom) == 4, f"normalises images (N, C, H, W), but the bottom is {text(bottom)}"
        )
        require(self.param.local_size % 2 == 1, f"local_size {self.param.local_size} must be odd")
        return bottom

    def apply(self, ctx: Context, x: Array) -> Array:  # type: ignore[override]
        """Square, sum over the neighbourhood, raise, multiply."""
        p = self.param
        across = p.norm_region == LRNParameter.ACROSS_CHANNELS
        axes = (1,) if across else (2, 3)
        window = [1] * 4
        for axis in axes:
            window[ctx.axis(axis, 4)] = p.local_size
        half = (p.local_size - 1) // 2
        padding = [(half if n > 1 else 0,) * 2 for n in window]
        energy = lax.reduce_window(x * x, x.dtype.type(0), lax.add, window, (1,) * 4, padding)
        mean = energy / float(p.local_size ** len(axes))
        return x * jnp.power((p.k if across else 1.0) + p.alpha * mean, -p.beta)

    def describe(self) -> str:
        """Neighbourhood."""
        region = LRNParameter.NormRegion.Name(self.param.norm_region).lower().replace("_", " ")
        return f"{self.param.local_size} {region}"
