"""Normalization, within items and over a batch."""

import math

import numpy as np

from netspec.proto.layers_pb2 import TRAIN, LayerParameter, LRNParameter

from .rules import Array, positions, rule


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


@rule("BatchNorm")
def batch_norm(layer: LayerParameter, blobs: list[Array], x: Array) -> list[Array]:
    p = layer.batch_norm_param
    means, variances, (factor,) = blobs
    top = np.zeros_like(x)
    for c in range(x.shape[1]):
        mine = (slice(None), c)
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
        mine = x[:, c]
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
