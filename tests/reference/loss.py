"""Softmax, losses and accuracy."""

import math

import numpy as np

from netspec.proto.layers_pb2 import HingeLossParameter, LayerParameter, LossParameter

from .rules import Array, log_of_one_plus_power, off_axis, rule, softmaxed


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
