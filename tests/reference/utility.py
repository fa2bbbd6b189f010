"""Layers that combine, reduce or hold arrays."""

import math

import numpy as np

from netspec.proto.layers_pb2 import EltwiseParameter, LayerParameter, ReductionParameter

from .rules import Array, off_axis, positions, rule


@rule("Eltwise")
def eltwise(layer: LayerParameter, blobs: list[Array], *bottoms: Array) -> list[Array]:
    p = layer.eltwise_param
    coefficients = list(p.coeff) or [1.0] * len(bottoms)
    top = np.zeros_like(bottoms[0])
    for at in positions(top.shape):
        values = [x[at] for x in bottoms]
        if p.operation == EltwiseParameter.SUM:
            top[at] = sum(c * v for c, v in zip(coefficients, values, strict=True))
        else:
            top[at] = (math.prod if p.operation == EltwiseParameter.PROD else max)(values)
    return [top]


@rule("Silence")
def silence(layer: LayerParameter, blobs: list[Array], *bottoms: Array) -> list[Array]:
    return []


@rule("Parameter")
def parameter(layer: LayerParameter, blobs: list[Array]) -> list[Array]:
    return blobs


@rule("Reduction")
def reduction(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.reduction_param
    outer = x.shape[: p.axis % x.ndim]
    top = np.zeros(outer)
    for at in positions(outer):
        values = list(np.ravel(x[at]))
        total = {
            ReductionParameter.SUM: sum(values),
            ReductionParameter.ASUM: sum(abs(v) for v in values),
            ReductionParameter.SUMSQ: sum(v * v for v in values),
            ReductionParameter.MEAN: sum(values) / len(values),
        }[p.operation]
        top[at] = p.coeff * total
    return [top]


@rule("ArgMax")
def argmax(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.argmax_param

    def best(row: Array) -> list[tuple[float, int]]:
        return sorted(((v, i) for i, v in enumerate(row)), reverse=True)[: p.top_k]

    if p.HasField("axis"):
        axis = p.axis % x.ndim
        top = np.zeros([p.top_k if i == axis else n for i, n in enumerate(x.shape)])
        for row in off_axis(x.shape, axis):
            top[row] = [v if p.out_max_val else i for v, i in best(x[row])]
        return [top]
    items = []
    for item in x:
        found = best(item.reshape(-1))
        items.append([i for _, i in found] + ([v for v, _ in found] if p.out_max_val else []))
    shape = [len(x), 2 if p.out_max_val else 1, p.top_k] + [1] * (x.ndim - 3)
    return [np.array(items, np.float64).reshape(shape)]
