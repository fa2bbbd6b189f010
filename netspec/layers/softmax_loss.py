"""Losses and accuracy over classes, and the bases of all losses.

The first top of a loss is a scalar with loss weight 1. Labels are class indices held in floats. A
normaliser divides the sum over all predictions.
"""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import require
from netspec.layers.base import Geometry, Layer
from netspec.layers.context import Context
from netspec.layers.labels import as_labels
from netspec.layers.numerics import MemoryLayout, Numerics, Precision
from netspec.layers.records import BottomUse, Labels, Scoring, Traits
from netspec.layers.registry import register
from netspec.layers.shape import Array, Shape, canonical_axis, count, text
from netspec.layers.valid_region import PaddingValue, PartialShape
from netspec.proto.layers_pb2 import LossParameter

# The greatest loss of one prediction: Caffe floors probabilities at the least normal float.
FLOOR = float(np.finfo(np.float32).tiny)


class Loss(Layer):
    """A layer whose first top is a scalar that training minimises; bottom 1 holds labels."""

    traits = Traits(is_loss=True, works_in_place=False)
    numerics = Numerics(precision=Precision.FULL)
    bottom_use = BottomUse.labels(1)
    drawn_as = "loss"

    def geometry(self, rank: int) -> Geometry:
        """The loss depends on all pixels."""
        return Geometry(sees_all=True)

    @property
    def ignore_label(self) -> int | None:
        """The label that is not counted, if ``loss_param`` names one."""
        loss = self.spec.loss_param
        return loss.ignore_label if loss.HasField("ignore_label") else None

    def check_batch(
        self, data: Shape, labels: Shape, names: tuple[str, str] = ("scores", "labels")
    ) -> None:
        """Raise LayerError unless both bottoms hold the same number of items."""
        require(data, f"{names[0]} and {names[1]} need a first axis, the batch")
        require(
            data[:1] == labels[:1],
            f"{names[0]} {text(data)} and {names[1]} {text(labels)} differ in the first axis, "
            "the batch",
        )

    def check_one_label(self, scores: Shape, labels: Shape) -> None:
        """Raise LayerError unless there is one label for each item of the batch."""
        self.check_batch(scores, labels)
        require(
            count(labels) == scores[0],
            f"{scores[0]} items need {scores[0]} labels, but labels are {text(labels)}",
        )

    @property
    def normalization(self) -> LossParameter.NormalizationMode:
        """The mode asked for; the older ``normalize`` is read where ``normalization`` is absent."""
        loss = self.spec.loss_param
        if loss.HasField("normalize") and not loss.HasField("normalization"):
            return LossParameter.VALID if loss.normalize else LossParameter.BATCH_SIZE
        return loss.normalization

    def normalizer(self, outer: int | Array, inner: int | Array, valid: int | Array) -> Array:
        """The divisor of the summed loss, at least 1.

        outer: items in the batch. inner: predictions an item. valid: predictions not ignored.
        """
        divisor = {
            LossParameter.FULL: outer * inner,
            LossParameter.VALID: valid,
            LossParameter.BATCH_SIZE: outer,
            LossParameter.NONE: 1,
        }[self.normalization]
        return jnp.maximum(jnp.asarray(divisor, jnp.float32), 1.0)

    def summed(self, what: str, divisor: str) -> str:
        """The words of `Scoring.scaling` for a sum and its divisor."""
        weight = self.loss_weights()[0]
        weighted = "" if weight == 1 else f", times loss_weight {weight:g}"
        return f"sum over {what} / {divisor}{weighted}"

    def normalized(self, outer: int, inner: int) -> str:
        """The words of `Scoring.scaling` for a loss that `normalizer` divides."""
        divisor = {
            LossParameter.FULL: f"all {outer * inner:,} predictions",
            LossParameter.VALID: "the predictions whose label counts",
            LossParameter.BATCH_SIZE: f"the batch size {outer}",
            LossParameter.NONE: "nothing",
        }[self.normalization]
        ignored = "" if self.ignore_label is None else f", label {self.ignore_label} ignored"
        return self.summed(f"{outer * inner:,} predictions", divisor + ignored)

    def normalizer_settings(self) -> str:
        """The ignored label and the normaliser, where they are given, for `describe`."""
        loss = self.spec.loss_param
        parts = [f"ignore {loss.ignore_label}"] if loss.HasField("ignore_label") else []
        if loss.HasField("normalization"):
            parts.append(LossParameter.NormalizationMode.Name(loss.normalization))
        elif loss.HasField("normalize"):
            parts.append("VALID" if loss.normalize else "BATCH_SIZE")
        return ", ".join(parts)


class Classified(Layer):
    """The base of layers that read scores along one axis, and a label for each position off it.

    The axis is the ``axis`` of the layer's own message.
    """

    numerics = Numerics(MemoryLayout.EITHER, Precision.FULL)

    def configure(self) -> None:
        """Channels-last serves as well only where classes are channels."""
        if self.param.axis != 1:
            self.numerics = replace(self.numerics, layout=MemoryLayout.CHANNELS_FIRST)

    def class_axis(self, rank: int) -> int:
        """The axis along which classes lie."""
        return canonical_axis(self.param.axis, rank)

    def split(self, scores: Shape) -> tuple[int, int]:
        """(outer, inner): how many positions lie before and behind the class axis."""
        axis = self.class_axis(len(scores))
        return count(scores[:axis]), count(scores[axis + 1 :])

    def check_labels(self, scores: Shape, labels: Shape) -> None:
        """Raise LayerError unless there is one label for each position off the class axis."""
        axis = self.class_axis(len(scores))
        outer, inner = self.split(scores)
        require(
            outer * inner == count(labels),
            f"scores {text(scores)} need {outer * inner} labels, one for each position off axis "
            f"{axis}, but labels are {text(labels)}",
        )

    def aligned(self, ctx: Context, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Scores as (positions, classes), labels as (positions), in Caffe's order."""
        axis = ctx.axis(self.class_axis(scores.ndim), scores.ndim)
        moved = jnp.moveaxis(scores, axis, -1)
        rows = moved.reshape(count(moved.shape[:-1]), scores.shape[axis])
        # Labels need no channel axis: what lies on their axis 1 may be rows of the image.
        return rows, as_labels(in_caffes_order(ctx, labels).reshape(-1))

    def geometry(self, rank: int) -> Geometry:
        """The first top depends on all positions."""
        return Geometry(sees_all=True)

    def log_probabilities(self, ctx: Context, rows: Array, labels: Array) -> Array:
        """Of rows as `aligned` has them; a second top shares memory with what is kept of them."""
        if ctx.left is None or self.num_tops == 1:
            return jax.nn.log_softmax(rows, axis=-1)
        probabilities, _ = self.aligned(ctx, ctx.left.top(1), labels)
        return rows - jnp.sum(probabilities * rows, axis=-1, keepdims=True)

    def positions(self, ctx: Context, scores: Array) -> tuple[int | Array, int | Array]:
        """(outer, inner) as `split` has them, of the valid region of scores."""
        size = ctx.size(0, scores)
        axis = self.class_axis(scores.ndim)
        return math.prod(size[:axis]), math.prod(size[axis + 1 :])

    def counted(self, ctx: Context, labels: Array, classes: Array, ignored: int | None) -> Array:
        """The mask of positions that count, in Caffe's order. classes: labels as of `aligned`."""
        counts = jnp.ones(classes.shape, bool) if ignored is None else classes != ignored
        inside = ctx.inside(1, labels)
        if inside is None:
            return counts
        everywhere = jnp.broadcast_to(inside, labels.shape)
        return counts & in_caffes_order(ctx, everywhere).reshape(-1)

    def padding_values(
        self, scores: PartialShape, *others: PartialShape
    ) -> tuple[PaddingValue, ...] | None:
        """Zeros, which are not counted, if classes are fixed and labels vary as scores do."""
        fixed = scores[self.class_axis(len(scores))] is not None
        alike = others[0].count(None) == scores.count(None)
        return (PaddingValue.ZERO,) * (1 + len(others)) if fixed and alike else None


@register(param="softmax_param", bottoms=2, tops=(1, 2), auto_top=True)
class SoftmaxWithLoss(Classified, Loss):
    """Minus the log probability of the true class, summed and normalised.

    Scores (N, C, H, W), labels (N, 1, H, W) or (N, H, W) -> scalar; a second top holds the
    probabilities. ``loss_param``: ``ignore_label``, ``normalization`` (VALID by default),
    ``normalize``. Probabilities are floored at 1.2e-38, so one prediction costs at most 87.3365.
    Caffe: ``softmax_loss_layer.cpp``.
    """

    formula = "y = -sum log softmax(x)[label] / normalizer"

    def shape(self, scores: Shape, labels: Shape) -> tuple[Shape, ...]:
        """A scalar, and the scores' shape."""
        self.check_labels(scores, labels)
        self.check_batch(scores, labels)
        return ((), scores)[: self.num_tops]

    def apply(self, ctx: Context, scores: Array, labels: Array) -> tuple[Array, ...]:
        """A label outside the classes, which the host refuses to feed, makes the loss NaN."""
        outer, inner = self.positions(ctx, scores)
        scores = ctx.kept("scores", scores)
        rows, classes = self.aligned(ctx, scores, labels)
        logs = self.log_probabilities(ctx, rows, labels)
        counts = self.counted(ctx, labels, classes, self.ignore_label)
        losses = -pick(logs, jnp.where(counts, classes, 0))
        # The floor changes only the value: Caffe's gradient stays prob - 1 there.
        losses = losses + jax.lax.stop_gradient(jnp.minimum(losses, -math.log(FLOOR)) - losses)
        total = jnp.sum(jnp.where(counts, losses, 0.0))
        loss = total / self.normalizer(outer, inner, jnp.sum(counts))
        if self.num_tops == 1:
            return (loss,)
        axis = ctx.axis(self.class_axis(scores.ndim), scores.ndim)
        return loss, jax.lax.stop_gradient(jax.nn.softmax(scores, axis=axis))

    def scoring(self, scores: Shape, labels: Shape) -> Scoring:
        """Labels are channels of the scores, or the ignored one."""
        classes = scores[self.class_axis(len(scores))]
        known = Labels(1, 0, classes, self.ignore_label)
        return Scoring(known, self.normalized(*self.split(scores)))

    def describe(self) -> str:
        return self.normalizer_settings()


@register(param="accuracy_param", bottoms=2, tops=(1, 2))
class Accuracy(Classified):
    """The share of positions whose true class is among the ``top_k`` best scores.

    Scores (N, C, H, W), labels (N, 1, H, W) -> scalar; a second top holds the share class by
    class, (C). A score equal to the true class's counts as better. Caffe: ``accuracy_layer.cpp``.
    """

    formula = "y = mean(label in top_k(x))"
    traits = Traits(works_in_place=False)
    bottom_use = BottomUse.indices(0, 1)
    drawn_as = "loss"

    @property
    def ignore_label(self) -> int | None:
        """The label that is not counted, if one is named."""
        return self.param.ignore_label if self.param.HasField("ignore_label") else None

    def shape(self, scores: Shape, labels: Shape) -> tuple[Shape, ...]:
        """A scalar, and (C)."""
        self.check_labels(scores, labels)
        classes = scores[self.class_axis(len(scores))]
        require(self.param.top_k <= classes, f"top_k {self.param.top_k} of {classes} classes")
        return ((), (classes,))[: self.num_tops]

    def apply(self, ctx: Context, scores: Array, labels: Array) -> tuple[Array, ...]:
        """Count the scores that are no less than the true class's."""
        rows, truth = self.aligned(ctx, scores, labels)
        counts = self.counted(ctx, labels, truth, self.ignore_label)
        rows = jax.lax.stop_gradient(rows)
        true_score = jnp.take_along_axis(rows, jnp.where(counts, truth, 0)[:, None], axis=-1)
        better = jnp.sum(rows >= true_score, axis=-1) - 1
        correct = counts & (better < self.param.top_k)
        accuracy = _share(jnp.sum(correct), jnp.sum(counts))
        if self.num_tops == 1:
            return (accuracy,)
        member = jax.nn.one_hot(truth, rows.shape[-1]) * counts[:, None]
        return accuracy, _share(member.T @ correct.astype(member.dtype), jnp.sum(member, axis=0))

    def scoring(self, scores: Shape, labels: Shape) -> Scoring:
        """Labels are channels of the scores, or the ignored one."""
        classes = scores[self.class_axis(len(scores))]
        return Scoring(Labels(1, 0, classes, self.ignore_label))

    def describe(self) -> str:
        return f"top {self.param.top_k}" if self.param.top_k != 1 else ""


def _share(part: Array, whole: Array) -> Array:
    """part / whole, and 0 of nothing."""
    return jnp.where(whole > 0, part / jnp.maximum(whole, 1), 0.0).astype(jnp.float32)


def in_caffes_order(ctx: Context, array: Array) -> Array:
    """An array of this run with its axes as Caffe has them."""
    return array.transpose([ctx.axis(i, array.ndim) for i in range(array.ndim)])


def pick(rows: Array, indices: Array) -> Array:
    """Pick one number of each row, (rows, classes) and (rows) -> (rows); NaN outside the row."""
    # Negative indices would wrap around.
    indices = jnp.where(indices < 0, rows.shape[-1], indices)
    return jnp.take_along_axis(rows, indices[:, None], axis=-1, mode="fill")[:, 0]
