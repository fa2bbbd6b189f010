"""Recurrent layers."""

import math

import numpy as np

from netspec.proto.layers_pb2 import LayerParameter

from .rules import Array, elementwise, logistic, rule


def lstm_step(cell: Array, gates: Array, goes_on: float) -> tuple[Array, Array]:
    """The next cell and hidden state of one stream."""
    size = len(cell)
    c, h = np.zeros(size), np.zeros(size)
    for d in range(size):
        i, f, o, g = (gates[k * size + d] for k in range(4))
        c[d] = goes_on * logistic(f) * cell[d] + logistic(i) * math.tanh(g)
        h[d] = logistic(o) * math.tanh(c[d])
    return c, h


@rule("LSTMUnit")
def lstm_unit(
    layer: LayerParameter, blobs: list[Array], cell: Array, gates: Array, cont: Array
) -> list[Array]:
    c, h = np.zeros_like(cell), np.zeros_like(cell)
    for n in range(cell.shape[1]):
        c[0, n], h[0, n] = lstm_step(cell[0, n], gates[0, n], cont[0, n])
    return [c, h]


@rule("LSTM")
def lstm(
    layer: LayerParameter, blobs: list[Array], x: Array, cont: Array, *more: Array
) -> list[Array]:
    p, rest = layer.recurrent_param, list(more)
    weight, bias, *static_weight, hidden_weight = blobs
    static = [rest.pop(0)] if static_weight else []
    top = np.zeros((*x.shape[:2], p.num_output))
    last_h, last_c = (np.zeros((1, x.shape[1], p.num_output)) for _ in range(2))
    for n in range(x.shape[1]):
        h, c = (state[0, n] for state in rest) if rest else (top[0, n] * 0, top[0, n] * 0)
        for t in range(len(x)):
            gates = weight @ x[t, n].reshape(-1) + bias + hidden_weight @ (cont[t, n] * h)
            for w, s in zip(static_weight, static, strict=True):
                gates = gates + w @ s[n].reshape(-1)
            c, h = lstm_step(c, gates, cont[t, n])
            top[t, n] = h
        last_h[0, n], last_c[0, n] = h, c
    return [top, last_h, last_c]


@rule("RNN")
def rnn(
    layer: LayerParameter, blobs: list[Array], x: Array, cont: Array, *more: Array
) -> list[Array]:
    p, rest = layer.recurrent_param, list(more)
    weight, bias, *static_weight, hidden_weight, top_weight, top_bias = blobs
    static = [rest.pop(0)] if static_weight else []
    top = np.zeros((*x.shape[:2], p.num_output))
    last = np.zeros((1, x.shape[1], p.num_output))
    for n in range(x.shape[1]):
        h = rest[0][0, n] if rest else top[0, n] * 0
        for t in range(len(x)):
            entered = weight @ x[t, n].reshape(-1) + bias + hidden_weight @ (cont[t, n] * h)
            for w, s in zip(static_weight, static, strict=True):
                entered = entered + w @ s[n].reshape(-1)
            h = elementwise(entered, math.tanh)
            top[t, n] = elementwise(top_weight @ h + top_bias, math.tanh)
        last[0, n] = h
    return [top, last]
