"""What layers compute, in float64 by plain loops, for tests to compare with.

Nothing here comes from netspec's layers: settings are read from the messages afresh, and sizes
and arithmetic are spelled out element by element. Random layers have their rule in TEST only.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.frontend.graph import Graph, Node
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.proto.layers_pb2 import (
    TRAIN,
    EltwiseParameter,
    HingeLossParameter,
    LayerParameter,
    LossParameter,
    LRNParameter,
    PoolingParameter,
    ReductionParameter,
    SPPParameter,
)

Array = NDArray[np.float64]
Rule = Callable[..., list[Array]]

RULES: dict[str, Rule] = {}


def rule(layer_type: str) -> Callable[[Rule], Rule]:
    """Enter a function (layer, blobs, *bottoms) -> tops as the rule of a layer type."""

    def enter(function: Rule) -> Rule:
        RULES[layer_type] = function
        return function

    return enter


def evaluate(
    shapes: Shapes, params: Mapping[ParamKey, Any], given: Mapping[int, Any]
) -> dict[int, Array]:
    """Every value of a net, by index, from the values fed to it."""
    values = {i: np.asarray(array, np.float64) for i, array in given.items()}
    for node, keys in zip(shapes.graph.nodes, shapes.keys, strict=True):
        if node.layer.is_source:
            continue
        blobs = [np.asarray(params[key], np.float64) for key in keys.values()]
        bottoms = [values[i] for i in node.bottoms]
        tops = RULES[node.type](in_phase(shapes.graph, node), blobs, *bottoms)
        values.update(zip(node.tops, tops, strict=False))
    return values


def carried_on(
    shapes: Shapes, params: Mapping[ParamKey, Any], values: Mapping[int, Array]
) -> dict[ParamKey, Array]:
    """What layers leave for the next run: what their rules give beyond their tops."""
    kept: dict[ParamKey, Array] = {}
    for node, keys in zip(shapes.graph.nodes, shapes.keys, strict=True):
        names = [key for key in shapes.carried if key.layer == node.name]
        if names:
            blobs = [np.asarray(params[key], np.float64) for key in keys.values()]
            made = RULES[node.type](node.layer.spec, blobs, *(values[i] for i in node.bottoms))
            kept.update(zip(names, (state[0] for state in made[len(node.tops) :]), strict=True))
    return kept


def in_phase(graph: Graph, node: Node) -> LayerParameter:
    """A layer's message, in the net's phase where it names none."""
    layer = LayerParameter()
    layer.CopyFrom(node.layer.spec)
    layer.phase = layer.phase if layer.HasField("phase") else graph.phase
    return layer


def positions(shape: Sequence[int]) -> Any:
    """Every index into an array of a shape."""
    return itertools.product(*map(range, shape))


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
            (n + 2 * pad - (d * (k - 1) + 1)) // s + 1
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


@rule("Pooling")
def pooling(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.pooling_param

    def pair(stem: str, plain: str) -> tuple[int, int]:
        if p.HasField(f"{stem}_h"):
            return getattr(p, f"{stem}_h"), getattr(p, f"{stem}_w")
        return getattr(p, plain), getattr(p, plain)

    size = x.shape[2:]
    kernel = size if p.global_pooling else pair("kernel", "kernel_size")
    stride, pad = pair("stride", "stride"), pair("pad", "pad")
    rounded = math.ceil if p.round_mode == PoolingParameter.CEIL else math.floor
    out = [rounded((size[i] + 2 * pad[i] - kernel[i]) / stride[i]) + 1 for i in range(2)]
    if any(pad):
        out = [n - 1 if (n - 1) * stride[i] >= size[i] + pad[i] else n for i, n in enumerate(out)]
    top, mask = np.zeros((*x.shape[:2], *out)), np.zeros((*x.shape[:2], *out))
    for n, c, *at in positions(top.shape):
        starts = [at[i] * stride[i] - pad[i] for i in range(2)]
        ends = [min(starts[i] + kernel[i], size[i] + pad[i]) for i in range(2)]
        covered = math.prod(e - s for s, e in zip(starts, ends, strict=True))
        seen = [
            (h * size[1] + w, x[n, c, h, w])
            for h in range(max(starts[0], 0), min(ends[0], size[0]))
            for w in range(max(starts[1], 0), min(ends[1], size[1]))
        ]
        here = (n, c, *at)
        if p.pool == PoolingParameter.MAX:
            mask[here], top[here] = max(seen, key=lambda pixel: (pixel[1], -pixel[0]))
        elif p.pool == PoolingParameter.AVE:
            top[here] = sum(value for _, value in seen) / covered
        else:
            total = sum(value for _, value in seen)
            top[here] = sum(value * value for _, value in seen) / total if total else 0
    return [top, mask]


@rule("Im2col")
def im2col(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    axis = layer.convolution_param.axis % x.ndim
    size = x.shape[axis + 1 :]
    windows = geometry(layer, len(size))
    kernel = [k for k, _, _, _ in windows]
    out = [
        (n + 2 * pad - d * (k - 1) - 1) // s + 1
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


@rule("SPP")
def spp(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    """Bins pooled one by one, each over what of it lies in the image."""
    p = layer.spp_param
    joined: list[list[float]] = [[] for _ in x]
    for level in range(p.pyramid_height):
        bins = 2**level
        sides, starts = [], []
        for size in x.shape[2:]:
            side = math.ceil(size / bins)
            pad = math.ceil((side * bins - size) / 2)
            count = math.ceil((size + 2 * pad - side) / side) + 1
            every = [i * side - pad for i in range(count)]
            if any(n % bins for n in x.shape[2:]):
                every = [start for start in every if start < size]
            sides.append((side, pad))
            starts.append(every)
        for n, c, h0, w0 in itertools.product(*map(range, x.shape[:2]), *starts):
            spans = [
                (start, min(start + side, size + pad))
                for start, (side, pad), size in zip((h0, w0), sides, x.shape[2:], strict=True)
            ]
            seen = [
                x[n, c, h, w]
                for h, w in itertools.product(*(range(*span) for span in spans))
                if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]
            ]
            if p.pool == SPPParameter.MAX:
                value = max(seen)
            elif p.pool == SPPParameter.AVE:
                value = sum(seen) / math.prod(end - start for start, end in spans)
            else:
                value = sum(v * v for v in seen) / sum(seen)
            joined[n].append(value)
    top = np.array(joined)
    return [top.reshape(*x.shape[:2], 1, 1) if p.pyramid_height == 1 else top]


@rule("LRN")
def lrn(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.lrn_param
    half = p.local_size // 2
    across = p.norm_region == LRNParameter.ACROSS_CHANNELS
    top = np.zeros_like(x)
    for n, c, h, w in positions(x.shape):
        energy, area = 0.0, 0
        for i, j in positions((p.local_size, 1 if across else p.local_size)):
            at = (c + i - half, h, w) if across else (c, h + i - half, w + j - half)
            area += 1
            if all(0 <= k < size for k, size in zip(at, x.shape[1:], strict=True)):
                energy += x[(n, *at)] ** 2
        base = (p.k if across else 1) + p.alpha * energy / area
        top[n, c, h, w] = x[n, c, h, w] / base**p.beta
    return [top]


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


def logistic(v: float) -> float:
    return 1 / (1 + math.exp(-v)) if v > 0 else math.exp(v) / (1 + math.exp(v))


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


def log_of_one_plus_power(v: float) -> float:
    return v + math.log(1 + math.exp(-v)) if v > 0 else math.log(1 + math.exp(v))


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
    return [elementwise(x, lambda v: sorted((p.min, v, p.max))[1])]


@rule("Threshold")
def threshold(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    return [elementwise(x, lambda v: float(v > layer.threshold_param.threshold))]


@rule("BatchNorm")
def batch_norm(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.batch_norm_param
    means, variances, (factor,) = blobs
    top = np.zeros_like(x)
    for c in range(x.shape[1] if x.ndim > 1 else 1):
        mine = (slice(None), c) if x.ndim > 1 else ()
        if uses_running_statistics(layer):
            mean, variance = (means[c] / factor, variances[c] / factor) if factor else (0, 0)
        else:
            mean, variance = moments(x[mine])
        top[mine] = (x[mine] - mean) / math.sqrt(variance + p.eps)
    return [top]


def uses_running_statistics(layer: LayerParameter) -> bool:
    p = layer.batch_norm_param
    return p.use_global_stats if p.HasField("use_global_stats") else layer.phase != TRAIN


def moments(x: Array) -> tuple[float, float]:
    values = list(x.reshape(-1))
    mean = sum(values) / len(values)
    return mean, sum((v - mean) ** 2 for v in values) / len(values)


def batch_statistics(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    """What BatchNorm keeps for the runs that follow."""
    if uses_running_statistics(layer):
        return blobs
    share = layer.batch_norm_param.moving_average_fraction
    kept = [share * blob for blob in blobs]
    for c in range(len(kept[0])):
        mine = x[:, c] if x.ndim > 1 else x
        mean, variance = moments(mine)
        kept[0][c] += mean
        kept[1][c] += variance * mine.size / max(mine.size - 1, 1)
    kept[2] += 1
    return kept


@rule("MVN")
def mvn(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.mvn_param
    top = x.reshape([*x.shape, 1, 1, 1][:4]).copy()
    for at in positions(top.shape[: 1 if p.across_channels else 2]):
        mean, variance = moments(top[at])
        top[at] -= mean
        if p.normalize_variance:
            top[at] /= math.sqrt(variance) + p.eps
    return [top]


def elementwise(x: Array, function: Callable[[float], float]) -> Array:
    top = np.zeros_like(x)
    for at in positions(x.shape):
        top[at] = function(x[at])
    return top


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


@rule("Silence")
def silence(layer: LayerParameter, blobs: list[Array], *bottoms: Array) -> list[Array]:
    return []


@rule("Parameter")
def parameter(layer: LayerParameter, blobs: list[Array]) -> list[Array]:
    return blobs


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


def off_axis(shape: Sequence[int], axis: int) -> Any:
    """Index of every row along an axis: a slice there, a number on all other axes."""
    for at in positions([*shape[:axis], *shape[axis + 1 :]]):
        yield (*at[:axis], slice(None), *at[axis:])


def softmaxed(row: Array) -> Array:
    powers = [math.exp(v - max(row)) for v in row]
    return np.array([v / sum(powers) for v in powers])


@rule("Softmax")
def softmax(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    top = np.zeros_like(x)
    for row in off_axis(x.shape, layer.softmax_param.axis % x.ndim):
        top[row] = softmaxed(x[row])
    return [top]


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


@rule("SoftmaxWithLoss")
def softmax_with_loss(
    layer: LayerParameter, blobs: list[Array], scores: Array, labels: Array
) -> list[Array]:
    p, axis = layer.loss_param, layer.softmax_param.axis % scores.ndim
    probabilities = np.zeros_like(scores)
    total, valid = 0.0, 0
    rows = list(off_axis(scores.shape, axis))
    for row, label in zip(rows, labels.reshape(-1), strict=True):
        probabilities[row] = softmaxed(scores[row])
        if p.HasField("ignore_label") and label == p.ignore_label:
            continue
        total -= math.log(max(probabilities[row][int(label)], np.finfo(np.float32).tiny))
        valid += 1
    outer = math.prod(scores.shape[:axis])
    divisor = loss_divisor(p, LossParameter.VALID, len(rows), valid, outer)
    return [np.array(total / divisor), probabilities]


def loss_divisor(p: LossParameter, default: int, every: int, valid: int, outer: int) -> int:
    mode = default
    if p.HasField("normalization"):
        mode = p.normalization
    elif p.HasField("normalize"):
        mode = LossParameter.VALID if p.normalize else LossParameter.BATCH_SIZE
    if mode == LossParameter.FULL:
        divisor = every
    elif mode == LossParameter.VALID:
        divisor = valid
    elif mode == LossParameter.BATCH_SIZE:
        divisor = outer
    else:
        divisor = 1
    return max(divisor, 1)


@rule("InfogainLoss")
def infogain_loss(
    layer: LayerParameter, blobs: list[Array], scores: Array, labels: Array, matrix: Array
) -> list[Array]:
    p, axis = layer.loss_param, layer.infogain_loss_param.axis % scores.ndim
    classes = scores.shape[axis]
    probabilities = np.zeros_like(scores)
    total, valid = 0.0, 0
    rows = list(off_axis(scores.shape, axis))
    for row, label in zip(rows, labels.reshape(-1), strict=True):
        probabilities[row] = softmaxed(scores[row])
        if p.HasField("ignore_label") and label == p.ignore_label:
            continue
        for k, probability in enumerate(probabilities[row]):
            weight = matrix.reshape(-1)[int(label) * classes + k]
            total -= weight * math.log(max(probability, 1e-20))
        valid += 1
    outer = math.prod(scores.shape[:axis])
    divisor = loss_divisor(p, LossParameter.VALID, len(rows), valid, outer)
    return [np.array(total / divisor), probabilities]


@rule("MultinomialLogisticLoss")
def multinomial_logistic_loss(
    layer: LayerParameter, blobs: list[Array], probabilities: Array, labels: Array
) -> list[Array]:
    total = 0.0
    for item, label in zip(probabilities, labels.reshape(-1), strict=True):
        total -= math.log(max(item.reshape(-1)[int(label)], 1e-20))
    return [np.array(total / len(probabilities))]


@rule("EuclideanLoss")
def euclidean_loss(layer: LayerParameter, blobs: list[Array], a: Array, b: Array) -> list[Array]:
    total = sum((v - w) ** 2 for v, w in zip(a.reshape(-1), b.reshape(-1), strict=True))
    return [np.array(total / (2 * len(a)))]


@rule("ContrastiveLoss")
def contrastive_loss(
    layer: LayerParameter, blobs: list[Array], a: Array, b: Array, alike: Array
) -> list[Array]:
    p, total = layer.contrastive_loss_param, 0.0
    for n in range(len(a)):
        square = sum((v - w) ** 2 for v, w in zip(a[n].reshape(-1), b[n].reshape(-1), strict=True))
        if alike.reshape(-1)[n]:
            total += square
        elif p.legacy_version:
            total += max(p.margin - square, 0)
        else:
            total += max(p.margin - math.sqrt(square), 0) ** 2
    return [np.array(total / (2 * len(a)))]


@rule("HingeLoss")
def hinge_loss(
    layer: LayerParameter, blobs: list[Array], scores: Array, labels: Array
) -> list[Array]:
    power, total = 2 if layer.hinge_loss_param.norm == HingeLossParameter.L2 else 1, 0.0
    for item, label in zip(scores, labels.reshape(-1), strict=True):
        for k, score in enumerate(item.reshape(-1)):
            total += max(0, 1 - score if k == label else 1 + score) ** power
    return [np.array(total / len(scores))]


@rule("SigmoidCrossEntropyLoss")
def sigmoid_cross_entropy_loss(
    layer: LayerParameter, blobs: list[Array], scores: Array, targets: Array
) -> list[Array]:
    p, total, valid = layer.loss_param, 0.0, 0
    for x, t in zip(scores.reshape(-1), targets.reshape(-1), strict=True):
        if p.HasField("ignore_label") and int(t) == p.ignore_label:
            continue
        total += t * log_of_one_plus_power(-x) + (1 - t) * log_of_one_plus_power(x)
        valid += 1
    divisor = loss_divisor(p, LossParameter.BATCH_SIZE, scores.size, valid, len(scores))
    return [np.array(total / divisor)]


@rule("Accuracy")
def accuracy(
    layer: LayerParameter, blobs: list[Array], scores: Array, labels: Array
) -> list[Array]:
    p, axis = layer.accuracy_param, layer.accuracy_param.axis % scores.ndim
    right, seen = np.zeros(scores.shape[axis]), np.zeros(scores.shape[axis])
    for row, label in zip(off_axis(scores.shape, axis), labels.reshape(-1), strict=True):
        if p.HasField("ignore_label") and label == p.ignore_label:
            continue
        rivals = [v for k, v in enumerate(scores[row]) if k != label]
        better = sum(v >= scores[row][int(label)] for v in rivals)
        seen[int(label)] += 1
        right[int(label)] += better < p.top_k
    return [np.array(right.sum() / max(seen.sum(), 1)), right / np.maximum(seen, 1)]
