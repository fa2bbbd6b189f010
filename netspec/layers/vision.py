"""Layers over images: convolution, its transpose, im2col and cropping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import jax.numpy as jnp

from netspec.errors import require
from netspec.layers.base import Geometry, Layer
from netspec.layers.context import Context
from netspec.layers.coord_map import CoordMap
from netspec.layers.lowering import windows
from netspec.layers.numerics import MemoryLayout, Numerics, Precision
from netspec.layers.records import Blob, BottomUse
from netspec.layers.registry import register
from netspec.layers.shape import Array, Shape, canonical_axis, count, same_shape, text
from netspec.layers.valid_region import PaddingValue, PartialShape
from netspec.layers.window import SlidingWindow, convolution_window, states_kernel
from netspec.proto.layers_pb2 import LayerParameter


class _Windowed(Layer):
    """The base of layers with a ConvolutionParameter: a window over all axes after the channels."""

    def window(self, bottom: Shape) -> tuple[int, SlidingWindow]:
        """The channel axis, and the window over the axes after it."""
        axis = canonical_axis(self.param.axis, len(bottom))
        return axis, convolution_window(self.param, len(bottom) - axis - 1)

    def geometry(self, rank: int) -> Geometry:
        """Where channels lie."""
        return Geometry(channel_axis=self.param.axis % max(rank + 2, 1))

    def describe(self) -> str:
        """The window in words, over 2 spatial axes if the settings say nothing else."""
        p = self.param
        given = max(map(len, (p.kernel_size, p.stride, p.pad, p.dilation)))
        rank = given if given > 1 else 2
        return self.describe_window(rank if states_kernel(p) else 0)

    def describe_on(self, *bottoms: Shape) -> str:
        """The window over as many spatial axes as there are."""
        axis = canonical_axis(self.param.axis, len(bottoms[0]))
        return self.describe_window(len(bottoms[0]) - axis - 1)

    def describe_window(self, rank: int) -> str:
        """The window over ``rank`` spatial axes in words."""
        return convolution_window(self.param, rank).describe()


class _Convolutional(_Windowed):
    """The base of Convolution and Deconvolution: one weight and bias for all bottoms."""

    numerics = Numerics(MemoryLayout.CHANNELS_LAST, Precision.PRODUCTS)
    # Along which axes of the weight outputs and input channels lie.
    weight_axes: ClassVar[tuple[int, int]] = (0, 1)

    def configure(self) -> None:
        """Channels-last needs channels on axis 1."""
        if self.param.axis != 1:
            self.numerics = replace(self.numerics, layout=MemoryLayout.CHANNELS_FIRST)

    def check(self, bottoms: tuple[Shape, ...]) -> None:
        """Raise LayerError unless channels and outputs divide into groups."""
        same_shape(bottoms)
        outputs, groups = self.param.num_output, self.param.group
        channels = bottoms[0][self.window(bottoms[0])[0]]
        require(outputs > 0, "needs num_output")
        require(groups > 0, f"group {groups} must be positive")
        require(channels % groups == 0, f"{channels} channels do not divide into {groups} groups")
        require(outputs % groups == 0, f"{outputs} outputs do not divide into {groups} groups")

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...]:
        """Zeros, as in padding."""
        return (PaddingValue.ZERO,) * len(bottoms)

    def weights(self, first: int, second: int, kernel: Shape, products: int) -> dict[str, Blob]:
        """Weight (first, second / group, kernel...) and bias (num_output)."""
        outputs, group = self.param.num_output, self.param.group
        output_axis: int | None
        input_axis: int | None
        output_axis, input_axis = self.weight_axes
        if group > 1:
            # Channels lie in groups, and so do outputs unless each has a group of its own.
            output_axis, input_axis = (0 if group == outputs else None), None
        weight = Blob(
            (first, second // group, *kernel),
            self.param.weight_filler,
            output_axis=output_axis,
            input_axis=input_axis,
            products=products,
        )
        if not self.param.bias_term:
            return {"weight": weight}
        return {"weight": weight, "bias": Blob((outputs,), self.param.bias_filler, is_offset=True)}

    def run(self, ctx: Context, bottom: Array, algorithm: Callable[..., Array]) -> Array:
        """Run ``algorithm`` on one bottom, the axes before its channels made one batch axis."""
        axis, window = self.window(ctx.shape(bottom))
        window, weight = windows.without_zero_dilation(window, ctx.blobs["weight"])
        batch = bottom.shape[:axis]
        x = bottom.reshape(count(batch), *bottom.shape[axis:])
        top = algorithm(
            x,
            weight,
            window,
            self.param.group,
            ctx.channels_last and bottom.ndim >= 4,
        )
        if "bias" in ctx.blobs:
            channel = ctx.axis(1, top.ndim)
            top = top + ctx.blobs["bias"].reshape(
                [-1 if i == channel else 1 for i in range(top.ndim)]
            )
        return top.reshape(*batch, *top.shape[1:])

    def describe_window(self, rank: int) -> str:
        """The window and the groups."""
        groups = f"group {self.param.group}" if self.param.group > 1 else ""
        return ", ".join(filter(None, [super().describe_window(rank), groups]))


@register(param="convolution_param", bottoms=(1, None), tops="bottoms")
class Convolution(_Convolutional):
    """Cross-correlation with learned filters, over any number of spatial axes, or none.

    (N, C, H, W) -> (N, num_output, H', W') with
    H' = (H + 2 pad - dilation (kernel - 1) - 1) / stride + 1, the division rounded towards 0.
    (N, C) -> (N, num_output) needs no ``kernel_size``.
    Blobs: weight (num_output, C / group, kernel...), bias (num_output).
    Caffe: ``conv_layer.cpp``, ``base_conv_layer.cpp``.
    """

    formula = "y = w * x + b"

    def shape(self, *bottoms: Shape) -> Shape | tuple[Shape, ...]:
        """(N, C, H, W) -> (N, num_output, H', W')."""
        self.check(bottoms)
        axis, window = self.window(bottoms[0])
        size = window.convolved(bottoms[0][axis + 1 :])
        return ((*bottoms[0][:axis], self.param.num_output, *size),) * len(bottoms)

    def blobs(self, *bottoms: Shape) -> dict[str, Blob]:
        """weight (num_output, C / group, kernel...), bias (num_output)."""
        axis, window = self.window(bottoms[0])
        batch, channels, size = bottoms[0][:axis], bottoms[0][axis], bottoms[0][axis + 1 :]
        # Each element is used once at each pixel of each top.
        products = len(bottoms) * count(batch) * count(window.convolved(size))
        return self.weights(self.param.num_output, channels, window.kernel, products)

    def apply(self, ctx: Context, *bottoms: Array) -> tuple[Array, ...]:
        return tuple(self.run(ctx, x, windows.convolution) for x in bottoms)

    def coords(self, rank: int) -> CoordMap | None:
        """Output pixel p sits at stride p + (extent - 1) / 2 - pad."""
        if rank and not states_kernel(self.param):
            return None
        axis, window = self.window((1,) * (rank + 2))
        return window.down(axis + 1)

    def geometry(self, rank: int) -> Geometry:
        """Shift equivariant, and with any pad."""
        moves = super().geometry(rank)
        return replace(moves, shift_equivariant=True, repadded=self._repadded)

    def _repadded(self, pad: int) -> Convolution:
        """Replace the pad, in whichever spelling it is given."""
        spec = LayerParameter()
        spec.CopyFrom(self.spec)
        for name in ("pad", "pad_h", "pad_w"):
            spec.convolution_param.ClearField(name)
        spec.convolution_param.pad.append(pad)
        return Convolution(spec, self.phase)


@register(param="convolution_param", bottoms=(1, None), tops="bottoms")
class Deconvolution(_Convolutional):
    """The transpose of a convolution: upsampling with learned or bilinear filters.

    (N, C, H, W) -> (N, num_output, H', W') with
    H' = stride (H - 1) + dilation (kernel - 1) + 1 - 2 pad.
    Blobs: weight (C, num_output / group, kernel...), bias (num_output).
    Caffe: ``deconv_layer.cpp``.
    """

    formula = "y = transpose(w) * x + b"
    weight_axes = (1, 0)

    def shape(self, *bottoms: Shape) -> Shape | tuple[Shape, ...]:
        """(N, C, H, W) -> (N, num_output, H', W')."""
        self.check(bottoms)
        axis, window = self.window(bottoms[0])
        size = window.deconvolved(bottoms[0][axis + 1 :])
        return ((*bottoms[0][:axis], self.param.num_output, *size),) * len(bottoms)

    def blobs(self, *bottoms: Shape) -> dict[str, Blob]:
        """weight (C, num_output / group, kernel...), bias (num_output)."""
        axis, window = self.window(bottoms[0])
        batch, channels, size = bottoms[0][:axis], bottoms[0][axis], bottoms[0][axis + 1 :]
        # Each element is used once at each pixel of each bottom.
        products = len(bottoms) * count(batch) * count(size)
        return self.weights(channels, self.param.num_output, window.kernel, products)

    def apply(self, ctx: Context, *bottoms: Array) -> tuple[Array, ...]:
        return tuple(self.run(ctx, x, windows.deconvolution) for x in bottoms)

    def coords(self, rank: int) -> CoordMap | None:
        """Output pixel p sits at (p + pad - (extent - 1) / 2) / stride."""
        if rank and not states_kernel(self.param):
            return None
        axis, window = self.window((1,) * (rank + 2))
        return window.up(axis + 1)


@register(param="convolution_param")
class Im2col(_Windowed):
    """The pixels under each window of a convolution, laid out as channels.

    (N, C, H, W) -> (N, C kernel_h kernel_w, H', W'), over any number of spatial axes, with the
    sizes of Convolution; a channel's taps lie side by side, in row order.
    Caffe: ``im2col_layer.cpp``.
    """

    formula = "y = the window around each pixel"
    numerics = Numerics(layout=MemoryLayout.EITHER)

    def configure(self) -> None:
        """Channels-last needs channels on axis 1."""
        if self.param.axis != 1:
            self.numerics = Numerics(layout=MemoryLayout.CHANNELS_FIRST)

    def window(self, bottom: Shape) -> tuple[int, SlidingWindow]:
        """The channel axis, and the window over the axes after it."""
        axis = canonical_axis(self.param.axis, len(bottom))
        rank = len(bottom) - axis - 1
        require(rank > 0, f"axis {axis} of {text(bottom)} leaves no spatial axes for the window")
        return super().window(bottom)

    def shape(self, bottom: Shape) -> Shape:
        """(N, C, H, W) -> (N, C kernel_h kernel_w, H', W')."""
        axis, window = self.window(bottom)
        size = window.convolved(bottom[axis + 1 :])
        return (*bottom[:axis], bottom[axis] * count(window.kernel), *size)

    def apply(self, ctx: Context, bottom: Array) -> Array:
        """Stack shifted slices beside their channel."""
        shape = ctx.shape(bottom)
        axis, window = self.window(shape)
        x = bottom.reshape(count(shape[:axis]), *bottom.shape[axis:])
        out = window.convolved(shape[axis + 1 :])
        taps = jnp.moveaxis(
            windows.stack_taps(x, window, out, ctx.channels_last),
            0,
            -1 if ctx.channels_last else 2,
        )
        if ctx.channels_last:
            return taps.reshape(*taps.shape[:-2], taps.shape[-2] * taps.shape[-1])
        return taps.reshape(*shape[:axis], taps.shape[1] * taps.shape[2], *out)

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...]:
        """Zeros, as in padding."""
        return (PaddingValue.ZERO,)

    def coords(self, rank: int) -> CoordMap:
        """As a convolution's."""
        axis, window = self.window((1,) * (rank + 2))
        return window.down(axis + 1)


@register(param="crop_param", bottoms=2)
class Crop(Layer):
    """Cut ``data`` to the size of ``like``, on ``axis`` and every axis after it.

    (N, C, H, W), (n, c, h, w) -> (N, C, h, w) for the default ``axis: 2``.
    Caffe: ``crop_layer.cpp``.
    """

    formula = "y = x[offset : offset + size]"
    numerics = Numerics(layout=MemoryLayout.EITHER)
    bottom_use = BottomUse(shape_only=frozenset({1}))

    def starts(self, rank: int) -> Shape:
        """Where the cut begins on each axis."""
        axis = canonical_axis(self.param.axis, rank)
        offsets = tuple(self.param.offset)
        require(
            len(offsets) in (0, 1, rank - axis),
            f"{len(offsets)} offsets for {rank - axis} axes from axis {axis} on; "
            "give one for all, or one for each",
        )
        if len(offsets) != rank - axis:
            offsets = (offsets or (0,)) * (rank - axis)
        return (0,) * axis + offsets

    def shape(self, data: Shape, like: Shape) -> Shape:
        """The size of ``like`` from ``axis`` on."""
        require(
            len(data) <= len(like),
            f"{text(data)} cannot be cropped to {text(like)}: it has fewer axes",
        )
        axis = canonical_axis(self.param.axis, len(data))
        top = data[:axis] + like[axis : len(data)]
        for i, start in enumerate(self.starts(len(data))):
            require(
                start + top[i] <= data[i],
                f"axis {i}: offset {start} + size {top[i]} > {data[i]}",
            )
        return top

    def apply(self, ctx: Context, data: Array, like: Array) -> Array:
        starts = self.starts(data.ndim)
        top = self.shape(ctx.shape(data), ctx.shape(like))
        cut = [slice(None)] * data.ndim
        for i, (start, size) in enumerate(zip(starts, top, strict=True)):
            cut[ctx.axis(i, data.ndim)] = slice(start, start + size)
        return data[tuple(cut)]

    def padding_values(self, *bottoms: PartialShape) -> tuple[PaddingValue, ...]:
        """Any value: the cut begins at the same place whatever the size."""
        return (PaddingValue.ANYTHING,) * len(bottoms)

    def coords(self, rank: int) -> CoordMap:
        """Output pixel p sits at p + offset."""
        # Without a batch axis, channels are on axis 0, and the cut may begin on axis 1.
        first = min(canonical_axis(self.param.axis, rank + 2), 2)
        starts = tuple(map(Fraction, self.starts(rank + 2)[first:]))
        return CoordMap.identity(len(starts))._replace(axis=first, shift=starts)

    def geometry(self, rank: int) -> Geometry:
        """It can cut anywhere."""
        return Geometry(recut=self._recut)

    def _recut(self, offset: Shape) -> Crop:
        """Replace the offsets of the axes that are cut; 0 for batch and channels."""
        spec = LayerParameter()
        spec.CopyFrom(self.spec)
        axis = canonical_axis(self.param.axis, len(offset) + 2)
        spec.crop_param.offset[:] = (0, 0, *offset)[axis:]
        return Crop(spec, self.phase)

    def describe(self) -> str:
        return f"offset {', '.join(map(str, self.param.offset)) or 0}"
