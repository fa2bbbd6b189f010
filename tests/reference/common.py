"""Products, embeddings, scales and biases."""

import numpy as np

from netspec.proto.layers_pb2 import LayerParameter

from .rules import Array, positions, rule


@rule("InnerProduct")
def inner_product(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.inner_product_param
    weight, *bias = blobs
    outer = x.shape[: p.axis % x.ndim]
    top = np.zeros((*outer, p.num_output))
    for row in positions(outer):
        for o in range(p.num_output):
            for i, v in enumerate(x[row].reshape(-1)):
                top[(*row, o)] += v * (weight[i, o] if p.transpose else weight[o, i])
            for b in bias:
                top[(*row, o)] += b[o]
    return [top]


@rule("Embed")
def embed(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    weight, *bias = blobs
    top = np.zeros((*x.shape, layer.embed_param.num_output))
    for at in positions(x.shape):
        top[at] = weight[int(x[at])] + sum(bias)
    return [top]


@rule("Scale")
def scale(layer: LayerParameter, blobs: list[Array], x: Array, *second: Array) -> list[Array]:
    axis = layer.scale_param.axis % x.ndim
    factor, *bias = [*second, *blobs]
    top = np.zeros_like(x)
    for at in positions(x.shape):
        seen = at[axis : axis + factor.ndim]
        top[at] = x[at] * factor[seen] + sum(b[seen] for b in bias)
    return [top]


@rule("Bias")
def bias(layer: LayerParameter, blobs: list[Array], x: Array, *second: Array) -> list[Array]:
    axis = layer.bias_param.axis % x.ndim
    (term,) = [*second, *blobs]
    top = np.zeros_like(x)
    for at in positions(x.shape):
        top[at] = x[at] + term[at[axis : axis + term.ndim]]
    return [top]
