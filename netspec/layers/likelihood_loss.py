"""Log losses that weigh classes by a matrix, or that read probabilities."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import WeightsError, fail, require, unreadable
from netspec.formats import protobuf_wire
from netspec.layers.context import Context
from netspec.layers.labels import as_labels, pick_rows
from netspec.layers.records import BottomUse, Labels, Scoring
from netspec.layers.registry import register
from netspec.layers.shape import Array, Shape, count, text
from netspec.layers.softmax_loss import Classified, Loss, in_caffes_order, pick

# Where Caffe floors the probabilities of these losses.
LOG_FLOOR = 1e-20


@register(param="infogain_loss_param", bottoms=(2, 3), tops=(1, 2), auto_top=True)
class InfogainLoss(Classified, Loss):
    """The log losses of all classes, weighed by the true class's row of a matrix.

    Scores (N, C, H, W), labels (N, H, W), and a matrix of C C numbers as the third bottom or in the
    ``source`` file, a BlobProto (.binaryproto) -> scalar; a second top holds the probabilities.
    Normalised as SoftmaxWithLoss; probabilities are floored at 1e-20, in the value only.
    Caffe: ``infogain_loss_layer.cpp``.
    """

    formula = "y = -sum H[label] . log softmax(x) / normalizer"
    bottom_use = replace(BottomUse.indices(1, 2), unforced=frozenset({1}))

    def configure(self) -> None:
        """A matrix may stand in a file."""
        super().configure()
        self.traits = replace(self.traits, is_plain=not self.param.source)

    def shape(self, scores: Shape, labels: Shape, *matrix: Shape) -> tuple[Shape, ...]:
        """A scalar, and the scores' shape."""
        self.check_labels(scores, labels)
        self.check_batch(scores, labels)
        require(
            not self.spec.loss_param.HasField("normalize"),
            "takes loss_param { normalization }, not the older normalize",
        )
        require(
            matrix or self.param.HasField("source"),
            "needs its matrix as a third bottom or in a source file",
        )
        classes = scores[self.class_axis(len(scores))]
        size = matrix[0] if matrix else self._matrix.shape
        require(
            count(size) == classes**2,
            f"{classes} classes need a matrix of {classes**2} numbers, but it is {text(size)}",
        )
        return ((), scores)[: self.num_tops]

    def apply(
        self, ctx: Context, scores: Array, labels: Array, *matrix: Array
    ) -> tuple[Array, ...]:
        """A label outside the classes makes the loss NaN."""
        outer, inner = self.positions(ctx, scores)
        scores = ctx.kept("scores", scores)
        rows, classes = self.aligned(ctx, scores, labels)
        counts = self.counted(ctx, labels, classes, self.ignore_label)
        weights = in_caffes_order(ctx, matrix[0]) if matrix else jnp.asarray(self._matrix)
        square = jax.lax.stop_gradient(weights).reshape(rows.shape[-1], rows.shape[-1])
        picked = pick_rows(square, jnp.where(counts, classes, 0))
        logs = self.log_probabilities(ctx, rows, labels)
        logs = logs + jax.lax.stop_gradient(jnp.maximum(logs, math.log(LOG_FLOOR)) - logs)
        total = -jnp.sum(jnp.where(counts[:, None], picked * logs, 0.0))
        loss = total / self.normalizer(outer, inner, jnp.sum(counts))
        if self.num_tops == 1:
            return (loss,)
        axis = ctx.axis(self.class_axis(scores.ndim), scores.ndim)
        return loss, jax.lax.stop_gradient(jax.nn.softmax(scores, axis=axis))

    def scoring(self, scores: Shape, labels: Shape, *matrix: Shape) -> Scoring:
        """Labels are channels of the scores, or the ignored one."""
        classes = scores[self.class_axis(len(scores))]
        known = Labels(1, 0, classes, self.ignore_label)
        return Scoring(known, self.normalized(*self.split(scores)))

    def describe(self) -> str:
        return self.normalizer_settings()

    @cached_property
    def _matrix(self) -> np.ndarray:
        source = self.param.source
        try:
            return protobuf_wire.blob(protobuf_wire.mapped(source)).array.astype(np.float32)
        except OSError as error:
            fail(f"cannot read source {unreadable(source, error)}")
        except WeightsError as error:
            fail(f"source {source} {error}")


@register(bottoms=2, tops=1, auto_top=True)
class MultinomialLogisticLoss(Loss):
    """Minus the log of the true class's probability, for bottoms that are probabilities already.

    Probabilities (N, C), labels (N) -> scalar, divided by N. Probabilities are floored at 1e-20.
    Caffe: ``multinomial_logistic_loss_layer.cpp``.
    """

    formula = "y = -sum log x[label] / N"

    def shape(self, probabilities: Shape, labels: Shape) -> Shape:
        self.check_one_label(probabilities, labels)
        return ()

    def apply(self, ctx: Context, probabilities: Array, labels: Array) -> Array:
        """A label outside the classes makes the loss NaN."""
        rows = probabilities.reshape(len(probabilities), count(probabilities.shape[1:]))
        true = pick(rows, as_labels(labels.reshape(-1)))
        return -jnp.sum(_floored_log(true)) / rows.shape[0]

    def scoring(self, probabilities: Shape, labels: Shape) -> Scoring:
        """Labels are places in an item's probabilities."""
        n, classes = count(probabilities[:1]), count(probabilities[1:])
        scaling = self.summed(f"{n:,} predictions", f"the batch size {n}")
        return Scoring(Labels(1, 0, classes, None), scaling)


@jax.custom_jvp
def _floored_log(probability: Array) -> Array:
    """The log, floored; its slope is 1 / floor there, as in Caffe."""
    return jnp.log(jnp.maximum(probability, LOG_FLOOR))


@_floored_log.defjvp
def _floored_log_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    floored = jnp.maximum(primals[0], LOG_FLOOR)
    return jnp.log(floored), tangents[0] / floored
