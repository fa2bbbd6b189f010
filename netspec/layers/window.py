"""Sliding windows: kernel, stride, pad and dilation in all of Caffe's spellings, and sizes.

Caffe: ``base_conv_layer.cpp``, ``pooling_layer.cpp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from netspec.errors import require
from netspec.layers.coord_map import CoordMap
from netspec.layers.shape import Shape, text


@dataclass(frozen=True)
class SlidingWindow:
    """A window over the spatial axes, one number an axis; ``pad`` is put on both sides.

    With a dilation of 0 the whole kernel touches one pixel.
    """

    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @property
    def extent(self) -> Shape:
        """Pixels from the first to the last that the kernel touches, dilation counted in."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def convolved(self, size: Shape) -> Shape:
        """Output size of a convolution: windows that lie whole inside image + pad.

        As in C, the division rounds towards 0: one window is left where what it lacks is less than
        the stride, and zeros stand for that.
        """
        out = []
        for i, (n, k, s, p) in enumerate(self.axes(size)):
            spare = n + 2 * p - k
            require(spare > -s, f"spatial axis {i}: kernel extent {k} > size {n} + pad {2 * p}")
            out.append(max(spare, 0) // s + 1)
        return tuple(out)

    def padding(self, size: Shape) -> tuple[tuple[int, int], ...]:
        """Zeros before and behind an image, per axis, with those that a lone window lacks."""
        return tuple((p, p + max(0, k - n - 2 * p)) for n, k, _, p in self.axes(size))

    def deconvolved(self, size: Shape) -> Shape:
        """Output size of a transposed convolution."""
        out = tuple(s * (n - 1) + k - 2 * p for n, k, s, p in self.axes(size))
        require(all(n > 0 for n in out), f"pad {text(self.pad)} leaves an output of {text(out)}")
        return out

    def over(self, rank: int) -> SlidingWindow:
        """The same window on ``rank`` axes if all its axes are alike; else unchanged."""
        axes = set(zip(self.kernel, self.stride, self.pad, self.dilation, strict=True))
        return (
            self if len(axes) > 1 else SlidingWindow(*((number,) * rank for number in axes.pop()))
        )

    def down(self, axis: int = 2) -> CoordMap:
        """Where a convolution's or pooling's output pixels sit on its input."""
        shift = tuple(Fraction(k - 1, 2) - p for k, p in zip(self.extent, self.pad, strict=True))
        return CoordMap(
            axis, tuple(map(Fraction, self.stride)), shift, tuple(map(Fraction, self.extent))
        )

    def up(self, axis: int = 2) -> CoordMap:
        """Where a transposed convolution's output pixels sit on its input."""
        scale = tuple(Fraction(1, s) for s in self.stride)
        shift = tuple(
            (p - Fraction(k - 1, 2)) / s
            for k, s, p in zip(self.extent, self.stride, self.pad, strict=True)
        )
        extent = tuple(
            1 + Fraction(k - 1, s) for k, s in zip(self.extent, self.stride, strict=True)
        )
        return CoordMap(axis, scale, shift, extent)

    def describe(self) -> str:
        """``3x3, stride 2, pad 1``, with what is not the default."""
        if not self.kernel:
            return ""
        parts = [text(self.kernel)]
        for name, values, default in (
            ("stride", self.stride, 1),
            ("pad", self.pad, 0),
            ("dilation", self.dilation, 1),
        ):
            if set(values) == {values[0]} != {default}:
                parts.append(f"{name} {values[0]}")
            elif set(values) != {default}:
                parts.append(f"{name} {text(values)}")
        return ", ".join(parts)

    def axes(self, size: Shape) -> list[tuple[int, int, int, int]]:
        """(size, kernel extent, stride, pad) of each spatial axis."""
        return list(zip(size, self.extent, self.stride, self.pad, strict=True))


def convolution_window(param: Any, rank: int) -> SlidingWindow:
    """The window of a ConvolutionParameter over ``rank`` spatial axes; raises LayerError."""
    kernel = _repeated(param, "kernel_size", "kernel", rank, None)
    stride = _repeated(param, "stride", "stride", rank, 1)
    pad = _repeated(param, "pad", "pad", rank, 0)
    dilation = _spread(list(param.dilation), "dilation", rank, 1)
    _positive(kernel=kernel, stride=stride)
    return SlidingWindow(kernel, stride, pad, dilation)


def states_kernel(param: Any) -> bool:
    """Whether a kernel is given; without one there must be no spatial axes."""
    return bool(param.kernel_size) or param.HasField("kernel_h") or param.HasField("kernel_w")


def pooling_window(param: Any, size: Shape) -> SlidingWindow:
    """The window of a PoolingParameter over an image of ``size``; raises LayerError."""
    stride = _pair(param, "stride")
    pad = _pair(param, "pad")
    if param.global_pooling:
        require(
            not any(map(param.HasField, ("kernel_size", "kernel_h", "kernel_w"))),
            "global_pooling: true pools over the whole image; remove kernel_size",
        )
        require(
            pad == (0, 0) and stride == (1, 1),
            "global_pooling: true takes no pad and no stride",
        )
        kernel = size
    else:
        require(
            param.HasField("kernel_size")
            or (param.HasField("kernel_h") and param.HasField("kernel_w")),
            "needs kernel_size, or kernel_h and kernel_w",
        )
        both = param.HasField("kernel_h") and param.HasField("kernel_w")
        # As in Caffe, one of them alone is nothing beside kernel_size.
        alone = param.HasField("kernel_size") and not both
        kernel = (param.kernel_size,) * 2 if alone else _pair(param, "kernel", "kernel_size")
    _positive(kernel=kernel, stride=stride)
    for i, (p, k) in enumerate(zip(pad, kernel, strict=True)):
        require(p < k, f"spatial axis {i}: pad {p} must be less than kernel {k}")
    return SlidingWindow(kernel, stride, pad, (1, 1))


def _repeated(param: Any, plain: str, stem: str, rank: int, default: int | None) -> Shape:
    """``kernel_size`` once or per axis, or ``kernel_h`` and ``kernel_w``."""
    values = list(getattr(param, plain))
    h, w = f"{stem}_h", f"{stem}_w"
    if not (param.HasField(h) or param.HasField(w)):
        return _spread(values, plain, rank, default)
    require(not values, f"give {plain}, or {h} and {w}, not both")
    require(rank == 2, f"{h} and {w} speak of 2 spatial axes, but there are {rank}")
    both = param.HasField(h) and param.HasField(w)
    require(both or default == 0, f"give both {h} and {w}")
    return getattr(param, h), getattr(param, w)


def _spread(values: list[int], name: str, rank: int, default: int | None) -> Shape:
    require(values or default is not None or not rank, f"needs {name}")
    require(
        len(values) in (0, 1, rank),
        f"{name} is given {len(values)} times; give it once, or once for each of the "
        f"{rank} spatial axes",
    )
    values = values or [default or 0]
    return tuple(values if len(values) == rank else values * rank)


def _pair(param: Any, stem: str, plain: str | None = None) -> Shape:
    """Pooling's singular spelling: ``stride``, or ``stride_h`` and ``stride_w``."""
    plain = plain or stem
    h, w = f"{stem}_h", f"{stem}_w"
    split = param.HasField(h), param.HasField(w)
    require(not (param.HasField(plain) and any(split)), f"give {plain}, or {h} and {w}, not both")
    require(split[0] == split[1], f"give both {h} and {w}")
    if all(split):
        return getattr(param, h), getattr(param, w)
    return (getattr(param, plain),) * 2


def _positive(**settings: Shape) -> None:
    for name, values in settings.items():
        require(all(v > 0 for v in values), f"{name} {text(values)} must be positive")
