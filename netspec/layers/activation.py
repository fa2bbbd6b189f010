"""Layers that act on each element by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from netspec.errors import require
from netspec.layers.base import Array, Context, Layer, Layout, Shape, register
from netspec.layers.coordinates import CoordMap


class Elementwise(Layer):
    """A layer whose top has the shape, the layout and the coordinates of its bottom."""

    layout = Layout.EITHER

    def coords(self, rank: int) -> CoordMap:
        """Each pixel on itself."""
        return CoordMap.identity(rank)


@register(param="relu_param")
class ReLU(Elementwise):
    """max(x, 0), or ``negative_slope`` times x below zero. Caffe: ``relu_layer.cpp``."""

    formula = "y = max(x, 0) + negative_slope min(x, 0)"

    def apply(self, ctx: Context, x: Array) -> Array:  # type: ignore[override]
        """The gradient at 0 is ``negative_slope``, as Caffe's."""
        return jnp.where(
            x > 0, x, self.param.negative_slope * x if self.param.negative_slope else 0.0
        )

    def describe(self) -> str:
        """The slope, if any."""
        slope = self.param.negative_slope
        return f"slope {slope:g}" if slope else ""


@register(param="power_param")
class Power(Elementwise):
    """(shift + scale x) ^ power. Caffe: ``power_layer.cpp``."""

    formula = "y = (shift + scale x) ^ power"

    def apply(self, ctx: Context, x: Array) -> Array:  # type: ignore[override]
        """Power 1 is affine; power 0, or scale 0, is constant and has no gradient."""
        p = self.param
        if p.power * p.scale == 0:
            return jnp.full_like(x, 1.0) if p.power == 0 else jnp.full_like(x, p.shift) ** p.power
        inner = x * p.scale + p.shift if p.scale != 1 or p.shift != 0 else x
        return inner if p.power == 1 else jnp.power(inner, p.power)

    def describe(self) -> str:
        """The three numbers that are not the default."""
        p = self.param
        names = (("power", p.power, 1), ("scale", p.scale, 1), ("shift", p.shift, 0))
        return ", ".join(f"{name} {value:g}" for name, value, default in names if value != default)


@register(param="dropout_param")
class Dropout(Elementwise):
    """In TRAIN, zero each element with probability ``dropout_ratio`` and scale up the rest.

    In TEST, the identity. Caffe: ``dropout_layer.cpp``.
    """

    formula = "y = x mask / (1 - dropout_ratio)"

    def shape(self, bottom: Shape) -> Shape:  # type: ignore[override]
        """The bottom's."""
        ratio = self.param.dropout_ratio
        require(0 <= ratio < 1, f"dropout_ratio {ratio:g} must be 0 or more, and less than 1")
        return bottom

    def apply(self, ctx: Context, x: Array) -> Array:  # type: ignore[override]
        """The kept elements are scaled so that the mean stays."""
        ratio = self.param.dropout_ratio
        if not self.train:
            return x
        keep = jax.random.bernoulli(ctx.key(), 1 - ratio, x.shape)
        return jnp.where(keep, x * (1 / (1 - ratio)), 0.0)

    def describe(self) -> str:
        """The ratio."""
        return f"ratio {self.param.dropout_ratio:g}"
