"""Layers that measure: what losses share, the softmax loss, and accuracy.

What losses share: the first top is a scalar with loss weight 1, labels are class indices held in
floats, and a normaliser divides the sum over all predictions.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import require
from netspec.layers.base import (
    Array,
    Context,
    Labels,
    Layer,
    Layout,
    Shape,
    canonical_axis,
    count,
    register,
    text,
)
from netspec.layers.labels import as_labels
from netspec.layers.precision import Precision
from netspec.layers.valid_region import PaddingValue, PartialShape
from netspec.proto.layers_pb2 import LossParameter

# The greatest loss of one prediction: Caffe floors probabilities at the least normal float.
FLOOR = float(np.finfo(np.float32).tiny)


class Loss(Layer):
    """A layer whose first top is a scalar that training makes small."""

    is_loss = True
    drawn_as = "loss"
    precision = Precision.FULL

    def sees_all(self, rank: int) -> bool:
        """One number is made of all pixels."""
        return True

    def allow_force_backward(self, bottom: int) -> bool:
        """The last bottom holds labels, which have no gradient."""
        return bottom != 1

    @property
    def ignore_label(self) -> int | None:
        """The label that does not count, if ``loss_param`` names one."""
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
        """The mode asked for; the older ``normalize`` counts where ``normalization`` is absent."""
        loss = self.spec.loss_param
        if loss.HasField("normalize") and not loss.HasField("normalization"):
            return LossParameter.VALID if loss.normalize else LossParameter.BATCH_SIZE
        return loss.normalization

    def normalizer(self, outer: int | Array, inner: int | Array, valid: int | Array) -> Array:
        """What the summed loss is divided by, at least 1.

        outer: items in the batch. inner: predictions an item. valid: predictions that count.
        """
        divisor = {
            LossParameter.FULL: outer * inner,
            LossParameter.VALID: valid,
            LossParameter.BATCH_SIZE: outer,
            LossParameter.NONE: 1,
        }[self.normalization]
        return jnp.maximum(jnp.asarray(divisor, jnp.float32), 1.0)

    def summed(self, what: str, divisor: str) -> str:
        """The sentence for `scaling`."""
        weight = self.loss_weights()[0]
        weighted = "" if weight == 1 else f", times loss_weight {weight:g}"
        return f"sum over {what} / {divisor}{weighted}"

    def normalized(self, outer: int, inner: int) -> str:
        """The sentence for `scaling` of a loss that `normalizer` divides."""
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
    """What reads scores along one axis and a class index for each position off that axis."""

    precision = Precision.FULL

    def class_axis(self, rank: int) -> int:
        """The axis that classes lie along."""
        raise NotImplementedError

    def split(self, scores: Shape, labels: Shape) -> tuple[int, int]:
        """(outer, inner): positions before and behind the class axis; checks the label count."""
        axis = self.class_axis(len(scores))
        outer, inner = count(scores[:axis]), count(scores[axis + 1 :])
        require(
            outer * inner == count(labels),
            f"scores {text(scores)} need {outer * inner} labels, one for each position off axis "
            f"{axis}, but labels are {text(labels)}",
        )
        return outer, inner

    def aligned(self, ctx: Context, scores: Array, labels: Array) -> tuple[Array, Array]:
        """Scores as (positions, classes), labels as (positions), in Caffe's order."""
        axis = ctx.axis(self.class_axis(scores.ndim), scores.ndim)
        rows = jnp.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis])
        # Labels need no channel axis: what lies on their axis 1 may be rows of the image.
        return rows, as_labels(in_caffes_order(ctx, labels).reshape(-1))

    def sees_all(self, rank: int) -> bool:
        """One number is made of all positions."""
        return True

    def positions(self, ctx: Context, scores: Array) -> tuple[int | Array, int | Array]:
        """(outer, inner) as `split` has them, of scores whose array may be larger."""
        size = ctx.size(0, scores)
        axis = self.class_axis(scores.ndim)
        return math.prod(size[:axis]), math.prod(size[axis + 1 :])

    def counted(self, ctx: Context, labels: Array, classes: Array, ignored: int | None) -> Array:
        """Which positions count, in Caffe's order. classes: the labels as `aligned` has them."""
        counts = jnp.ones(classes.shape, bool) if ignored is None else classes != ignored
        inside = ctx.inside(1, labels)
        if inside is None:
            return counts
        everywhere = jnp.broadcast_to(inside, labels.shape)
        return counts & in_caffes_order(ctx, everywhere).reshape(-1)

    def padding_values(  # type: ignore[override]
        self, scores: PartialShape, *others: PartialShape
    ) -> tuple[PaddingValue, ...] | None:
        """Zeros, not to be counted; classes must stand still, and labels vary as scores do."""
        stands = scores[self.class_axis(len(scores))] is not None
        alike = others[0].count(None) == scores.count(None)
        return (PaddingValue.ZERO,) * (1 + len(others)) if stands and alike else None

    def layout_for(self, axis: int) -> Layout:
        """Channels-last is as good, where classes are channels."""
        return Layout.EITHER if axis == 1 else Layout.CHANNELS_FIRST


@register(param="softmax_param", bottoms=2, tops=(1, 2), auto_top=True)
class SoftmaxWithLoss(Classified, Loss):
    """Minus the log probability of the true class, summed and normalised.

    Scores (N, C, H, W), labels (N, 1, H, W) or (N, H, W) -> scalar; a second top holds the
    probabilities. ``loss_param``: ``ignore_label``, ``normalization`` (VALID by default),
    ``normalize``. Probabilities are floored at 1.2e-38, so one prediction costs at most 87.3365.
    Caffe: ``softmax_loss_layer.cpp``.
    """

    formula = "y = -sum log softmax(x)[label] / normalizer"

    @property
    def layout(self) -> Layout:  # type: ignore[override]
        """Either, where classes are channels."""
        return self.layout_for(self.param.axis)

    def class_axis(self, rank: int) -> int:
        """``softmax_param { axis }``."""
        return canonical_axis(self.param.axis, rank)

    def shape(self, scores: Shape, labels: Shape) -> tuple[Shape, ...]:  # type: ignore[override]
        """A scalar, and the scores' shape."""
        self.split(scores, labels)
        self.check_batch(scores, labels)
        return ((), scores)[: self.num_tops]

    def apply(self, ctx: Context, scores: Array, labels: Array) -> tuple[Array, ...]:  # type: ignore[override]
        """A label outside the classes, which the host should have refused, makes the loss NaN."""
        outer, inner = self.positions(ctx, scores)
        rows, classes = self.aligned(ctx, scores, labels)
        logs = jax.nn.log_softmax(rows, axis=-1)
        counts = self.counted(ctx, labels, classes, self.ignore_label)
        losses = -pick(logs, jnp.where(counts, classes, 0))
        # The floor changes the value alone: Caffe's gradient stays prob - 1 there.
        losses = losses + jax.lax.stop_gradient(jnp.minimum(losses, -math.log(FLOOR)) - losses)
        total = jnp.sum(jnp.where(counts, losses, 0.0))
        loss = total / self.normalizer(outer, inner, jnp.sum(counts))
        if self.num_tops == 1:
            return (loss,)
        axis = ctx.axis(self.class_axis(scores.ndim), scores.ndim)
        return loss, jax.lax.stop_gradient(jax.nn.softmax(scores, axis=axis))

    def labels(self, scores: Shape, labels: Shape) -> Labels:  # type: ignore[override]
        """Labels are channels of the scores, or the ignored one."""
        return Labels(1, 0, scores[self.class_axis(len(scores))], self.ignore_label)

    def scaling(self, scores: Shape, labels: Shape) -> str:  # type: ignore[override]
        """How many predictions the loss sums, and what divides the sum."""
        return self.normalized(*self.split(scores, labels))

    def describe(self) -> str:
        """The ignored label and the normaliser."""
        return self.normalizer_settings()


@register(param="accuracy_param", bottoms=2, tops=(1, 2))
class Accuracy(Classified):
    """The share of positions whose true class is among the ``top_k`` best scores.

    Scores (N, C, H, W), labels (N, 1, H, W) -> scalar; a second top holds the share class by
    class, (C). A score equal to the true class's counts as better. Caffe: ``accuracy_layer.cpp``.
    """

    formula = "y = mean(label in top_k(x))"
    drawn_as = "loss"

    @property
    def layout(self) -> Layout:  # type: ignore[override]
        """Either, where classes are channels."""
        return self.layout_for(self.param.axis)

    def class_axis(self, rank: int) -> int:
        """``accuracy_param { axis }``."""
        return canonical_axis(self.param.axis, rank)

    @property
    def ignore_label(self) -> int | None:
        """The label that does not count, if named."""
        return self.param.ignore_label if self.param.HasField("ignore_label") else None

    def shape(self, scores: Shape, labels: Shape) -> tuple[Shape, ...]:  # type: ignore[override]
        """A scalar, and (C)."""
        self.split(scores, labels)
        classes = scores[self.class_axis(len(scores))]
        require(self.param.top_k <= classes, f"top_k {self.param.top_k} of {classes} classes")
        return ((), (classes,))[: self.num_tops]

    def apply(self, ctx: Context, scores: Array, labels: Array) -> tuple[Array, ...]:  # type: ignore[override]
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

    def labels(self, scores: Shape, labels: Shape) -> Labels:  # type: ignore[override]
        """Labels are channels of the scores, or the ignored one."""
        return Labels(1, 0, scores[self.class_axis(len(scores))], self.ignore_label)

    def allow_force_backward(self, bottom: int) -> bool:
        """Accuracy has no gradient."""
        return False

    def describe(self) -> str:
        """How many guesses."""
        return f"top {self.param.top_k}" if self.param.top_k != 1 else ""


def _share(part: Array, whole: Array) -> Array:
    """part / whole, and 0 of nothing."""
    return jnp.where(whole > 0, part / jnp.maximum(whole, 1), 0.0).astype(jnp.float32)


def in_caffes_order(ctx: Context, array: Array) -> Array:
    """An array of this run with its axes as Caffe has them."""
    return array.transpose([ctx.axis(i, array.ndim) for i in range(array.ndim)])


def pick(rows: Array, indices: Array) -> Array:
    """One number of each row, (rows, classes) and (rows) -> (rows); NaN where a row has no such."""
    # Negative indices would wrap around.
    indices = jnp.where(indices < 0, rows.shape[-1], indices)
    return jnp.take_along_axis(rows, indices[:, None], axis=-1, mode="fill")[:, 0]
