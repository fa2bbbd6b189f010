"""What Caffe's backward reads of each layer type: now, what blobs hold; then, what forward kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arrays:
    """Of one moment: x, the bottoms; y, the tops; w, the learned arrays."""

    x: Sequence[Floats]
    y: Sequence[Floats]
    w: Sequence[Floats]


# (then, now, the first top's diff) -> the diffs of bottoms and of learned arrays, None if unread.
Rule = Callable[[Arrays, Arrays, Floats], Sequence[Any]]


@dataclass(frozen=True)
class Row:
    """A layer, the shapes of its bottoms, and the rule by which Caffe computes its gradient.

    fills: per bottom, what it holds: "normal", "positive", or an int: indices below it.
    """

    name: str
    layer: str
    shapes: Sequence[tuple[int, ...]]
    rule: Rule
    fills: Sequence[Any] = ()
    phase: str = "TRAIN"


def _softmax(x: Floats) -> Floats:
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def _hot(labels: Floats, classes: int) -> Floats:
    return np.eye(classes)[labels.astype(int)]


def _channel_sums(x: Floats, size: int) -> Floats:
    """Sums over ``size`` channels around each."""
    half = size // 2
    wide = np.pad(x, [(0, 0), (half, half), (0, 0), (0, 0)])
    return sum(wide[:, i : i + x.shape[1]] for i in range(size))


def _pixel_sums(x: Floats, size: int) -> Floats:
    """Sums over a square of pixels around each."""
    half = size // 2
    wide = np.pad(x, [(0, 0), (0, 0), (half, half), (half, half)])
    (h, w), steps = x.shape[2:], range(size)
    return sum(wide[:, :, i : i + h, j : j + w] for i in steps for j in steps)


def _lrn(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    scale = 1 + 0.5 / 3 * _channel_sums(then.x[0] ** 2, 3)
    ratio = _channel_sums(dy * now.y[0] / scale, 3)
    return [dy * scale**-0.75 - 2 * 0.5 * 0.75 / 3 * now.x[0] * ratio]


def _lrn_within(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    scale = 1 + 0.5 / 9 * _pixel_sums(then.x[0] ** 2, 3)
    pooled = -0.75 * 0.5 / 9 * scale**-1.75 * dy * now.x[0]
    return [dy * scale**-0.75 + 2 * now.x[0] * _pixel_sums(pooled, 3)]


def _normalised(x: Floats, axes: tuple[int, ...], dy: Floats, y: Any, deviation: Any) -> Floats:
    def mean(array: Floats) -> Floats:
        return array.mean(axes, keepdims=True)

    return (dy - mean(dy) - y * mean(dy * y)) / deviation


def _batch_norm(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    x, axes = then.x[0], (0, 2)
    deviation = np.sqrt(x.var(axes, keepdims=True) + 1e-5)
    y = (x - x.mean(axes, keepdims=True)) / deviation
    return [_normalised(x, axes, dy, y, deviation)]


def _mvn(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    deviation = then.x[0].std((2, 3), keepdims=True) + 1e-9
    return [_normalised(then.x[0], (2, 3), dy, now.y[0], deviation)]


def _max_pool(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    return [_spread_by(_places(then.x[0]), then.x[0].shape, dy)]


def _places(x: Floats) -> NDArray[np.int64]:
    """Where the maximum of each 2x2 window lies, as h * W + w."""
    n, c, h, w = x.shape
    cells = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    best = cells.reshape(n, c, h // 2, w // 2, 4).argmax(-1)
    rows, columns = np.meshgrid(np.arange(h // 2), np.arange(w // 2), indexing="ij")
    return (2 * rows + best // 2) * w + 2 * columns + best % 2


def _spread_by(places: Any, shape: tuple[int, ...], dy: Floats) -> Floats:
    dx = np.zeros(shape)
    for n, c, i, j in np.ndindex(dy.shape):
        dx[n, c].flat[int(places[n, c, i, j])] += dy[n, c, i, j]
    return dx


def _stochastic(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    wide = then.y[0].repeat(2, 2).repeat(2, 3)
    return [np.where(np.isclose(then.x[0], wide), dy.repeat(2, 2).repeat(2, 3), 0)]


def _contrastive(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    difference = then.x[0] - then.x[1]
    distance = np.sqrt((difference**2).sum(1))
    apart = -np.maximum(1.5 - distance, 0) / (distance + 1e-4)
    da = dy * np.where(now.x[2] != 0, 1.0, apart)[:, None] * difference / len(difference)
    return [da, -da, None]


def _hinge(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    def signs(labels: Floats) -> Floats:
        return 1 - 2 * _hot(labels, 3)

    violations = np.maximum(0, 1 + signs(then.x[1]) * then.x[0])
    return [dy * 2 / len(violations) * violations * signs(now.x[1]), None]


def _infogain(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    rows = now.x[2][now.x[1].astype(int)]
    slope = _softmax(then.x[0]) * rows.sum(1, keepdims=True) - rows
    return [dy * slope / len(rows), None, None]


def _multinomial(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    return [-dy * _hot(now.x[1], 3) / now.x[0] / len(now.x[0]), None]


def _lstm_unit(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    """The diff of h is zero, so that only c's counts."""
    c, gates, cont = now.x
    i, f, o, g = np.split(gates, 4, -1)
    i, f, g, on = _sigmoid(i), _sigmoid(f), np.tanh(g), cont[..., None]
    parts = [g * i * (1 - i), on * c * f * (1 - f), np.zeros_like(o), i * (1 - g * g)]
    return [dy * on * f, np.concatenate([dy * part for part in parts], -1), None]


def _lstm(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    """Weights and x are read as they are; what gates and cells were stands in buffers."""
    w_then, b_then, hidden_then = then.w
    steps, streams, size = dy.shape
    h = c = np.zeros((streams, size))
    seen = []
    for t in range(steps):
        on = then.x[1][t][:, None]
        sums = then.x[0][t] @ w_then.T + b_then + (on * h) @ hidden_then.T
        i, f, o = (_sigmoid(part) for part in np.split(sums, 4, 1)[:3])
        g = np.tanh(np.split(sums, 4, 1)[3])
        before = h, c
        c = on * f * c + i * g
        h = o * np.tanh(c)
        seen.append((i, f, o, g, np.tanh(c), *before))
    (weight, bias, hidden), dx = (np.zeros_like(w) for w in now.w), np.zeros_like(now.x[0])
    dh, dc = np.zeros((streams, size)), np.zeros((streams, size))
    for t in reversed(range(steps)):
        i, f, o, g, tanh, h, c = seen[t]
        on = now.x[1][t][:, None]
        dh = dh + dy[t]
        dc = dc + dh * o * (1 - tanh**2)
        parts = [dc * g * i * (1 - i), dc * on * c * f * (1 - f)]
        parts += [dh * tanh * o * (1 - o), dc * i * (1 - g * g)]
        d = np.concatenate(parts, 1)
        weight, bias = weight + d.T @ now.x[0][t], bias + d.sum(0)
        hidden = hidden + d.T @ (on * h)
        dx[t] = d @ now.w[0]
        dh, dc = on * (d @ now.w[2]), dc * on * f
    return [dx, None, weight, bias, hidden]


def _rnn(then: Arrays, now: Arrays, dy: Floats) -> Sequence[Any]:
    """As `_lstm`."""
    states = [np.zeros((dy.shape[1], dy.shape[2]))]
    outputs = []
    for x, cont in zip(then.x[0], then.x[1], strict=True):
        w, b, hidden, out, b_out = then.w
        states.append(np.tanh(x @ w.T + b + (cont[:, None] * states[-1]) @ hidden.T))
        outputs.append(np.tanh(states[-1] @ out.T + b_out))
    grads, dx = [np.zeros_like(w) for w in now.w], np.zeros_like(now.x[0])
    dh = np.zeros_like(states[0])
    for t in reversed(range(len(outputs))):
        on = now.x[1][t][:, None]
        do = dy[t] * (1 - outputs[t] ** 2)
        d = (dh + do @ now.w[3]) * (1 - states[t + 1] ** 2)
        steps = (d.T @ now.x[0][t], d.sum(0), d.T @ (on * states[t]))
        steps += (do.T @ states[t + 1], do.sum(0))
        grads = [total + step for total, step in zip(grads, steps, strict=True)]
        dx[t], dh = d @ now.w[0], on * (d @ now.w[2])
    return [dx, None, *grads]


def _row(name: str, layer: str, *shapes: tuple[int, ...], rule: Rule, **more: Any) -> Row:
    return Row(name, layer, shapes, rule, **more)


V, IMAGE = (3, 4), (2, 3, 4, 4)
ROWS = [
    _row("ReLU", "", V, rule=lambda t, n, dy: [dy * (n.x[0] > 0)]),
    _row(
        "ReLU slope",
        "relu_param { negative_slope: 0.1 }",
        V,
        rule=lambda t, n, dy: [dy * np.where(n.x[0] > 0, 1, 0.1)],
    ),
    _row(
        "Power 2",
        "power_param { power: 2 scale: 3 shift: 1 }",
        V,
        rule=lambda t, n, dy: [dy * 6 * (3 * n.x[0] + 1)],
    ),
    _row(
        "Power 3",
        "power_param { power: 3 }",
        V,
        rule=lambda t, n, dy: [dy * 3 * n.y[0] / n.x[0]],
    ),
    _row(
        "Power 1.5",
        "power_param { power: 1.5 scale: 2 shift: 1 }",
        V,
        fills=["positive"],
        rule=lambda t, n, dy: [dy * 3 * n.y[0] / (1 + 2 * n.x[0])],
    ),
    _row("Dropout", "", (5, 7), rule=lambda t, n, dy: [dy * t.y[0] / t.x[0]]),
    _row(
        "PReLU",
        "prelu_param { channel_shared: true }",
        V,
        rule=lambda t, n, dy: [
            dy * np.where(n.x[0] > 0, 1, n.w[0]),
            (dy * n.x[0] * (n.x[0] <= 0)).sum(),
        ],
    ),
    _row(
        "ELU",
        "elu_param { alpha: 2 }",
        V,
        rule=lambda t, n, dy: [dy * np.where(n.x[0] > 0, 1, 2 + n.y[0])],
    ),
    _row("Sigmoid", "", V, rule=lambda t, n, dy: [dy * n.y[0] * (1 - n.y[0])]),
    _row("TanH", "", V, rule=lambda t, n, dy: [dy * (1 - n.y[0] ** 2)]),
    _row(
        "Swish",
        "swish_param { beta: 2 }",
        V,
        rule=lambda t, n, dy: [dy * (2 * n.y[0] + _sigmoid(2 * t.x[0]) * (1 - 2 * n.y[0]))],
    ),
    _row("AbsVal", "", V, rule=lambda t, n, dy: [dy * np.sign(n.x[0])]),
    _row("BNLL", "", V, rule=lambda t, n, dy: [dy * _sigmoid(n.x[0])]),
    _row(
        "Exp",
        "exp_param { base: 2 scale: 3 }",
        V,
        rule=lambda t, n, dy: [dy * n.y[0] * np.log(2) * 3],
    ),
    _row(
        "Log",
        "log_param { base: 2 scale: 3 shift: 1 }",
        V,
        fills=["positive"],
        rule=lambda t, n, dy: [dy * 3 / np.log(2) / (1 + 3 * n.x[0])],
    ),
    _row(
        "Clip",
        "clip_param { min: -0.5 max: 1 }",
        V,
        rule=lambda t, n, dy: [dy * ((n.x[0] >= -0.5) & (n.x[0] <= 1))],
    ),
    _row("LRN", "lrn_param { local_size: 3 alpha: 0.5 }", IMAGE, rule=_lrn),
    _row(
        "LRN within",
        "lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL }",
        IMAGE,
        rule=_lrn_within,
    ),
    _row("BatchNorm", "", (4, 3, 5), rule=_batch_norm),
    _row(
        "BatchNorm global",
        "",
        (4, 3, 5),
        phase="TEST",
        rule=lambda t, n, dy: [dy / np.sqrt(t.w[1] / t.w[2] + 1e-5)[:, None]],
    ),
    _row("MVN", "", IMAGE, rule=_mvn),
    _row(
        "MVN mean",
        "mvn_param { normalize_variance: false }",
        IMAGE,
        rule=lambda t, n, dy: [dy - dy.mean((2, 3), keepdims=True)],
    ),
    _row(
        "Softmax",
        "",
        V,
        rule=lambda t, n, dy: [n.y[0] * (dy - (dy * n.y[0]).sum(1, keepdims=True))],
    ),
    _row(
        "Eltwise",
        "eltwise_param { coeff: 2 coeff: 3 }",
        V,
        V,
        rule=lambda t, n, dy: [2 * dy, 3 * dy],
    ),
    _row(
        "Eltwise PROD",
        "eltwise_param { operation: PROD }",
        V,
        V,
        V,
        rule=lambda t, n, dy: [
            dy * n.x[1] * n.x[2],
            dy * n.x[0] * n.x[2],
            dy * n.x[0] * n.x[1],
        ],
    ),
    _row(
        "Eltwise PROD unstable",
        "eltwise_param { operation: PROD stable_prod_grad: false }",
        V,
        V,
        rule=lambda t, n, dy: [dy * n.y[0] / n.x[0], dy * n.y[0] / n.x[1]],
    ),
    _row(
        "Eltwise MAX",
        "eltwise_param { operation: MAX }",
        V,
        V,
        rule=lambda t, n, dy: [dy * (t.x[0] > t.x[1]), dy * (t.x[0] <= t.x[1])],
    ),
    _row(
        "InnerProduct",
        "inner_product_param { num_output: 5 }",
        V,
        rule=lambda t, n, dy: [dy @ n.w[0], dy.T @ n.x[0], dy.sum(0)],
    ),
    _row(
        "Convolution",
        "convolution_param { num_output: 5 kernel_size: 1 }",
        IMAGE,
        rule=lambda t, n, dy: [
            np.einsum("nohw,oi->nihw", dy, n.w[0][:, :, 0, 0]),
            np.einsum("nohw,nihw->oi", dy, n.x[0])[:, :, None, None],
            dy.sum((0, 2, 3)),
        ],
    ),
    _row(
        "Deconvolution",
        "convolution_param { num_output: 5 kernel_size: 1 }",
        IMAGE,
        rule=lambda t, n, dy: [
            np.einsum("nohw,io->nihw", dy, n.w[0][:, :, 0, 0]),
            np.einsum("nohw,nihw->io", dy, n.x[0])[:, :, None, None],
            dy.sum((0, 2, 3)),
        ],
    ),
    _row(
        "Embed",
        "embed_param { num_output: 2 input_dim: 5 bias_term: false }",
        (3,),
        fills=[5],
        rule=lambda t, n, dy: [None, _hot(n.x[0], 5).T @ dy],
    ),
    _row(
        "Scale",
        "scale_param { bias_term: true }",
        V,
        rule=lambda t, n, dy: [dy * n.w[0], (dy * n.x[0]).sum(0), dy.sum(0)],
    ),
    _row(
        "Scale by a bottom",
        "scale_param { axis: 0 }",
        V,
        (3,),
        rule=lambda t, n, dy: [dy * n.x[1][:, None], (dy * n.x[0]).sum(1)],
    ),
    _row("Bias", "", V, rule=lambda t, n, dy: [dy, dy.sum(0)]),
    _row("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", IMAGE, rule=_max_pool),
    _row(
        "Pooling AVE",
        "pooling_param { pool: AVE kernel_size: 2 stride: 2 }",
        IMAGE,
        rule=lambda t, n, dy: [dy.repeat(2, 2).repeat(2, 3) / 4],
    ),
    _row(
        "Pooling STOCHASTIC",
        "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }",
        IMAGE,
        fills=["positive"],
        rule=_stochastic,
    ),
    _row("SPP", "spp_param { pyramid_height: 1 }", (2, 3, 1, 1), rule=lambda t, n, dy: [dy]),
    _row(
        "Reduction ASUM",
        "reduction_param { operation: ASUM axis: 1 coeff: 2 }",
        V,
        rule=lambda t, n, dy: [2 * dy[:, None] * np.sign(n.x[0])],
    ),
    _row(
        "Reduction SUMSQ",
        "reduction_param { operation: SUMSQ axis: 1 }",
        V,
        rule=lambda t, n, dy: [2 * dy[:, None] * n.x[0]],
    ),
    _row(
        "BatchReindex",
        "",
        V,
        (5,),
        fills=["normal", 3],
        rule=lambda t, n, dy: [_hot(n.x[1], 3).T @ dy, None],
    ),
    _row(
        "SoftmaxWithLoss",
        "",
        V,
        (3,),
        fills=["normal", 4],
        rule=lambda t, n, dy: [dy * (_softmax(t.x[0]) - _hot(n.x[1], 4)) / 3, None],
    ),
    _row("InfogainLoss", "", V, (3,), (4, 4), fills=["normal", 4, "positive"], rule=_infogain),
    _row(
        "EuclideanLoss",
        "",
        V,
        V,
        rule=lambda t, n, dy: [dy * (t.x[0] - t.x[1]) / 3, dy * (t.x[1] - t.x[0]) / 3],
    ),
    _row(
        "ContrastiveLoss",
        "contrastive_loss_param { margin: 1.5 }",
        V,
        V,
        (3,),
        fills=["normal", "normal", 2],
        rule=_contrastive,
    ),
    _row(
        "HingeLoss",
        "hinge_loss_param { norm: L2 }",
        (4, 3),
        (4,),
        fills=["normal", 3],
        rule=_hinge,
    ),
    _row(
        "SigmoidCrossEntropyLoss",
        "",
        V,
        V,
        fills=["normal", 2],
        rule=lambda t, n, dy: [dy * (_sigmoid(t.x[0]) - n.x[1]) / 3, None],
    ),
    _row("MultinomialLogisticLoss", "", (4, 3), (4,), fills=["positive", 3], rule=_multinomial),
    _row(
        "LSTMUnit",
        "",
        (1, 2, 3),
        (1, 2, 12),
        (1, 2),
        fills=["normal", "normal", 2],
        rule=_lstm_unit,
    ),
    _row(
        "LSTM",
        "recurrent_param { num_output: 3 weight_filler { type: 'xavier' } }",
        (4, 2, 5),
        (4, 2),
        fills=["normal", 2],
        rule=_lstm,
    ),
    _row(
        "RNN",
        "recurrent_param { num_output: 3 weight_filler { type: 'xavier' } }",
        (4, 2, 5),
        (4, 2),
        fills=["normal", 2],
        rule=_rnn,
    ),
]
# In place the blob holds the top, and nothing holds the bottom but what a layer keeps.
IN_PLACE = [
    _row("ReLU", "", V, rule=lambda t, n, dy: [dy * (n.y[0] > 0)]),
    _row(
        "ELU",
        "",
        V,
        rule=lambda t, n, dy: [dy * np.where(n.y[0] > 0, 1, 1 + n.y[0])],
    ),
    _row("Sigmoid", "", V, rule=lambda t, n, dy: [dy * n.y[0] * (1 - n.y[0])]),
    _row("TanH", "", V, rule=lambda t, n, dy: [dy * (1 - n.y[0] ** 2)]),
    _row("Dropout", "", (5, 7), rule=lambda t, n, dy: [dy * t.y[0] / t.x[0]]),
    _row(
        "Scale",
        "",
        V,
        rule=lambda t, n, dy: [dy * n.w[0], (dy * t.x[0]).sum(0)],
    ),
    _row(
        "PReLU",
        "prelu_param { channel_shared: true }",
        V,
        rule=lambda t, n, dy: [
            dy * np.where(t.x[0] > 0, 1, n.w[0]),
            (dy * t.x[0] * (t.x[0] <= 0)).sum(),
        ],
    ),
    _row("BatchNorm", "", (4, 3, 5), rule=_batch_norm),
    _row("MVN", "", IMAGE, rule=_mvn),
    _row(
        "LRN",
        "lrn_param { local_size: 3 alpha: 0.5 }",
        IMAGE,
        rule=lambda t, n, dy: _lrn(t, Arrays(t.x, n.y, n.w), dy),
    ),
    _row(
        "ReLU negative slope",
        "relu_param { negative_slope: -2 }",
        V,
        rule=lambda t, n, dy: [dy * np.where(t.x[0] > 0, 1, -2)],
    ),
    # Where Caffe would take the top for the bottom, the true gradient.
    _row("BNLL", "", V, rule=lambda t, n, dy: [dy * _sigmoid(t.x[0])]),
    _row(
        "Power 2",
        "power_param { power: 2 }",
        V,
        rule=lambda t, n, dy: [dy * 2 * t.x[0]],
    ),
    _row(
        "Log",
        "log_param { shift: 1 }",
        V,
        fills=["positive"],
        rule=lambda t, n, dy: [dy / (1 + t.x[0])],
    ),
    _row(
        "Clip",
        "clip_param { min: -0.5 max: 1 }",
        V,
        rule=lambda t, n, dy: [dy * ((t.x[0] >= -0.5) & (t.x[0] <= 1))],
    ),
]
