"""Fully connected layers, embeddings, scales and biases."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from netspec.errors import require
from netspec.layers.activation import Elementwise
from netspec.layers.base import Geometry, Layer
from netspec.layers.context import Context
from netspec.layers.labels import pick_rows
from netspec.layers.numerics import MemoryLayout, Numerics, Precision
from netspec.layers.records import Blob, BottomUse
from netspec.layers.registry import register
from netspec.layers.shape import Array, Shape, canonical_axis, count, text
from netspec.proto.layers_pb2 import FillerParameter


@register(param="inner_product_param")
class InnerProduct(Layer):
    """A fully connected layer over ``axis`` and all axes after it.

    (N, C, H, W) -> (N, num_output) for the default ``axis: 1``.
    Blobs: weight (num_output, C H W), or its transpose if ``transpose``; bias (num_output).
    Caffe: ``inner_product_layer.cpp``.
    """

    formula = "y = w x + b"
    numerics = Numerics(precision=Precision.PRODUCTS)

    def shape(self, bottom: Shape) -> Shape:
        require(self.param.num_output > 0, "needs num_output")
        return (*bottom[: canonical_axis(self.param.axis, len(bottom))], self.param.num_output)

    def blobs(self, bottom: Shape) -> dict[str, Blob]:
        """weight (num_output, inputs), bias (num_output)."""
        outputs = self.param.num_output
        axis = canonical_axis(self.param.axis, len(bottom))
        inputs, vectors = count(bottom[axis:]), count(bottom[:axis])
        filler = self.param.weight_filler
        if self.param.transpose:
            shape = inputs, outputs
            weight = Blob(shape, filler, output_axis=1, input_axis=0, products=vectors)
        else:
            shape = outputs, inputs
            weight = Blob(shape, filler, output_axis=0, input_axis=1, products=vectors)
        if not self.param.bias_term:
            return {"weight": weight}
        return {"weight": weight, "bias": Blob((outputs,), self.param.bias_filler, is_offset=True)}

    def apply(self, ctx: Context, x: Array) -> Array:
        axis = canonical_axis(self.param.axis, x.ndim)
        rows = x.reshape(*x.shape[:axis], count(x.shape[axis:]))
        weight = ctx.blobs["weight"].astype(x.dtype)
        top = rows @ (weight if self.param.transpose else weight.T)
        return top + jnp.broadcast_to(ctx.blobs["bias"], top.shape) if "bias" in ctx.blobs else top

    def geometry(self, rank: int) -> Geometry:
        """Every output depends on all inputs."""
        return Geometry(sees_all=True)


@register(param="embed_param")
class Embed(Layer):
    """A learned row for each index held in a float: a fully connected layer over one-hot vectors.

    Any shape (N, ...) of indices in [0, input_dim) -> (N, ..., num_output).
    Blobs: weight (input_dim, num_output), bias (num_output) if ``bias_term``.
    Caffe: ``embed_layer.cpp``. Differs: an index outside, which Caffe does not check, gives NaN.
    """

    formula = "y = w[x] + b"
    bottom_use = BottomUse.indices(0)

    def shape(self, bottom: Shape) -> Shape:
        require(self.param.num_output > 0, "needs num_output")
        require(self.param.input_dim > 0, "needs input_dim, the number of indices")
        return (*bottom, self.param.num_output)

    def blobs(self, bottom: Shape) -> dict[str, Blob]:
        """weight (input_dim, num_output), bias (num_output)."""
        outputs = self.param.num_output
        # The weight's rows belong to indices, which are no channels.
        weight = Blob((self.param.input_dim, outputs), self.param.weight_filler, output_axis=1)
        if not self.param.bias_term:
            return {"weight": weight}
        return {"weight": weight, "bias": Blob((outputs,), self.param.bias_filler, is_offset=True)}

    def apply(self, ctx: Context, indices: Array) -> Array:
        top = pick_rows(ctx.blobs["weight"], indices)
        return top + jnp.broadcast_to(ctx.blobs["bias"], top.shape) if "bias" in ctx.blobs else top

    def describe(self) -> str:
        return f"{self.param.input_dim} rows"


class _Broadcast(Elementwise):
    """The base of Scale and Bias: a second operand laid along some axes of the first bottom.

    The operand is the second bottom, or a learned blob if there is one bottom. Learned, it spans
    ``num_axes`` axes from ``axis`` on (-1: to the last); a second bottom brings its own rank.
    """

    def configure(self) -> None:
        """A second bottom has axes of its own, which a layout for the first would mistake."""
        if len(self.spec.bottom) > 1:
            self.numerics = Numerics(layout=MemoryLayout.CHANNELS_FIRST)

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

    def shape(self, bottom: Shape, *operand: Shape) -> Shape:
        self.span(bottom, *operand)
        return bottom

    def broadcast(self, ctx: Context, x: Array, operand: Array) -> Array:
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

    def blobs(self, bottom: Shape, *operand: Shape) -> dict[str, Blob]:
        """scale, and bias of the same shape."""
        _, shape = self.span(bottom, *operand)
        blobs = {}
        if not operand:
            blobs["scale"] = Blob(shape, _filler_or_one(self.param))
        if self.param.bias_term:
            blobs["bias"] = Blob(shape, self.param.bias_filler, is_offset=True)
        return blobs

    def apply(self, ctx: Context, x: Array, *operand: Array) -> Array:
        scale = operand[0] if operand else ctx.blobs["scale"]
        top = x * self.broadcast(ctx, x, scale)
        return top + self.broadcast(ctx, x, ctx.blobs["bias"]) if "bias" in ctx.blobs else top


@register(param="bias_param", bottoms=(1, 2))
class Bias(_Broadcast):
    """Add an operand laid along ``axis`` and on: the second bottom, or a learned blob.

    (N, C, H, W) -> (N, C, H, W). Blobs: bias, unless it is the second bottom.
    Caffe: ``bias_layer.cpp``.
    """

    formula = "y = x + bias"

    def blobs(self, bottom: Shape, *operand: Shape) -> dict[str, Blob]:
        return (
            {}
            if operand
            else {"bias": Blob(self.span(bottom)[1], self.param.filler, is_offset=True)}
        )

    def apply(self, ctx: Context, x: Array, *operand: Array) -> Array:
        return x + self.broadcast(ctx, x, operand[0] if operand else ctx.blobs["bias"])


def _filler_or_one(param: Any) -> FillerParameter:
    """The filler of a factor; 1 where none is given."""
    return param.filler if param.HasField("filler") else FillerParameter(value=1)
