"""Convolution, deconvolution, crop and im2col."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from netspec.proto.layers_pb2 import LayerParameter

from .rules import Array, positions, rule


def per_axis(param: Any, plain: str, stem: str, rank: int, default: int) -> list[int]:
    """A convolution's setting, one number for each spatial axis."""
    if param.HasField(f"{stem}_h"):
        return [getattr(param, f"{stem}_h"), getattr(param, f"{stem}_w")]
    given = list(getattr(param, plain)) or [default]
    return given if len(given) == rank else given * rank


def geometry(layer: LayerParameter, rank: int) -> list[tuple[int, int, int, int]]:
    """(kernel, stride, pad, dilation) of a convolution along each spatial axis."""
    p = layer.convolution_param
    dilation = list(p.dilation) or [1]
    return list(
        zip(
            per_axis(p, "kernel_size", "kernel", rank, 0),
            per_axis(p, "stride", "stride", rank, 1),
            per_axis(p, "pad", "pad", rank, 0),
            dilation if len(dilation) == rank else dilation * rank,
            strict=True,
        )
    )


def spread_out(
    small: Sequence[int], large: Sequence[int], windows: list[tuple[int, int, int, int]]
) -> Any:
    """(position in the small image, tap, position in the large one) wherever that exists."""
    for at in positions(small):
        for tap in positions([k for k, _, _, _ in windows]):
            pixel = tuple(
                i * s - p + t * d for i, t, (_, s, p, d) in zip(at, tap, windows, strict=True)
            )
            if all(0 <= i < n for i, n in zip(pixel, large, strict=True)):
                yield at, tap, pixel


@rule("Convolution")
def convolution(layer: LayerParameter, blobs: list[Array], *bottoms: Array) -> list[Array]:
    p = layer.convolution_param
    weight, *bias = blobs
    tops = []
    for x in bottoms:
        axis = p.axis % x.ndim
        size = x.shape[axis + 1 :]
        windows = geometry(layer, len(size))
        out = [
            int((n + 2 * pad - (d * (k - 1) + 1)) / s) + 1
            for n, (k, s, pad, d) in zip(size, windows, strict=True)
        ]
        top = np.zeros((*x.shape[:axis], p.num_output, *out))
        ins, outs = x.shape[axis] // p.group, p.num_output // p.group
        for batch in positions(x.shape[:axis]):
            image, made = x[batch], top[batch]
            for at, tap, pixel in spread_out(out, size, windows):
                for g in range(p.group):
                    mine = slice(g * outs, (g + 1) * outs)
                    pixels = image[(slice(g * ins, (g + 1) * ins), *pixel)]
                    made[(mine, *at)] += weight[(mine, slice(None), *tap)] @ pixels
            for b in bias:
                made += b.reshape(-1, *(1 for _ in out))
        tops.append(top)
    return tops


@rule("Deconvolution")
def deconvolution(layer: LayerParameter, blobs: list[Array], *bottoms: Array) -> list[Array]:
    p = layer.convolution_param
    weight, *bias = blobs
    tops = []
    for x in bottoms:
        axis = p.axis % x.ndim
        size = x.shape[axis + 1 :]
        windows = geometry(layer, len(size))
        out = [
            s * (n - 1) + d * (k - 1) + 1 - 2 * pad
            for n, (k, s, pad, d) in zip(size, windows, strict=True)
        ]
        top = np.zeros((*x.shape[:axis], p.num_output, *out))
        ins, outs = x.shape[axis] // p.group, p.num_output // p.group
        for batch in positions(x.shape[:axis]):
            image, made = x[batch], top[batch]
            for at, tap, pixel in spread_out(size, out, windows):
                for g in range(p.group):
                    mine = slice(g * ins, (g + 1) * ins)
                    spread = image[(mine, *at)] @ weight[(mine, slice(None), *tap)]
                    made[(slice(g * outs, (g + 1) * outs), *pixel)] += spread
            for b in bias:
                made += b.reshape(-1, *(1 for _ in out))
        tops.append(top)
    return tops


@rule("Crop")
def crop(layer: LayerParameter, blobs: list[Array], data: Array, like: Array) -> list[Array]:
    p = layer.crop_param
    first = p.axis % data.ndim
    offsets = list(p.offset) or [0]
    size, start = list(data.shape), [0] * data.ndim
    for axis in range(first, data.ndim):
        size[axis] = like.shape[axis]
        start[axis] = offsets[axis - first] if len(offsets) > 1 else offsets[0]
    top = np.zeros(size)
    for at in positions(size):
        top[at] = data[tuple(i + s for i, s in zip(at, start, strict=True))]
    return [top]


@rule("Im2col")
def im2col(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    axis = layer.convolution_param.axis % x.ndim
    size = x.shape[axis + 1 :]
    windows = geometry(layer, len(size))
    kernel = [k for k, _, _, _ in windows]
    out = [
        int((n + 2 * pad - d * (k - 1) - 1) / s) + 1
        for n, (k, s, pad, d) in zip(size, windows, strict=True)
    ]
    top = np.zeros((*x.shape[:axis], x.shape[axis] * math.prod(kernel), *out))
    for *batch, c in positions(x.shape[: axis + 1]):
        for at, tap, pixel in spread_out(out, size, windows):
            number = 0
            for i, k in zip(tap, kernel, strict=True):
                number = number * k + i
            top[(*batch, c * math.prod(kernel) + number, *at)] = x[(*batch, c, *pixel)]
    return [top]
