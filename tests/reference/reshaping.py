"""Layers that only move elements."""

import math

import numpy as np

from netspec.proto.layers_pb2 import LayerParameter

from .rules import Array, positions, rule


@rule("Concat")
def concat(layer: LayerParameter, blobs: list[Array], *bottoms: Array) -> list[Array]:
    p = layer.concat_param
    axis = (p.concat_dim if p.HasField("concat_dim") else p.axis) % bottoms[0].ndim
    shape = list(bottoms[0].shape)
    shape[axis] = sum(x.shape[axis] for x in bottoms)
    top, start = np.zeros(shape), 0
    for x in bottoms:
        for at in positions(x.shape):
            moved = list(at)
            moved[axis] += start
            top[tuple(moved)] = x[at]
        start += x.shape[axis]
    return [top]


@rule("Split")
def split(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    return [x] * len(layer.top)


@rule("Flatten")
def flatten(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    first, last = (n % x.ndim for n in (layer.flatten_param.axis, layer.flatten_param.end_axis))
    shape, product = [], 1
    for i, n in enumerate(x.shape):
        if i == first and last < first:
            shape.append(1)
        if first <= i <= last:
            product *= n
            if i == last:
                shape.append(product)
        else:
            shape.append(n)
    return [np.array(list(x.flat)).reshape(shape)]


@rule("Reshape")
def reshape(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.reshape_param
    start = p.axis if p.axis >= 0 else p.axis + x.ndim + 1
    end = x.ndim if p.num_axes < 0 else start + p.num_axes
    shape = [*x.shape[:start], *p.shape.dim, *x.shape[end:]]
    for i in range(start, start + len(p.shape.dim)):
        shape[i] = shape[i] or x.shape[i]
    if -1 in shape:
        shape[shape.index(-1)] = x.size // -math.prod(shape)
    return [np.array(list(x.flat)).reshape(shape)]


@rule("Slice")
def slice_(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.slice_param
    axis = (p.slice_dim if p.HasField("slice_dim") else p.axis) % x.ndim
    size, parts = x.shape[axis], len(layer.top)
    starts = [0, *p.slice_point] if p.slice_point else [size // parts * i for i in range(parts)]
    tops = []
    for start, end in zip(starts, [*starts[1:], size], strict=True):
        rows = [np.take(x, i, axis) for i in range(start, end)]
        empty = np.zeros([0 if i == axis else n for i, n in enumerate(x.shape)])
        tops.append(np.stack(rows, axis) if rows else empty)
    return tops


@rule("Tile")
def tile(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.tile_param
    axis = p.axis % x.ndim
    top = np.zeros([n * p.tiles if i == axis else n for i, n in enumerate(x.shape)])
    for at in positions(top.shape):
        top[at] = x[tuple(i % n for i, n in zip(at, x.shape, strict=True))]
    return [top]


@rule("BatchReindex")
def batch_reindex(layer: LayerParameter, blobs: list[Array], x: Array, i: Array) -> list[Array]:
    return [np.array([x[int(n)] for n in i])]
