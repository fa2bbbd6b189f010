"""Layers that move, join and combine blobs."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from netspec.errors import require
from netspec.layers.activation import Elementwise
from netspec.layers.base import (
    Array,
    Blob,
    Context,
    Layer,
    Layout,
    Shape,
    axis_or_legacy,
    canonical_axis,
    count,
    register,
    same_shape,
    text,
)
from netspec.layers.coord_map import CoordMap
from netspec.layers.precision import Precision
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
        """The shape of all bottoms."""
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
        """Combine from the first bottom on."""
        if self.param.operation == EltwiseParameter.SUM:
            weights = list(self.param.coeff) or [1.0] * len(bottoms)
            terms = [x if w == 1 else w * x for w, x in zip(weights, bottoms, strict=True)]
            return sum(terms[1:], terms[0])
        if self.param.operation == EltwiseParameter.PROD:
            return (
                math.prod(bottoms[1:], start=bottoms[0])
                if self.param.stable_prod_grad
                else (_product(bottoms))
            )
        top = jnp.where(bottoms[0] > bottoms[1], bottoms[0], bottoms[1])
        for x in bottoms[2:]:
            top = jnp.where(x > top, x, top)
        return top

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Each element stands alone; of zeros, top / bottom would be no number."""
        p = self.param
        divides = p.operation == EltwiseParameter.PROD and not p.stable_prod_grad
        return None if divides else super().padding_values(*bottoms)

    def describe(self) -> str:
        """The operation and its weights."""
        name = EltwiseParameter.EltwiseOp.Name(self.param.operation)
        weights = ", ".join(f"{c:g}" for c in self.param.coeff)
        return f"{name} {weights}".strip()


@jax.custom_vjp
def _product(bottoms: tuple[Array, ...]) -> Array:
    """A product whose gradient is top / bottom, as ``stable_prod_grad: false`` asks."""
    return math.prod(bottoms[1:], start=bottoms[0])


def _product_forward(bottoms: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
    return _product(bottoms), bottoms


def _product_backward(bottoms: tuple[Array, ...], diff: Array) -> tuple[tuple[Array, ...]]:
    top = math.prod(bottoms[1:], start=bottoms[0])
    return (tuple(top / x * diff for x in bottoms),)


_product.defvjp(_product_forward, _product_backward)


@register(param="concat_param", bottoms=(1, None))
class Concat(Layer):
    """Join blobs along ``axis`` (or the older ``concat_dim``).

    (N, C, H, W), (N, D, H, W) -> (N, C + D, H, W) for the default ``axis: 1``.
    Caffe: ``concat_layer.cpp``.
    """

    formula = "y = [x1, x2, ...]"
    layout = Layout.EITHER

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
        """One concatenation."""
        rank = bottoms[0].ndim
        return jnp.concatenate(bottoms, axis=ctx.axis(self.axis(rank), rank))

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...] | None:
        """One blob begins where another ends, which must not vary."""
        axis = self.axis(len(bottoms[0]))
        varies = any(bottom[axis] is None for bottom in bottoms)
        return None if varies else (PaddingValue.ANYTHING,) * len(bottoms)

    def coords(self, rank: int) -> CoordMap | None:
        """Each pixel on itself, where channels are joined."""
        return CoordMap.identity(rank) if self.axis(rank + 2) == 1 else None

    def describe(self) -> str:
        """The axis, where it is not the channels'."""
        axis = self.param.concat_dim if self.param.HasField("concat_dim") else self.param.axis
        return "" if axis == 1 else f"axis {axis}"


@register(tops=(1, None))
class Split(Elementwise):
    """The bottom, once for each top; gradients add up. Caffe: ``split_layer.cpp``."""

    formula = "y1 = y2 = ... = x"

    def shape(self, bottom: Shape) -> tuple[Shape, ...]:  # type: ignore[override]
        """The bottom's, for each top."""
        return (bottom,) * self.num_tops

    def apply(self, ctx: Context, x: Array) -> tuple[Array, ...]:  # type: ignore[override]
        """The same array for each top."""
        return (x,) * self.num_tops


@register(param="parameter_param", bottoms=0)
class Parameter(Layer):
    """A learned array as a blob.

    -> ``shape``. Blobs: array of that shape, 0 before training. Caffe: ``parameter_layer.hpp``.
    """

    formula = "y = a learned array"

    def shape(self, *bottoms: Shape) -> Shape:
        """The stated one."""
        require(
            self.param.HasField("shape"),
            "states no shape; give parameter_param { shape { dim: ... } }",
        )
        return tuple(self.param.shape.dim)

    def blobs(self, *bottoms: Shape) -> dict[str, Blob]:
        """The array."""
        return {"array": Blob(self.shape())}

    def apply(self, ctx: Context, *bottoms: Array) -> Array:
        """The array as it is."""
        return ctx.blobs["array"]


@register(bottoms=(1, None), tops=0)
class Silence(Layer):
    """Swallow blobs, so that they are no outputs of the net. Caffe: ``silence_layer.cpp``."""

    formula = "nothing"
    layout = Layout.EITHER

    def shape(self, *bottoms: Shape) -> tuple[Shape, ...]:
        """No tops."""
        return ()

    def apply(self, ctx: Context, *bottoms: Array) -> tuple[Array, ...]:
        """No tops."""
        return ()

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...]:
        """Nothing is looked at."""
        return (PaddingValue.ANYTHING,) * len(bottoms)


@register(param="softmax_param")
class Softmax(Elementwise):
    """Probabilities along ``axis``. (N, C, H, W) -> (N, C, H, W). Caffe: ``softmax_layer.cpp``."""

    formula = "y = exp(x) / sum(exp(x))"
    precision = Precision.FULL

    def shape(self, bottom: Shape) -> Shape:  # type: ignore[override]
        """The bottom's."""
        canonical_axis(self.param.axis, len(bottom))
        return bottom

    def apply(self, ctx: Context, x: Array) -> Array:  # type: ignore[override]
        """Shifted by the maximum first, so that nothing overflows."""
        return jax.nn.softmax(x, axis=ctx.axis(canonical_axis(self.param.axis, x.ndim), x.ndim))

    def sees_all(self, rank: int) -> bool:
        """Where the axis is one of pixels."""
        return canonical_axis(self.param.axis, rank + 2) >= 2

    def padding_values(self, bottom: PartialShape) -> tuple[PaddingValue, ...] | None:  # type: ignore[override]
        """Positions off the axis stand alone."""
        return None if bottom[self.param.axis] is None else (PaddingValue.ANYTHING,)

    def describe(self) -> str:
        """The axis, where it is not the channels'."""
        return "" if self.param.axis == 1 else f"axis {self.param.axis}"


@register(param="reduction_param")
class Reduction(Layer):
    """Reduce ``axis`` and every axis after it to one number, times ``coeff``.

    (N, C, H, W) -> scalar for the default ``axis: 0``, (N) for ``axis: 1``. SUM, MEAN, ASUM (sum of
    absolute values, whose gradient at 0 is 0), SUMSQ (sum of squares).
    Caffe: ``reduction_layer.cpp``.
    """

    formula = "y = coeff sum, mean, sum |x| or sum x^2"
    layout = Layout.EITHER
    precision = Precision.FULL

    def shape(self, bottom: Shape) -> Shape:  # type: ignore[override]
        """The axes before ``axis``."""
        return bottom[: canonical_axis(self.param.axis, len(bottom))]

    def apply(self, ctx: Context, x: Array) -> Array:  # type: ignore[override]
        """One sum."""
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

    def sees_all(self, rank: int) -> bool:
        """The sum runs over the last axis, and those before it."""
        return True

    def describe(self) -> str:
        """The operation, and what is not the default."""
        p = self.param
        parts = [ReductionParameter.ReductionOp.Name(p.operation)]
        names = (("axis", p.axis, 0), ("coeff", p.coeff, 1))
        parts += [f"{name} {value:g}" for name, value, default in names if value != default]
        return ", ".join(parts)


@register(param="argmax_param")
class ArgMax(Layer):
    """Where the ``top_k`` greatest values lie, the greatest first; of equals the last comes first.

    With ``axis``: (N, C, H, W) -> (N, top_k, H, W) for ``axis: 1``, the values themselves if
    ``out_max_val``. Without: over all axes but the first, (N, C, H, W) -> (N, 1, top_k, 1), or
    (N, 2, top_k, 1) with the values behind the indices if ``out_max_val``. Indices are held in
    floats. There is no gradient. Caffe: ``argmax_layer.cpp``.
    """

    formula = "y = argmax(x)"
    precision = Precision.FULL

    @property
    def layout(self) -> Layout:  # type: ignore[override]
        """Either along an axis; over all of them, indices count in Caffe's order."""
        return Layout.EITHER if self.param.HasField("axis") else Layout.CHANNELS_FIRST

    def shape(self, bottom: Shape) -> Shape:  # type: ignore[override]
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

    def apply(self, ctx: Context, x: Array) -> Array:  # type: ignore[override]
        """One search."""
        x = lax.stop_gradient(x)
        if self.param.HasField("axis"):
            axis = ctx.axis(canonical_axis(self.param.axis, x.ndim), x.ndim)
            indices, values = _greatest(x, self.param.top_k, axis)
            return values if self.param.out_max_val else indices
        rows = x.reshape(x.shape[0], count(x.shape[1:]))
        found = _greatest(rows, self.param.top_k, 1)
        return jnp.stack(found[: 1 + self.param.out_max_val], axis=1).reshape(self.shape(x.shape))

    def padding_values(self, bottom: PartialShape) -> tuple[PaddingValue, ...] | None:  # type: ignore[override]
        """Positions off the axis stand alone; over all of them, indices hang on the sizes."""
        alone = self.param.HasField("axis") and bottom[self.param.axis] is not None
        return (PaddingValue.ANYTHING,) if alone else None

    def coords(self, rank: int) -> CoordMap | None:
        """Each pixel on itself, where the axis is no pixels'."""
        return None if self.sees_all(rank) else CoordMap.identity(rank)

    def allow_force_backward(self, bottom: int) -> bool:
        """ArgMax has no gradient."""
        return False

    def sees_all(self, rank: int) -> bool:
        """Where pixels compete."""
        return not self.param.HasField("axis") or canonical_axis(self.param.axis, rank + 2) >= 2

    def describe(self) -> str:
        """How many, along which axis."""
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
