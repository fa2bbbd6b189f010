"""Layers that learn, other than convolutions: fully connected layers, scales and biases."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from netspec.errors import require
from netspec.layers.activation import Elementwise
from netspec.layers.base import (
    Array,
    Blob,
    Context,
    Layer,
    Layout,
    Shape,
    canonical_axis,
    count,
    register,
    text,
)
from netspec.layers.labels import pick_rows
from netspec.layers.precision import Precision
from netspec.proto.layers_pb2 import FillerParameter


@register(param="inner_product_param")
class InnerProduct(Layer):
    """A fully connected layer over ``axis`` and all axes after it.

    (N, C, H, W) -> (N, num_output) for the default ``axis: 1``.
    Blobs: weight (num_output, C H W), or its transpose if ``transpose``; bias (num_output).
    Caffe: ``inner_product_layer.cpp``.
    """

    formula = "y = w x + b"
    precision = Precision.PRODUCTS

    def shape(self, bottom: Shape) -> Shape:  # type: ignore[override]
        """(N, C, H, W) -> (N, num_output)."""
        require(self.param.num_output > 0, "needs num_output")
        return (*bottom[: canonical_axis(self.param.axis, len(bottom))], self.param.num_output)

    def blobs(self, bottom: Shape) -> dict[str, Blob]:  # type: ignore[override]
        """weight (num_output, inputs), bias (num_output)."""
        outputs = self.param.num_output
        inputs = count(bottom[canonical_axis(self.param.axis, len(bottom)) :])
        shape = (inputs, outputs) if self.param.transpose else (outputs, inputs)
        weight = Blob(shape, self.param.weight_filler)
        if not self.param.bias_term:
            return {"weight": weight}
        return {"weight": weight, "bias": Blob((outputs,), self.param.bias_filler, is_offset=True)}

    def multiply_adds(self, bottom: Shape) -> int:  # type: ignore[override]
        """Each weight once for each vector."""
        axis = canonical_axis(self.param.axis, len(bottom))
        return count(bottom[:axis]) * count(self.blobs(bottom)["weight"].shape)

    def channel_axes(self, blob: str) -> tuple[int | None, int | None]:
        """Along the weight's rows and columns, or the reverse."""
        if blob == "bias":
            return 0, None
        return (1, 0) if self.param.transpose else (0, 1)

    def sees_all(self, rank: int) -> bool:
        """Every output is made of all inputs."""
        return True

    def apply(self, ctx: Context, x: Array) -> Array:  # type: ignore[override]
        """One matrix product."""
        axis = canonical_axis(self.param.axis, x.ndim)
        rows = x.reshape(*x.shape[:axis], count(x.shape[axis:]))
        weight = ctx.blobs["weight"].astype(x.dtype)
        top = rows @ (weight if self.param.transpose else weight.T)
        return top + jnp.broadcast_to(ctx.blobs["bias"], top.shape) if "bias" in ctx.blobs else top

    def describe(self) -> str:
        """Nothing more than the top's shape tells."""
        return ""


@register(param="embed_param")
class Embed(Layer):
    """A learned row for each index held in a float: a fully connected layer over one-hot vectors.

    Any shape (N, ...) of indices in [0, input_dim) -> (N, ..., num_output).
    Blobs: weight (input_dim, num_output), bias (num_output) if ``bias_term``.
    Caffe: ``embed_layer.cpp``. Differs: an index outside, which Caffe does not check, gives NaN.
    """

    formula = "y = w[x] + b"

    def shape(self, bottom: Shape) -> Shape:  # type: ignore[override]
        """(N, ...) -> (N, ..., num_output)."""
        require(self.param.num_output > 0, "needs num_output")
        require(self.param.input_dim > 0, "needs input_dim, the number of indices")
        return (*bottom, self.param.num_output)

    def blobs(self, bottom: Shape) -> dict[str, Blob]:  # type: ignore[override]
        """weight (input_dim, num_output), bias (num_output)."""
        outputs = self.param.num_output
        weight = Blob((self.param.input_dim, outputs), self.param.weight_filler)
        if not self.param.bias_term:
            return {"weight": weight}
        return {"weight": weight, "bias": Blob((outputs,), self.param.bias_filler, is_offset=True)}

    def apply(self, ctx: Context, indices: Array) -> Array:  # type: ignore[override]
        """One gather."""
        top = pick_rows(ctx.blobs["weight"], indices)
        return top + jnp.broadcast_to(ctx.blobs["bias"], top.shape) if "bias" in ctx.blobs else top

    def channel_axes(self, blob: str) -> tuple[int | None, int | None]:
        """Along the weight's columns; its rows are indices, no channels."""
        return (0 if blob == "bias" else 1), None

    def allow_force_backward(self, bottom: int) -> bool:
        """Indices have no gradient."""
        return False

    def describe(self) -> str:
        """How many indices there are."""
        return f"{self.param.input_dim} rows"


class _Broadcast(Elementwise):
    """What Scale and Bias share: a second operand laid along some axes of the first bottom.

    The operand is the second bottom, or a learned blob if there is one bottom. Learned, it spans
    ``num_axes`` axes from ``axis`` on (-1: to the last); a second bottom brings its own rank.
    """

    @property
    def layout(self) -> Layout:  # type: ignore[override]
        """Either, where one operand is learned; a second bottom has axes of its own."""
        return Layout.EITHER if len(self.spec.bottom) == 1 else Layout.CHANNELS_FIRST

    def span(self, bottom: Shape, *operand: Shape) -> tuple[int, Shape]:
        """The first axis that the operand covers, and its shape; raises LayerError."""
        if operand:
            axis = 0 if not operand[0] else canonical_axis(self.param.axis, len(bottom))
            shape = operand[0]
        else:
            axis, n = canonical_axis(self.param.axis, len(bottom)), self.param.num_axes
            require(n >= -1, f"num_axes {n} must be -1 or more")
            require(
                n == -1 or axis + n <= len(bottom),
                f"num_axes {n} from axis {axis} on exceeds the {len(bottom)} axes of "
                f"{text(bottom)}",
            )
            shape = bottom[axis:] if n == -1 else bottom[axis : axis + n]
        require(
            bottom[axis : axis + len(shape)] == shape,
            f"operand {text(shape)} does not match {text(bottom)} from axis {axis} on",
        )
        return axis, shape

    def shape(self, bottom: Shape, *operand: Shape) -> Shape:  # type: ignore[override]
        """The first bottom's."""
        self.span(bottom, *operand)
        return bottom

    def spread(self, ctx: Context, x: Array, operand: Array) -> Array:
        """``operand`` with unit axes where ``x`` has others, in the run's layout."""
        shape = ctx.shape(x)
        learned = len(self.spec.bottom) == 1
        axis = self.span(shape)[0] if learned else self.span(shape, operand.shape)[0]
        full = operand.reshape(*(1,) * axis, *operand.shape, *(1,) * (x.ndim - axis - operand.ndim))
        order = sorted(range(x.ndim), key=lambda i: ctx.axis(i, x.ndim))
        return jnp.broadcast_to(full.transpose(order), x.shape)


@register(param="scale_param", bottoms=(1, 2))
class Scale(_Broadcast):
    """Multiply by an operand laid along ``axis`` and on, and add a learned bias if ``bias_term``.

    (N, C, H, W) -> (N, C, H, W). Blobs: scale (unless it is the second bottom; 1 if there is no
    ``filler``), bias if ``bias_term``. Caffe: ``scale_layer.cpp``.
    """

    formula = "y = scale x + bias"

    def blobs(self, bottom: Shape, *operand: Shape) -> dict[str, Blob]:  # type: ignore[override]
        """scale, and bias of the same shape."""
        _, shape = self.span(bottom, *operand)
        blobs = {}
        if not operand:
            blobs["scale"] = Blob(shape, _filler_or_one(self.param))
        if self.param.bias_term:
            blobs["bias"] = Blob(shape, self.param.bias_filler, is_offset=True)
        return blobs

    def apply(self, ctx: Context, x: Array, *operand: Array) -> Array:  # type: ignore[override]
        """One multiply-add."""
        scale = operand[0] if operand else ctx.blobs["scale"]
        top = x * self.spread(ctx, x, scale)
        return top + self.spread(ctx, x, ctx.blobs["bias"]) if "bias" in ctx.blobs else top


@register(param="bias_param", bottoms=(1, 2))
class Bias(_Broadcast):
    """Add an operand laid along ``axis`` and on: the second bottom, or a learned blob.

    (N, C, H, W) -> (N, C, H, W). Blobs: bias, unless it is the second bottom.
    Caffe: ``bias_layer.cpp``.
    """

    formula = "y = x + bias"

    def blobs(self, bottom: Shape, *operand: Shape) -> dict[str, Blob]:  # type: ignore[override]
        """bias, unless it is a bottom."""
        if operand:
            return {}
        return {"bias": Blob(self.span(bottom)[1], self.param.filler, is_offset=True)}

    def apply(self, ctx: Context, x: Array, *operand: Array) -> Array:  # type: ignore[override]
        """One addition."""
        return x + self.spread(ctx, x, operand[0] if operand else ctx.blobs["bias"])


def _filler_or_one(param: Any) -> FillerParameter:
    """Scale's default: a factor of one."""
    return param.filler if param.HasField("filler") else FillerParameter(value=1)
