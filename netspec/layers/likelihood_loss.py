"""Log losses of classes that need a matrix of weights, or that read probabilities."""

from __future__ import annotations

import math
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import WeightsError, fail, require, unreadable
from netspec.formats import protobuf_wire
from netspec.layers.base import (
    Array,
    Context,
    Labels,
    Layout,
    Shape,
    canonical_axis,
    count,
    register,
    text,
)
from netspec.layers.labels import as_labels, pick_rows
from netspec.layers.softmax_loss import Classified, Loss, in_caffes_order, pick

# Where Caffe floors the probabilities of these losses.
LOG_FLOOR = 1e-20


@register(param="infogain_loss_param", bottoms=(2, 3), tops=(1, 2), auto_top=True)
class InfogainLoss(Classified, Loss):
    """Log losses of all classes, weighed by the row of a matrix that the true class picks.

    Scores (N, C, H, W), labels (N, H, W), and a matrix of C C numbers as the third bottom or in the
    ``source`` file, a BlobProto (.binaryproto) -> scalar; a second top holds the probabilities.
    Normalised as SoftmaxWithLoss; probabilities are floored at 1e-20, for the value alone.
    Caffe: ``infogain_loss_layer.cpp``.
    """

    formula = "y = -sum H[label] . log softmax(x) / normalizer"

    @property
    def layout(self) -> Layout:  # type: ignore[override]
        """Either, where classes are channels."""
        return self.layout_for(self.param.axis)

    @property
    def is_plain(self) -> bool:  # type: ignore[override]
        """Whether its matrix is in no file."""
        return not self.param.source

    def class_axis(self, rank: int) -> int:
        """``infogain_loss_param { axis }``."""
        return canonical_axis(self.param.axis, rank)

    def allow_force_backward(self, bottom: int) -> bool:
        """Only the scores have a gradient."""
        return bottom == 0

    def shape(self, scores: Shape, labels: Shape, *matrix: Shape) -> tuple[Shape, ...]:  # type: ignore[override]
        """A scalar, and the scores' shape."""
        self.split(scores, labels)
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

    def apply(  # type: ignore[override]
        self, ctx: Context, scores: Array, labels: Array, *matrix: Array
    ) -> tuple[Array, ...]:
        """A label outside the classes makes the loss NaN."""
        outer, inner = self.positions(ctx, scores)
        rows, classes = self.aligned(ctx, scores, labels)
        counts = self.counted(ctx, labels, classes, self.ignore_label)
        weights = in_caffes_order(ctx, matrix[0]) if matrix else jnp.asarray(self._matrix)
        square = jax.lax.stop_gradient(weights).reshape(rows.shape[-1], rows.shape[-1])
        picked = pick_rows(square, jnp.where(counts, classes, 0))
        logs = jax.nn.log_softmax(rows, axis=-1)
        logs = logs + jax.lax.stop_gradient(jnp.maximum(logs, math.log(LOG_FLOOR)) - logs)
        total = -jnp.sum(jnp.where(counts[:, None], picked * logs, 0.0))
        loss = total / self.normalizer(outer, inner, jnp.sum(counts))
        if self.num_tops == 1:
            return (loss,)
        axis = ctx.axis(self.class_axis(scores.ndim), scores.ndim)
        return loss, jax.lax.stop_gradient(jax.nn.softmax(scores, axis=axis))

    def labels(self, scores: Shape, labels: Shape, *matrix: Shape) -> Labels:  # type: ignore[override]
        """Labels are channels of the scores, or the ignored one."""
        return Labels(1, 0, scores[self.class_axis(len(scores))], self.ignore_label)

    def scaling(self, scores: Shape, labels: Shape, *matrix: Shape) -> str:  # type: ignore[override]
        """How many predictions the loss sums, and what divides the sum."""
        return self.normalized(*self.split(scores, labels))

    def describe(self) -> str:
        """The ignored label and the normaliser."""
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

    def shape(self, probabilities: Shape, labels: Shape) -> Shape:  # type: ignore[override]
        """A scalar."""
        self.check_one_label(probabilities, labels)
        return ()

    def apply(self, ctx: Context, probabilities: Array, labels: Array) -> Array:  # type: ignore[override]
        """A label outside the classes makes the loss NaN."""
        rows = probabilities.reshape(probabilities.shape[0], -1)
        true = pick(rows, as_labels(labels.reshape(-1)))
        return -jnp.sum(_floored_log(true)) / rows.shape[0]

    def labels(self, probabilities: Shape, labels: Shape) -> Labels:  # type: ignore[override]
        """Labels are places in an item's probabilities."""
        return Labels(1, 0, count(probabilities[1:]), None)

    def scaling(self, probabilities: Shape, labels: Shape) -> str:  # type: ignore[override]
        """The batch size divides."""
        n = probabilities[0]
        return self.summed(f"{n:,} predictions", f"the batch size {n}")


@jax.custom_jvp
def _floored_log(probability: Array) -> Array:
    """The log, floored; its slope is 1 / floor there, as Caffe's."""
    return jnp.log(jnp.maximum(probability, LOG_FLOOR))


@_floored_log.defjvp
def _floored_log_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    floored = jnp.maximum(primals[0], LOG_FLOOR)
    return jnp.log(floored), tangents[0] / floored
