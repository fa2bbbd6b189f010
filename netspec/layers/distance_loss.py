"""Losses that measure the distance of blobs from each other, from a margin or from targets."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from netspec.errors import require
from netspec.layers.context import Context
from netspec.layers.labels import as_labels
from netspec.layers.records import BottomUse, Labels, Scoring
from netspec.layers.registry import register
from netspec.layers.shape import Array, Shape, count, text
from netspec.layers.softmax_loss import Loss
from netspec.layers.valid_region import PaddingValue, PartialShape
from netspec.proto.layers_pb2 import HingeLossParameter, LossParameter


@register(bottoms=2, tops=1, auto_top=True)
class EuclideanLoss(Loss):
    """Half the squared distance of two blobs, divided by the batch size.

    (N, ...), (N, ...) -> scalar. Both bottoms have a gradient.
    Caffe: ``euclidean_loss_layer.cpp``.
    """

    formula = "y = sum((a - b)^2) / 2N"
    bottom_use = BottomUse()

    def shape(self, a: Shape, b: Shape) -> Shape:
        self.check_batch(a, b, ("bottom 0", "bottom 1"))
        require(
            count(a[1:]) == count(b[1:]),
            f"items of {count(a[1:])} numbers in bottom 0, {text(a)}, but of {count(b[1:])} in "
            f"bottom 1, {text(b)}",
        )
        return ()

    def apply(self, ctx: Context, a: Array, b: Array) -> Array:
        """Blobs of one size may differ in shape."""
        difference = ctx.kept("difference", a.reshape(-1) - b.reshape(-1))
        return jnp.vdot(difference, difference) / a.shape[0] / 2

    def padding_values(self, a: PartialShape, b: PartialShape) -> tuple[PaddingValue, ...] | None:
        """Zeros, which differ by nothing, if both bottoms have one shape."""
        return (PaddingValue.ZERO,) * 2 if a == b else None

    def scoring(self, a: Shape, b: Shape) -> Scoring:
        """Twice the batch size divides."""
        divisor = f"twice the batch size {count(a[:1])}"
        return Scoring(scaling=self.summed(f"{count(a):,} squared differences", divisor))


@register(param="contrastive_loss_param", bottoms=3, tops=1, auto_top=True)
class ContrastiveLoss(Loss):
    """Pull similar pairs together, push the others ``margin`` apart.

    Features (N, C), (N, C), alike (N) -> scalar, divided by 2 N. At the distance d, a pair that is
    alike (not 0) costs d^2, another max(margin - d, 0)^2, or max(margin - d^2, 0) in the
    ``legacy_version``. Caffe: ``contrastive_loss_layer.cpp``.
    """

    formula = "y = sum(d^2 if alike else max(margin - d, 0)^2) / 2N"
    bottom_use = BottomUse(no_gradient=frozenset({2}), unforced=frozenset({2}))

    def shape(self, a: Shape, b: Shape, alike: Shape) -> Shape:
        self.check_batch(a, b, ("features", "features"))
        for features in (a, b):
            require(
                count(features[2:]) == 1,
                f"features are (N, C), but a bottom is {text(features)}",
            )
        require(
            count(a[1:]) == count(b[1:]),
            f"features {text(a)} and {text(b)} differ in channels",
        )
        require(
            alike[:1] == a[:1] and count(alike) == a[0],
            f"{a[0]} pairs need {a[0]} numbers that say whether they are alike, but bottom 2 is "
            f"{text(alike)}",
        )
        return ()

    def apply(self, ctx: Context, a: Array, b: Array, alike: Array) -> Array:
        difference = ctx.kept("difference", _rows(a) - _rows(b))
        square = jnp.sum(difference * difference, axis=1)
        margin = self.param.margin
        if self.param.legacy_version:
            apart = jnp.where(square < margin, margin - square, 0.0)
        else:
            apart = _squared_gap(square, margin)
        losses = jnp.where(as_labels(alike.reshape(-1)) != 0, square, apart)
        return jnp.sum(losses) / a.shape[0] / 2

    def scoring(self, a: Shape, b: Shape, alike: Shape) -> Scoring:
        """Twice the batch size divides."""
        n = count(a[:1])
        return Scoring(scaling=self.summed(f"{n:,} pairs", f"twice the batch size {n}"))

    def describe(self) -> str:
        return f"margin {self.param.margin:g}" + (", legacy" if self.param.legacy_version else "")


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _squared_gap(square: Array, margin: float) -> Array:
    """max(margin - d, 0)^2 of d^2; its slope has 1e-4 added to d, as Caffe's."""
    gap = jnp.maximum(margin - jnp.sqrt(square), 0.0)
    return gap * gap


@_squared_gap.defjvp
def _squared_gap_jvp(
    margin: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    distance = jnp.sqrt(primals[0])
    gap = jnp.maximum(margin - distance, 0.0)
    return gap * gap, -gap / (distance + 1e-4) * tangents[0]


@register(param="hinge_loss_param", bottoms=2, tops=1, auto_top=True)
class HingeLoss(Loss):
    """One class against all others: push the true class's score over 1, the others' under -1.

    Scores (N, C), labels (N) -> scalar, the sum of violations (L1) or of their squares (L2) divided
    by N. Caffe: ``hinge_loss_layer.cpp``.
    """

    formula = "y = sum(max(1 - t x, 0)^p) / N, t = 1 at the label, else -1"

    def shape(self, scores: Shape, labels: Shape) -> Shape:
        self.check_one_label(scores, labels)
        return ()

    def apply(self, ctx: Context, scores: Array, labels: Array) -> Array:
        """At a violation of exactly 0 the gradient is 0; a label outside the classes makes NaN."""
        rows = _rows(scores)
        truth = as_labels(labels.reshape(-1))[:, None] == jnp.arange(rows.shape[1])[None]
        violations = ctx.kept("violations", 1 + jnp.where(truth, -rows, rows))
        violations = jnp.where(violations > 0, violations, 0.0)
        if self.param.norm == HingeLossParameter.L2:
            violations = violations * violations
        total = jnp.where(jnp.all(jnp.any(truth, axis=1)), jnp.sum(violations), jnp.nan)
        return total / scores.shape[0]

    def scoring(self, scores: Shape, labels: Shape) -> Scoring:
        """Labels are places in an item's scores; the batch size divides."""
        squared = "squared " if self.param.norm == HingeLossParameter.L2 else ""
        what, divisor = f"{count(scores):,} {squared}violations", count(scores[:1])
        scaling = self.summed(what, f"the batch size {divisor}")
        return Scoring(Labels(1, 0, count(scores[1:]), None), scaling)

    def describe(self) -> str:
        return HingeLossParameter.Norm.Name(self.param.norm)


@register(bottoms=2, tops=1, auto_top=True)
class SigmoidCrossEntropyLoss(Loss):
    """The cross-entropy of independent yes-or-no targets, from scores before their sigmoid.

    Scores (N, ...), targets (N, ...) in [0, 1] -> scalar, divided by N unless ``loss_param`` says
    otherwise. A target whose whole part is ``ignore_label`` does not count.
    Caffe: ``sigmoid_cross_entropy_loss_layer.cpp``.
    """

    formula = "y = -sum(t log s(x) + (1 - t) log(1 - s(x))) / N"

    @property
    def normalization(self) -> LossParameter.NormalizationMode:
        """BATCH_SIZE where ``loss_param`` says nothing."""
        loss = self.spec.loss_param
        given = loss.HasField("normalization") or loss.HasField("normalize")
        return super().normalization if given else LossParameter.BATCH_SIZE

    def shape(self, scores: Shape, targets: Shape) -> Shape:
        self.check_batch(scores, targets, ("scores", "targets"))
        require(
            count(scores) == count(targets),
            f"scores {text(scores)} need {count(scores)} targets, but targets are {text(targets)}",
        )
        return ()

    def apply(self, ctx: Context, scores: Array, targets: Array) -> Array:
        """In the form that does not overflow; targets have no gradient."""
        scores = ctx.kept("scores", scores)
        x, t = scores.reshape(-1), jax.lax.stop_gradient(targets.reshape(-1))
        counts = jnp.ones(t.shape, bool)
        if self.ignore_label is not None:
            counts = as_labels(t) != self.ignore_label
        inside = ctx.inside(0, scores)
        if inside is not None:
            counts &= jnp.broadcast_to(inside, scores.shape).reshape(-1)
        total = jnp.sum(jnp.where(counts, jax.nn.softplus(x) - x * t, 0.0))
        n, *rest = ctx.size(0, scores)
        divisor = self.normalizer(n, math.prod(rest), jnp.sum(counts))
        return total / ctx.kept("normalizer", divisor)

    def padding_values(
        self, scores: PartialShape, targets: PartialShape
    ) -> tuple[PaddingValue, ...] | None:
        """Zeros, which are not counted, if both bottoms have one shape and a fixed batch."""
        return (PaddingValue.ZERO,) * 2 if scores == targets and scores[0] is not None else None

    def scoring(self, scores: Shape, targets: Shape) -> Scoring:
        """It has targets, no labels."""
        return Scoring(scaling=self.normalized(count(scores[:1]), count(scores[1:])))

    def describe(self) -> str:
        return self.normalizer_settings()


def _rows(array: Array) -> Array:
    """(N, ...) -> (N, numbers of an item)."""
    return array.reshape(len(array), count(array.shape[1:]))
