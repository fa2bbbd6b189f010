"""Layers that join, combine, reduce and compare blobs, or pass them on."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from netspec.errors import require
from netspec.layers.activation import Elementwise
from netspec.layers.base import Geometry, Layer
from netspec.layers.context import Context
from netspec.layers.coord_map import CoordMap
from netspec.layers.numerics import MemoryLayout, Numerics, Precision
from netspec.layers.records import Blob, BottomUse, Traits
from netspec.layers.registry import register
from netspec.layers.residuals import substitute
from netspec.layers.shape import (
    Array,
    Shape,
    axis_or_legacy,
    canonical_axis,
    count,
    is_spatial,
    same_shape,
    text,
)
from netspec.layers.valid_region import PaddingValue, PartialShape
from netspec.proto.layers_pb2 import EltwiseParameter, ReductionParameter


@register(param="eltwise_param", bottoms=(2, None))
class Eltwise(Elementwise):
    """Product, weighted sum or maximum of blobs of one shape.

    (N, C, H, W), ... -> (N, C, H, W). Of two equal maxima the second bottom has the gradient;
    a third or later bottom must exceed them to have it. Caffe: ``eltwise_layer.cpp``.
    """

    formula = "y = product, sum or maximum"

    def shape(self, *bottoms: Shape) -> Shape:
        same_shape(bottoms)
        coefficients = len(self.param.coeff)
        require(
            coefficients in (0, len(bottoms)),
            f"{coefficients} coeff for {len(bottoms)} bottoms; give none, or one for each",
        )
        require(
            not coefficients or self.param.operation == EltwiseParameter.SUM,
            "coeff weighs a SUM; PROD and MAX take none",
        )
        return bottoms[0]

    def apply(self, ctx: Context, *bottoms: Array) -> Array:
        if self.param.operation == EltwiseParameter.SUM:
            weights = list(self.param.coeff) or [1.0] * len(bottoms)
            terms = [x if w == 1 else w * x for w, x in zip(weights, bottoms, strict=True)]
            return sum(terms[1:], terms[0])
        if self.param.operation == EltwiseParameter.PROD:
            product = math.prod(bottoms[1:], start=bottoms[0])
            if self.param.stable_prod_grad:
                return product
            gradient = partial(_sum_of_quotients, bottoms)
            return substitute(product, ctx.by_top(gradient(product), gradient))
        bottoms = tuple(ctx.kept(f"bottom{i}", x) for i, x in enumerate(bottoms))
        top = jnp.where(bottoms[0] > bottoms[1], bottoms[0], bottoms[1])
        for x in bottoms[2:]:
            top = jnp.where(x > top, x, top)
        return top

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Any value, unless the gradient is top / bottom, which is NaN for zeros."""
        p = self.param
        divides = p.operation == EltwiseParameter.PROD and not p.stable_prod_grad
        return None if divides else super().padding_values(*bottoms)

    def describe(self) -> str:
        name = EltwiseParameter.EltwiseOp.Name(self.param.operation)
        weights = ", ".join(f"{c:g}" for c in self.param.coeff)
        return f"{name} {weights}".strip()


def _sum_of_quotients(bottoms: tuple[Array, ...], top: Array) -> Array:
    """What has the gradient top / bottom by each bottom, as ``stable_prod_grad: false`` asks."""
    return sum((lax.stop_gradient(top / x) * x for x in bottoms), start=jnp.zeros_like(top))


@register(param="concat_param", bottoms=(1, None))
class Concat(Layer):
    """Join blobs along ``axis`` (or the older ``concat_dim``).

    (N, C, H, W), (N, D, H, W) -> (N, C + D, H, W) for the default ``axis: 1``.
    Caffe: ``concat_layer.cpp``.
    """

    formula = "y = [x1, x2, ...]"
    numerics = Numerics(layout=MemoryLayout.EITHER)

    def axis(self, rank: int) -> int:
        """The axis to join along."""
        return axis_or_legacy(self.param, "concat_dim", rank)

    def shape(self, *bottoms: Shape) -> Shape:
        """The sum of the sizes along the axis; all others must agree."""
        axis = self.axis(len(bottoms[0]))
        for i, bottom in enumerate(bottoms[1:], 1):
            require(
                len(bottom) == len(bottoms[0])
                and bottom[:axis] + bottom[axis + 1 :]
                == bottoms[0][:axis] + bottoms[0][axis + 1 :],
                f"bottoms must agree on all axes but {axis}: bottom 0 is {text(bottoms[0])}, "
                f"bottom {i} is {text(bottom)}",
            )
        joined = sum(bottom[axis] for bottom in bottoms)
        return (*bottoms[0][:axis], joined, *bottoms[0][axis + 1 :])

    def apply(self, ctx: Context, *bottoms: Array) -> Array:
        rank = bottoms[0].ndim
        return jnp.concatenate(bottoms, axis=ctx.axis(self.axis(rank), rank))

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Any value, unless the axis varies: one blob begins where another ends."""
        axis = self.axis(len(bottoms[0]))
        varies = any(bottom[axis] is None for bottom in bottoms)
        return None if varies else (PaddingValue.ANYTHING,) * len(bottoms)

    def coords(self, rank: int) -> CoordMap | None:
        """Each pixel on itself, if channels are joined."""
        return CoordMap.identity(rank) if self.axis(rank + 2) == 1 else None

    def describe(self) -> str:
        axis = self.param.concat_dim if self.param.HasField("concat_dim") else self.param.axis
        return "" if axis == 1 else f"axis {axis}"


@register(tops=(1, None))
class Split(Elementwise):
    """The bottom, once for each top; gradients add up. Caffe: ``split_layer.cpp``."""

    formula = "y1 = y2 = ... = x"
    traits = Traits(works_in_place=False)

    def shape(self, bottom: Shape) -> tuple[Shape, ...]:
        """The bottom's, for each top."""
        return (bottom,) * self.num_tops

    def apply(self, ctx: Context, x: Array) -> tuple[Array, ...]:
        return (x,) * self.num_tops


@register(param="parameter_param", bottoms=0)
class Parameter(Layer):
    """A learned array as a blob.

    -> ``shape``, a scalar if there is none. Blobs: array of that shape, 0 before training.
    Caffe: ``parameter_layer.hpp``.
    """

    formula = "y = a learned array"

    def shape(self, *bottoms: Shape) -> Shape:
        return tuple(self.param.shape.dim)

    def blobs(self, *bottoms: Shape) -> dict[str, Blob]:
        return {"array": Blob(self.shape())}

    def apply(self, ctx: Context, *bottoms: Array) -> Array:
        return ctx.blobs["array"]


@register(bottoms=(1, None), tops=0)
class Silence(Layer):
    """Swallow blobs, so that they are no outputs of the net. Caffe: ``silence_layer.cpp``."""

    formula = "nothing"
    numerics = Numerics(layout=MemoryLayout.EITHER)

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        return ()

    def apply(self, ctx: Context, *bottoms: Array) -> tuple[Array, ...]:
        return ()

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...]:
        """Any value: nothing is read."""
        return (PaddingValue.ANYTHING,) * len(bottoms)


@register(param="softmax_param")
class Softmax(Elementwise):
    """Probabilities along ``axis``. (N, C, H, W) -> (N, C, H, W). Caffe: ``softmax_layer.cpp``."""

    formula = "y = exp(x) / sum(exp(x))"
    numerics = Numerics(MemoryLayout.EITHER, Precision.FULL)

    def shape(self, bottom: Shape) -> Shape:
        canonical_axis(self.param.axis, len(bottom))
        return bottom

    def apply(self, ctx: Context, x: Array) -> Array:
        axis = ctx.axis(canonical_axis(self.param.axis, x.ndim), x.ndim)

        def gradient(top: Array) -> Array:
            return top * (x - jnp.sum(top * x, axis, keepdims=True))

        return ctx.by_top(jax.nn.softmax(x, axis=axis), gradient)

    def geometry(self, rank: int) -> Geometry:
        """A spatial axis mixes its pixels."""
        return Geometry(sees_all=is_spatial(self.param.axis, rank))

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Any value, unless the axis varies: positions off it do not mix."""
        return None if bottoms[0][self.param.axis] is None else (PaddingValue.ANYTHING,)

    def describe(self) -> str:
        return "" if self.param.axis == 1 else f"axis {self.param.axis}"


@register(param="reduction_param")
class Reduction(Layer):
    """Reduce ``axis`` and every axis after it to one number, times ``coeff``.

    (N, C, H, W) -> scalar for the default ``axis: 0``, (N) for ``axis: 1``. SUM, MEAN, ASUM (sum of
    absolute values, whose gradient at 0 is 0), SUMSQ (sum of squares).
    Caffe: ``reduction_layer.cpp``.
    """

    formula = "y = coeff sum, mean, sum |x| or sum x^2"
    numerics = Numerics(MemoryLayout.EITHER, Precision.FULL)

    def shape(self, bottom: Shape) -> Shape:
        return bottom[: canonical_axis(self.param.axis, len(bottom))]

    def apply(self, ctx: Context, x: Array) -> Array:
        first = canonical_axis(self.param.axis, x.ndim)
        axes = tuple(ctx.axis(i, x.ndim) for i in range(first, x.ndim))
        if self.param.operation == ReductionParameter.ASUM:
            x = x * lax.stop_gradient(jnp.sign(x))  # JAX's own |x| has gradient 1 at 0
        elif self.param.operation == ReductionParameter.SUMSQ:
            x = x * x
        mean = self.param.operation == ReductionParameter.MEAN
        top = self.param.coeff * (jnp.mean(x, axes) if mean else jnp.sum(x, axes))
        # Blobs of fewer than 4 axes have one layout, Caffe's.
        moved = ctx.channels_last and 2 <= top.ndim < 4
        return jnp.moveaxis(top, -1, 1) if moved else top

    def geometry(self, rank: int) -> Geometry:
        """The sum runs over the last axis, and those before it."""
        return Geometry(sees_all=True)

    def describe(self) -> str:
        p = self.param
        parts = [ReductionParameter.ReductionOp.Name(p.operation)]
        names = (("axis", p.axis, 0), ("coeff", p.coeff, 1))
        parts += [f"{name} {value:g}" for name, value, default in names if value != default]
        return ", ".join(parts)


@register(param="argmax_param")
class ArgMax(Layer):
    """The positions of the ``top_k`` greatest values, the greatest first; the last of equals first.

    With ``axis``: (N, C, H, W) -> (N, top_k, H, W) for ``axis: 1``, the values themselves if
    ``out_max_val``. Without: over all axes but the first, (N, C, H, W) -> (N, 1, top_k, 1), or
    (N, 2, top_k, 1) with the values behind the indices if ``out_max_val``. Indices are held in
    floats. There is no gradient. Caffe: ``argmax_layer.cpp``.
    """

    formula = "y = argmax(x)"
    numerics = Numerics(MemoryLayout.EITHER, Precision.FULL)
    bottom_use = replace(BottomUse.indices(0), no_backward=True)

    def configure(self) -> None:
        """Over all axes, indices count in Caffe's order."""
        if not self.param.HasField("axis"):
            self.numerics = replace(self.numerics, layout=MemoryLayout.CHANNELS_FIRST)

    def shape(self, bottom: Shape) -> Shape:
        """``top_k`` in place of the axis, or (N, 1 or 2, top_k, 1, ...)."""
        require(bottom, "needs a bottom with an axis, but it is a scalar")
        top_k = self.param.top_k
        axis = canonical_axis(self.param.axis, len(bottom)) if self.param.HasField("axis") else None
        candidates = count(bottom[1:]) if axis is None else bottom[axis]
        require(
            1 <= top_k <= candidates, f"top_k {top_k} must be 1 to {candidates}, as many as compete"
        )
        if axis is not None:
            return (*bottom[:axis], top_k, *bottom[axis + 1 :])
        return (bottom[0], 1 + self.param.out_max_val, top_k, *(1,) * (len(bottom) - 3))

    def apply(self, ctx: Context, x: Array) -> Array:
        x = lax.stop_gradient(x)
        if self.param.HasField("axis"):
            axis = ctx.axis(canonical_axis(self.param.axis, x.ndim), x.ndim)
            indices, values = _greatest(x, self.param.top_k, axis)
            return values if self.param.out_max_val else indices
        rows = x.reshape(x.shape[0], count(x.shape[1:]))
        found = _greatest(rows, self.param.top_k, 1)
        return jnp.stack(found[: 1 + self.param.out_max_val], axis=1).reshape(self.shape(x.shape))

    def padding_values(self, bottom: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Any value along a fixed axis; over all axes, indices depend on the sizes."""
        fixed = self.param.HasField("axis") and bottom[self.param.axis] is not None
        return (PaddingValue.ANYTHING,) if fixed else None

    def coords(self, rank: int) -> CoordMap | None:
        """Each pixel on itself, unless pixels compete."""
        return None if self._pixels_compete(rank) else CoordMap.identity(rank)

    def geometry(self, rank: int) -> Geometry:
        """A maximum over pixels depends on all of them."""
        return Geometry(sees_all=self._pixels_compete(rank))

    def _pixels_compete(self, rank: int) -> bool:
        return not self.param.HasField("axis") or is_spatial(self.param.axis, rank)

    def describe(self) -> str:
        parts = [f"top {self.param.top_k}"] if self.param.top_k != 1 else []
        parts += [f"axis {self.param.axis}"] if self.param.HasField("axis") else []
        return ", ".join(parts)


def _greatest(x: Array, k: int, axis: int) -> tuple[Array, Array]:
    """Indices and values of the ``k`` greatest along an axis; of equals the greater index first."""
    flipped = jnp.flip(x, axis)  # JAX finds the first of equals
    if k == 1:
        index = jnp.argmax(flipped, axis, keepdims=True)
        values = jnp.max(x, axis, keepdims=True)
    else:
        # The two zeros are equal, but not to a sort.
        rows = jnp.moveaxis(jnp.where(flipped == 0, 0.0, flipped), axis, -1)
        values, index = (jnp.moveaxis(found, -1, axis) for found in lax.top_k(rows, k))
    return (x.shape[axis] - 1 - index).astype(x.dtype), values
