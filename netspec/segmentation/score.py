"""Score predicted labels against true ones by the four metrics of the FCN papers.

Their source: ``score.py`` beside the published nets (Shelhamer, Long and Darrell, 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from netspec.errors import SourceError, require
from netspec.layers.base import Array, count, text
from netspec.layers.labels import as_labels


def confusion(
    predicted: ArrayLike | Array,
    labels: ArrayLike | Array,
    classes: int,
    ignore: int | None = None,
) -> NDArray[np.int64]:
    """Pixel counts (classes, classes): row = true class, column = predicted class.

    predicted: scores (N, classes, H, W) of floats, or predicted labels of integers. labels: one
    for each position, e.g. (N, 1, H, W). A label outside [0, classes), or ``ignore``, does not
    count. Matrices of several batches add up. Raises SourceError where the two do not fit.
    """
    guess, truth = jnp.asarray(predicted), jnp.asarray(labels)
    if jnp.issubdtype(guess.dtype, jnp.floating):
        _require_scores(guess, truth, classes)
        return np.asarray(_count_scores(guess, truth, classes, ignore), np.int64)
    _require_labels(guess, truth, classes)
    return np.asarray(_count(guess, truth, classes, ignore), np.int64)


def _require_scores(scores: Array, labels: Array, classes: int) -> None:
    require(
        scores.ndim >= 2 and scores.shape[1] == classes,
        f"scores {text(scores.shape)} are of other classes than {classes}, along axis 1",
        SourceError,
    )
    positions = scores.shape[0] * count(scores.shape[2:])
    require(
        positions == labels.size,
        f"scores {text(scores.shape)} need {positions} labels, but labels are {text(labels.shape)}",
        SourceError,
    )


def _require_labels(predicted: Array, labels: Array, classes: int) -> None:
    require(
        predicted.size == labels.size,
        f"predicted labels are {text(predicted.shape)}, but labels are {text(labels.shape)}",
        SourceError,
    )
    least, most = int(predicted.min(initial=0)), int(predicted.max(initial=0))
    require(
        least >= 0 and most < classes,
        f"predicted labels reach from {least} to {most}; there are {classes} classes "
        f"(0..{classes - 1})",
        SourceError,
    )


@partial(jax.jit, static_argnums=(2, 3))
def _count_scores(scores: Array, labels: Array, classes: int, ignore: int | None) -> Array:
    counted: Array = _count(jnp.argmax(scores, axis=1), labels, classes, ignore)
    return counted


@partial(jax.jit, static_argnums=(2, 3))
def _count(predicted: Array, labels: Array, classes: int, ignore: int | None) -> Array:
    truth = as_labels(labels.reshape(-1))
    counts = (truth >= 0) & (truth < classes)
    if ignore is not None:
        counts &= truth != ignore
    # Pixels that do not count fall into an additional bin, which is cut off.
    nowhere = classes * classes
    cell = jnp.where(counts, classes * truth + as_labels(predicted.reshape(-1)), nowhere)
    counted: Array = jnp.bincount(cell, length=nowhere + 1)[:nowhere]
    return counted.reshape(classes, classes)


class Tally(NamedTuple):
    """Pixel counts (C, C) of many batches, on the device: ``low`` + 2**32 ``high``.

    Two words, as JAX has no integers of 64 bits unless it is told to; either is exact.
    """

    low: Array
    high: Array

    @staticmethod
    def empty(classes: int) -> Tally:
        """Nothing counted yet."""
        return Tally(*jnp.zeros((2, classes, classes), jnp.uint32))

    def add(self, scores: Array, labels: Array, ignore: int | None = None) -> Tally:
        """The counts with a batch's added: see `confusion`; may stand in a compiled program."""
        counts = _count_scores(scores, labels, len(self.low), ignore).astype(jnp.uint32)
        low = self.low + counts
        return Tally(low, self.high + (low < counts))

    def confusion(self) -> NDArray[np.int64]:
        """What was counted, on the host: the one place that waits for the device."""
        low, high = (np.asarray(word, np.int64) for word in self)
        return low + (high << 32)


@dataclass(frozen=True, eq=False)
class Metrics:
    """What a confusion matrix comes to: shares in 0..1, NaN where nothing was counted.

    confusion: pixel counts (C, C), row = true class, column = predicted class.
    """

    confusion: NDArray[np.int64]

    @property
    def pixels(self) -> int:
        """How many were counted."""
        return int(self.confusion.sum())

    @property
    def pixel_accuracy(self) -> float:
        """Of all pixels, those that are right."""
        return float(_share(np.trace(self.confusion), self.pixels))

    @property
    def mean_accuracy(self) -> float:
        """Of each true class's pixels, those that are right, averaged over classes that occur."""
        return _mean(_share(np.diag(self.confusion), self.confusion.sum(1)))

    @property
    def iu(self) -> NDArray[np.float64]:
        """Per class, intersection over union of its true and predicted pixels (C)."""
        right = np.diag(self.confusion)
        return _share(right, self.confusion.sum(1) + self.confusion.sum(0) - right)

    @property
    def mean_iu(self) -> float:
        """`iu` averaged over classes that occur, as true or as predicted."""
        return _mean(self.iu)

    @property
    def fw_iu(self) -> float:
        """`iu` averaged with the frequencies of true classes as weights."""
        true = self.confusion.sum(1)
        present = true > 0
        return float(_share((true[present] * self.iu[present]).sum(), self.pixels))

    def table(self, names: Sequence[str] = ()) -> str:
        """The metrics as text, a class a line; ``names`` of classes stand in for their indices."""
        rows = [
            ("pixel accuracy", self.pixel_accuracy),
            ("mean accuracy", self.mean_accuracy),
            ("mean IU", self.mean_iu),
            ("f.w. IU", self.fw_iu),
            *((f"IU {_name(i, names)}", share) for i, share in enumerate(self.iu)),
        ]
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:{width}}  {share:6.4f}" for label, share in rows)


def _name(index: int, names: Sequence[str]) -> str:
    return names[index] if index < len(names) else str(index)


def _share(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """A part over its whole, NaN of nothing."""
    whole = np.asarray(whole, np.float64)
    return np.asarray(part) / np.where(whole > 0, whole, np.nan)


def _mean(shares: NDArray[np.float64]) -> float:
    """The mean of those that are not NaN."""
    known = shares[~np.isnan(shares)]
    return float(known.mean()) if known.size else float("nan")
