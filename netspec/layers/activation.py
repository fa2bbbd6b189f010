"""Activations: layers that act on each element by itself."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from netspec.errors import require
from netspec.layers.base import Geometry, Layer
from netspec.layers.context import Context
from netspec.layers.coord_map import CoordMap
from netspec.layers.numerics import MemoryLayout, Numerics
from netspec.layers.records import Blob, BottomUse, PhaseChoice, Traits
from netspec.layers.registry import register
from netspec.layers.shape import Array, Shape, text
from netspec.layers.valid_region import PaddingValue, PartialShape
from netspec.proto.layers_pb2 import FillerParameter, PowerParameter


class Elementwise(Layer):
    """A layer whose top has the shape, the layout and the coordinates of its bottom."""

    numerics = Numerics(layout=MemoryLayout.EITHER)

    def coords(self, rank: int) -> CoordMap:
        """Each pixel on itself."""
        return CoordMap.identity(rank)

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Any value: elements do not mix."""
        return (PaddingValue.ANYTHING,) * len(bottoms)


class Pointwise(Elementwise):
    """An elementwise layer that does the same to every element of a channel."""

    def geometry(self, rank: int) -> Geometry:
        """Shift equivariant."""
        return Geometry(shift_equivariant=True)


@register(param="relu_param")
class ReLU(Pointwise):
    """max(x, 0), or ``negative_slope`` times x below zero. Caffe: ``relu_layer.cpp``."""

    formula = "y = max(x, 0) + negative_slope min(x, 0)"

    def apply(self, ctx: Context, x: Array) -> Array:
        """The gradient at 0 is ``negative_slope``, and NaN passes through, as in Caffe."""
        slope = self.param.negative_slope

        def by(sign: Array) -> Array:
            return jnp.where(sign <= 0, slope * x if slope else 0.0, x)

        # In place the top alone is there, and has the bottom's sign.
        return ctx.by_top(by(x), by) if self.in_place and slope >= 0 else by(x)

    def describe(self) -> str:
        slope = self.param.negative_slope
        return f"slope {slope:g}" if slope else ""


@register(param="power_param")
class Power(Pointwise):
    """(shift + scale x) ^ power. Caffe: ``power_layer.cpp``."""

    formula = "y = (shift + scale x) ^ power"

    def apply(self, ctx: Context, x: Array) -> Array:
        """An affine map for power 1; a constant without gradient for power 0 or scale 0."""
        p = self.param
        if p.power * p.scale == 0:
            return jnp.full_like(x, 1.0) if p.power == 0 else jnp.full_like(x, p.shift) ** p.power
        inner = x * p.scale + p.shift if p.scale != 1 or p.shift != 0 else x
        if p.power == 1:
            return inner
        y = jnp.power(inner, p.power)
        # Caffe's slope is power y / inner, which is no number at 0; it matters to edited tops only.
        return y if p.power == 2 else ctx.by_top(y, lambda top: _power_by_top(p, inner, y, top))

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Zeros, if neither their power nor its slope is infinite."""
        p = self.param
        safe = p.shift > 0 or (p.power >= 0 and p.power == int(p.power))
        return (PaddingValue.ZERO,) if safe else None

    def describe(self) -> str:
        return _changed(self.param, power=1, scale=1, shift=0)


@register(param="dropout_param")
class Dropout(Elementwise):
    """In TRAIN, zero each element with probability ``dropout_ratio`` and scale up the rest.

    In TEST, the identity, whatever the ratio. A ratio of 1 gives NaN in TRAIN, as in Caffe: what
    is left, nothing, is scaled up by 1 / 0. Caffe: ``dropout_layer.cpp``.
    """

    formula = "y = x mask / (1 - dropout_ratio)"
    traits = Traits(phase_choice=PhaseChoice.NOISE)

    def shape(self, bottom: Shape) -> Shape:
        ratio = self.param.dropout_ratio
        require(not self.train or 0 <= ratio <= 1, f"dropout_ratio {ratio:g} must be 0 to 1")
        return bottom

    def apply(self, ctx: Context, x: Array) -> Array:
        ratio = self.param.dropout_ratio
        if not self.train:
            return x
        if ratio == 1:
            return x * math.nan
        keep = jax.random.bernoulli(ctx.key(), 1 - ratio, x.shape)
        return jnp.where(keep, x * (1 / (1 - ratio)), 0.0)

    def describe(self) -> str:
        return f"ratio {self.param.dropout_ratio:g}"


@register(param="prelu_param")
class PReLU(Pointwise):
    """max(x, 0) + slope min(x, 0), with one learned slope a channel, or one for all.

    (N, C, ...) -> (N, C, ...). Blobs: slope (C), or a scalar if ``channel_shared``; 0.25 if there
    is no ``filler``. Caffe: ``prelu_layer.cpp``.
    """

    formula = "y = max(x, 0) + slope min(x, 0)"

    def shape(self, bottom: Shape) -> Shape:
        require(len(bottom) >= 2, f"needs channels on axis 1, but the bottom is {text(bottom)}")
        return bottom

    def blobs(self, bottom: Shape) -> dict[str, Blob]:
        filler = self.param.filler if self.param.HasField("filler") else FillerParameter(value=0.25)
        return {"slope": Blob(() if self.param.channel_shared else (bottom[1],), filler)}

    def apply(self, ctx: Context, x: Array) -> Array:
        """The gradient at 0 is the slope, as in Caffe."""
        slope = ctx.blobs["slope"]
        channel = ctx.axis(1, x.ndim)
        shape = [slope.size if i == channel else 1 for i in range(x.ndim)]
        return jnp.where(x > 0, x, slope.reshape(shape) * x)

    def describe(self) -> str:
        return "shared" if self.param.channel_shared else ""


@register(param="elu_param")
class ELU(Pointwise):
    """x above 0, alpha (exp(x) - 1) below. Caffe: ``elu_layer.cpp``."""

    formula = "y = x if x > 0 else alpha (exp(x) - 1)"

    def apply(self, ctx: Context, x: Array) -> Array:
        """The gradient at 0 is alpha, as in Caffe; the exponential of x > 0 is never taken."""
        alpha = self.param.alpha

        def gradient(top: Array) -> Array:
            sign = top if self.in_place and alpha >= 0 else x
            return jnp.where(sign > 0, x, (alpha + top) * x)

        top = jnp.where(x > 0, x, alpha * jnp.expm1(jnp.where(x > 0, 0.0, x)))
        return ctx.by_top(top, gradient)

    def describe(self) -> str:
        return f"alpha {self.param.alpha:g}" if self.param.alpha != 1 else ""


@register(param="sigmoid_param")
class Sigmoid(Pointwise):
    """1 / (1 + exp(-x)). Caffe: ``sigmoid_layer.cpp``."""

    formula = "y = 1 / (1 + exp(-x))"

    def apply(self, ctx: Context, x: Array) -> Array:
        # Through tanh, as Caffe computes it.
        return ctx.by_top(0.5 * jnp.tanh(0.5 * x) + 0.5, lambda top: top * (1 - top) * x)


@register(param="swish_param")
class Swish(Pointwise):
    """x sigmoid(beta x). Caffe: ``swish_layer.cpp``."""

    formula = "y = x / (1 + exp(-beta x))"

    def apply(self, ctx: Context, x: Array) -> Array:
        beta = self.param.beta
        sigmoid = ctx.kept("sigmoid", 0.5 * jnp.tanh(0.5 * beta * x) + 0.5)

        def gradient(top: Array) -> Array:
            return (beta * top + jax.lax.stop_gradient(sigmoid) * (1 - beta * top)) * x

        return ctx.by_top(x * sigmoid, gradient)

    def describe(self) -> str:
        return f"beta {self.param.beta:g}" if self.param.beta != 1 else ""


@register(param="tanh_param")
class TanH(Pointwise):
    """tanh(x). Caffe: ``tanh_layer.cpp``."""

    formula = "y = tanh(x)"

    def apply(self, ctx: Context, x: Array) -> Array:
        return ctx.by_top(jnp.tanh(x), lambda top: (1 - top * top) * x)


@register()
class AbsVal(Pointwise):
    """|x|; the gradient at 0 is 0. It cannot work in place. Caffe: ``absval_layer.cpp``."""

    formula = "y = abs(x)"
    traits = Traits(works_in_place=False)

    def apply(self, ctx: Context, x: Array) -> Array:
        # JAX's own ``abs`` has gradient 1 at 0.
        return x * jnp.sign(x)


@register()
class BNLL(Pointwise):
    """log(1 + exp(x)). Caffe: ``bnll_layer.cpp``."""

    formula = "y = log(1 + exp(x))"

    def apply(self, ctx: Context, x: Array) -> Array:
        return jax.nn.softplus(x)  # does not overflow


@register(param="exp_param")
class Exp(Pointwise):
    """base ^ (shift + scale x); base -1 stands for e. Caffe: ``exp_layer.cpp``."""

    formula = "y = base ^ (shift + scale x)"

    def shape(self, bottom: Shape) -> Shape:
        base = self.param.base
        require(
            base == -1 or 0 < base < math.inf,
            f"base {base:g} must be positive and finite, or -1 for e",
        )
        return bottom

    def apply(self, ctx: Context, x: Array) -> Array:
        p = self.param
        rate = 1.0 if p.base == -1 else math.log(p.base)
        y = jnp.exp(rate * (p.shift + p.scale * x))
        return ctx.by_top(y, lambda top: rate * p.scale * top * x)

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...]:
        """Zeros: the exponential of any other value could be infinite."""
        return (PaddingValue.ZERO,)

    def describe(self) -> str:
        return _changed(self.param, base=-1, scale=1, shift=0)


@register(param="log_param")
class Log(Pointwise):
    """log of shift + scale x to the base; base -1 stands for e. Caffe: ``log_layer.cpp``."""

    formula = "y = log_base(shift + scale x)"

    def shape(self, bottom: Shape) -> Shape:
        base = self.param.base
        require(
            base == -1 or (0 < base < math.inf and base != 1),
            f"base {base:g} must be positive, finite and not 1, or -1 for e",
        )
        return bottom

    def apply(self, ctx: Context, x: Array) -> Array:
        p = self.param
        rate = 1.0 if p.base == -1 else 1 / math.log(p.base)
        return rate * jnp.log(p.shift + p.scale * x)

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Zeros, if their logarithm is finite."""
        return (PaddingValue.ZERO,) if self.param.shift > 0 else None

    def describe(self) -> str:
        return _changed(self.param, base=-1, scale=1, shift=0)


@register(param="clip_param")
class Clip(Pointwise):
    """x held between ``min`` and ``max``; no gradient outside. Caffe: ``clip_layer.cpp``.

    With ``min`` above ``max``, ``min`` everywhere.
    """

    formula = "y = min(max(x, min), max)"

    def shape(self, bottom: Shape) -> Shape:
        p = self.param
        require(p.HasField("min") and p.HasField("max"), "needs min and max")
        return bottom

    def apply(self, ctx: Context, x: Array) -> Array:
        """The gradient at the limits is 1, as in Caffe."""
        inside = (x >= self.param.min) & (x <= self.param.max)
        held = jax.lax.stop_gradient(jnp.maximum(jnp.minimum(x, self.param.max), self.param.min))
        return jnp.where(inside, x, held)

    def describe(self) -> str:
        return f"{self.param.min:g} to {self.param.max:g}"


@register(param="threshold_param")
class Threshold(Pointwise):
    """1 above ``threshold``, 0 elsewhere; it has no gradient. Caffe: ``threshold_layer.cpp``."""

    formula = "y = 1 if x > threshold else 0"
    bottom_use = BottomUse(refused=frozenset({0}), no_backward=True)

    def apply(self, ctx: Context, x: Array) -> Array:
        return (x > self.param.threshold).astype(x.dtype)

    def describe(self) -> str:
        return f"{self.param.threshold:g}"


def _power_by_top(p: PowerParameter, inner: Array, y: Array, top: Array) -> Array:
    """What has the gradient power top / inner where a top is no longer ``y``, inner ^ power."""
    # What is not selected must be finite, too: its zero gradient is multiplied.
    slope = jnp.where(top == y, 0.0, top / jnp.where(top == y, 1.0, inner))
    return jnp.where(top == y, y, p.power * jax.lax.stop_gradient(slope) * inner)


def _changed(param: Any, **defaults: float) -> str:
    """The numbers that are not the default, e.g. ``power 2, shift -1``."""
    values = {name: getattr(param, name) for name in defaults}
    return ", ".join(f"{name} {v:g}" for name, v in values.items() if v != defaults[name])
