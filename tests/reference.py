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

from netspec.proto.layers_pb2 import (
    EltwiseParameter,
    LayerParameter,
    LossParameter,
    LRNParameter,
    PoolingParameter,
)
from netspec.shapes import ParamKey, Shapes

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
        tops = RULES[node.type](node.layer.spec, blobs, *bottoms)
        values.update(zip(node.tops, tops, strict=False))
    return values


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
    mode = p.normalization
    if p.HasField("normalize") and not p.HasField("normalization"):
        mode = LossParameter.VALID if p.normalize else LossParameter.BATCH_SIZE
    if mode == LossParameter.FULL:
        divisor = len(rows)
    elif mode == LossParameter.VALID:
        divisor = valid
    elif mode == LossParameter.BATCH_SIZE:
        divisor = math.prod(scores.shape[:axis])
    else:
        divisor = 1
    return [np.array(total / max(divisor, 1)), probabilities]


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
