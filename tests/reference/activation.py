"""Functions of one element."""

import math

import numpy as np

from netspec.proto.layers_pb2 import LayerParameter

from .rules import Array, elementwise, log_of_one_plus_power, logistic, positions, rule


@rule("ReLU")
def relu(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    slope = layer.relu_param.negative_slope
    return [elementwise(x, lambda v: v if v > 0 else slope * v)]


@rule("Power")
def power(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.power_param
    return [elementwise(x, lambda v: math.pow(p.shift + p.scale * v, p.power))]


@rule("Dropout")
def dropout(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    return [x]


@rule("PReLU")
def prelu(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    (slopes,) = blobs
    top = np.zeros_like(x)
    for at in positions(x.shape):
        slope = slopes[()] if layer.prelu_param.channel_shared else slopes[at[1]]
        top[at] = x[at] if x[at] > 0 else slope * x[at]
    return [top]


@rule("ELU")
def elu(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    alpha = layer.elu_param.alpha
    return [elementwise(x, lambda v: v if v > 0 else alpha * (math.exp(v) - 1))]


@rule("Sigmoid")
def sigmoid(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    return [elementwise(x, logistic)]


@rule("Swish")
def swish(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    return [elementwise(x, lambda v: v * logistic(layer.swish_param.beta * v))]


@rule("TanH")
def tanh(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    return [elementwise(x, lambda v: 2 * logistic(2 * v) - 1)]


@rule("AbsVal")
def absval(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    return [elementwise(x, lambda v: v if v > 0 else -v)]


@rule("BNLL")
def bnll(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    return [elementwise(x, log_of_one_plus_power)]


@rule("Exp")
def exp(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.exp_param
    base = math.e if p.base == -1 else p.base
    return [elementwise(x, lambda v: base**p.shift * base ** (p.scale * v))]


@rule("Log")
def log(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.log_param
    base = math.e if p.base == -1 else p.base
    return [elementwise(x, lambda v: math.log(p.shift + p.scale * v, base))]


@rule("Clip")
def clip(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.clip_param
    return [elementwise(x, lambda v: max(p.min, min(v, p.max)))]


@rule("Threshold")
def threshold(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    return [elementwise(x, lambda v: float(v > layer.threshold_param.threshold))]
