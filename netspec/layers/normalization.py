"""Normalisation: layers that rescale blobs by statistics of their own elements."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from netspec.errors import require
from netspec.layers.activation import Elementwise
from netspec.layers.base import Geometry
from netspec.layers.context import Context
from netspec.layers.coord_map import CoordMap
from netspec.layers.records import Blob, PhaseChoice, Traits
from netspec.layers.registry import register
from netspec.layers.shape import Array, Shape, text
from netspec.layers.valid_region import PaddingValue, PartialShape
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

    def shape(self, bottom: Shape) -> Shape:
        require(
            len(bottom) == 4, f"normalises images (N, C, H, W), but the bottom is {text(bottom)}"
        )
        require(self.param.local_size % 2 == 1, f"local_size {self.param.local_size} must be odd")
        return bottom

    def apply(self, ctx: Context, x: Array) -> Array:
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
        scale = ctx.kept("scale", (p.k if across else 1.0) + p.alpha * mean)
        factor = jnp.power(scale, -p.beta)

        def gradient(top: Array) -> Array:
            slope = p.beta * top / scale
            return x * lax.stop_gradient(factor) - lax.stop_gradient(slope) * scale

        return ctx.by_top(x * factor, gradient) if across else x * factor

    def geometry(self, rank: int) -> Geometry:
        """Shift equivariant: zeros stand beyond the border."""
        return Geometry(shift_equivariant=True)

    def coords(self, rank: int) -> CoordMap:
        """Each pixel on itself; within a channel it sees its neighbourhood."""
        itself = CoordMap.identity(rank)
        if self.param.norm_region == LRNParameter.ACROSS_CHANNELS:
            return itself
        return itself._replace(extent=(Fraction(self.param.local_size),) * rank)

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Zeros, as beyond the border, unless ``k`` is 0: their power would be infinite."""
        p = self.param
        across = p.norm_region == LRNParameter.ACROSS_CHANNELS
        return (PaddingValue.ZERO,) if p.k > 0 or not across else None

    def describe(self) -> str:
        region = LRNParameter.NormRegion.Name(self.param.norm_region).lower().replace("_", " ")
        return f"{self.param.local_size} {region}"


@register(param="batch_norm_param")
class BatchNorm(Elementwise):
    """Subtract each channel's mean and divide by its standard deviation.

    (N, C, ...) -> (N, C, ...). In TRAIN (or ``use_global_stats: false``) mean and variance are the
    batch's, and running sums of both are updated; in TEST they are the running ones.
    Blobs: mean (C), variance (C), scale_factor (1), all three sums that decay by
    ``moving_average_fraction``: the running mean is mean / scale_factor. The variance stored is
    unbiased. Caffe: ``batch_norm_layer.cpp``.
    """

    formula = "y = (x - mean) / sqrt(variance + eps)"
    traits = Traits(phase_choice=PhaseChoice.STATISTICS)

    @property
    def global_stats(self) -> bool:
        """Whether the running statistics are used."""
        if self.param.HasField("use_global_stats"):
            return bool(self.param.use_global_stats)
        return not self.train

    def shape(self, bottom: Shape) -> Shape:
        require(len(bottom) > 1, f"needs channels on axis 1, but the bottom is {text(bottom)}")
        for i, spec in enumerate(self.spec.param):
            require(
                spec.lr_mult == 0,
                f"param {i}: lr_mult {spec.lr_mult:g}, but its blobs are statistics, which are not "
                "learned; set lr_mult: 0",
            )
        return bottom

    def blobs(self, bottom: Shape) -> dict[str, Blob]:
        """mean (C), variance (C), scale_factor (1)."""
        sizes = {"mean": bottom[1], "variance": bottom[1], "scale_factor": 1}
        return {name: Blob((size,), learned=False) for name, size in sizes.items()}

    def apply(self, ctx: Context, x: Array) -> Array:
        """Normalise; update the statistics if they are the batch's."""
        x = ctx.kept("bottom", x)
        channel = ctx.axis(1, x.ndim)
        shape = [x.shape[i] if i == channel else 1 for i in range(x.ndim)]
        if self.global_stats:
            kept = {name: lax.stop_gradient(blob) for name, blob in ctx.blobs.items()}
            factor = kept["scale_factor"][0]
            rate = jnp.where(factor == 0, 0.0, 1 / jnp.where(factor == 0, 1.0, factor))
            mean, variance = kept["mean"] * rate, kept["variance"] * rate
            centred = x - mean.reshape(shape)
        else:
            axes = tuple(i for i in range(x.ndim) if i != 1)
            mean = ctx.mean(x, axes)
            centred = x - mean.reshape(shape)
            variance = ctx.mean(centred * centred, axes)
            size = ctx.size(0, x)
            self._keep(ctx, mean, variance, math.prod(size[i] for i in axes))
        deviation = jnp.sqrt(variance.reshape(shape) + self.param.eps)
        return centred / (ctx.kept("deviation", deviation) if self.global_stats else deviation)

    def _keep(self, ctx: Context, mean: Array, variance: Array, count: int | Array) -> None:
        """Add the batch's statistics to the decayed sums."""
        if isinstance(count, int):
            unbiased: float | Array = count / (count - 1) if count > 1 else 1.0
        else:
            unbiased = jnp.where(count > 1, count / jnp.maximum(count - 1, 1), 1.0)
        batch = {
            "mean": mean.reshape(-1),
            "variance": unbiased * variance.reshape(-1),
            "scale_factor": jnp.ones(1, mean.dtype),
        }
        for name, value in batch.items():
            kept = self.param.moving_average_fraction * ctx.blobs[name]
            ctx.update(name, lax.stop_gradient(kept + value))

    def geometry(self, rank: int) -> Geometry:
        """The batch's statistics depend on all pixels."""
        return Geometry(sees_all=not self.global_stats)

    def describe(self) -> str:
        """Which statistics, where the settings say and not the phase."""
        if not self.param.HasField("use_global_stats"):
            return ""
        return "running statistics" if self.param.use_global_stats else "batch statistics"


@register(param="mvn_param")
class MVN(Elementwise):
    """Subtract each image's mean, channel by channel, and divide by its standard deviation.

    (N, C, H, W) -> (N, C, H, W). ``across_channels`` takes mean and deviation over the whole
    image; ``normalize_variance: false`` subtracts only. Caffe: ``mvn_layer.cpp``.
    """

    formula = "y = (x - mean(x)) / (std(x) + eps)"

    def shape(self, bottom: Shape) -> Shape:
        """The bottom's, with axes of 1 added up to 4."""
        require(1 <= len(bottom) <= 4, f"normalises blobs of 1 to 4 axes, not {text(bottom)}")
        return bottom + (1,) * (4 - len(bottom))

    def apply(self, ctx: Context, x: Array) -> Array:
        """``eps`` is added to the deviation, not to the variance."""
        x = x.reshape(x.shape + (1,) * (4 - x.ndim))
        first = 1 if self.param.across_channels else 2
        axes = tuple(range(first, 4))
        centred = x - ctx.mean(x, axes, keepdims=True)
        if not self.param.normalize_variance:
            return centred
        variance = ctx.mean(centred * centred, axes, keepdims=True)
        deviation = ctx.kept("deviation", _deviation(variance, self.param.eps))

        def gradient(top: Array) -> Array:
            along = top * ctx.mean(top * x, axes, keepdims=True)
            return (centred - along) / lax.stop_gradient(deviation)

        return ctx.by_top(centred / deviation, gradient)

    def geometry(self, rank: int) -> Geometry:
        """Mean and deviation depend on all pixels."""
        return Geometry(sees_all=True)

    def describe(self) -> str:
        parts = ["across channels"] if self.param.across_channels else []
        return ", ".join(parts if self.param.normalize_variance else [*parts, "mean only"])


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _deviation(variance: Array, eps: float) -> Array:
    """sqrt(variance) + eps, with the slope 1 / (2 (sqrt(variance) + eps)), as in Caffe."""
    return jnp.sqrt(variance) + eps


@_deviation.defjvp
def _deviation_jvp(
    eps: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    deviation = jnp.sqrt(primals[0]) + eps
    return deviation, tangents[0] / (2 * deviation)
