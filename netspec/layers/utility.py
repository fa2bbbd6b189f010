"""Layers that move, join and combine blobs."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from netspec.errors import require
from netspec.layers.activation import Elementwise
from netspec.layers.base import (
    Array,
    Context,
    Layer,
    Layout,
    Shape,
    canonical_axis,
    register,
    same_shape,
    text,
)
from netspec.layers.coordinates import CoordMap
from netspec.proto.layers_pb2 import EltwiseParameter


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
        require(
            not (self.param.HasField("axis") and self.param.HasField("concat_dim")),
            "give axis or concat_dim, not both",
        )
        if self.param.HasField("concat_dim"):
            require(
                self.param.concat_dim < rank, f"concat_dim {self.param.concat_dim} of {rank} axes"
            )
            return self.param.concat_dim
        return canonical_axis(self.param.axis, rank)

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


@register(param="softmax_param")
class Softmax(Elementwise):
    """Probabilities along ``axis``. (N, C, H, W) -> (N, C, H, W). Caffe: ``softmax_layer.cpp``."""

    formula = "y = exp(x) / sum(exp(x))"

    def shape(self, bottom: Shape) -> Shape:  # type: ignore[override]
        """The bottom's."""
        canonical_axis(self.param.axis, len(bottom))
        return bottom

    def apply(self, ctx: Context, x: Array) -> Array:  # type: ignore[override]
        """Shifted by the maximum first, so that nothing overflows."""
        return jax.nn.softmax(x, axis=ctx.axis(canonical_axis(self.param.axis, x.ndim), x.ndim))

    def describe(self) -> str:
        """The axis, where it is not the channels'."""
        return "" if self.param.axis == 1 else f"axis {self.param.axis}"
