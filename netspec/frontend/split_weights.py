"""The terms of a net's loss, as Caffe's automatic Split layers leave them.

Caffe puts a Split behind a top that several read. A written loss_weight counts as a reader: it
moves to the Split, and the layer then has none of the weights that were written for its tops.
A weight that is not written lies in the top's diff, where the gradient that comes back from a
reader overwrites it; it is reported all the same.
Caffe: ``InsertSplits`` in ``insert_splits.cpp``, ``SetLossWeights`` in ``layer.hpp``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from netspec.errors import LayerError, counted, fail
from netspec.layers import Layer


class LossTerm(NamedTuple):
    """A term of the loss: a weight times the sum of a value.

    has_gradient: whether gradients start from it; if not, it is reported only. is_own: whether the
    layer that makes the value has the weight; if not, the split behind it has.
    """

    value: int
    weight: float
    has_gradient: bool
    is_own: bool


def moved_weights(layer: Layer, is_read: Sequence[bool]) -> tuple[float, ...]:
    """The written weight of each top that is read on, 0 for the others."""
    written = layer.loss_weights() if layer.spec.loss_weight else (0.0,) * layer.num_tops
    return tuple(w if read else 0.0 for w, read in zip(written, is_read, strict=True))


def own_weights(layer: Layer, is_read: Sequence[bool]) -> tuple[float, ...]:
    """The weights that the layer itself has for its tops; raises LayerError.

    is_read: per top, whether a layer reads it.
    """
    moved = moved_weights(layer, is_read)
    if not any(moved):
        return layer.loss_weights()
    if layer.traits.is_loss and layer.num_tops > 1:
        top = layer.spec.top[next(i for i, weight in enumerate(moved) if weight)]
        fail(
            f'top "{top}" has a loss_weight and is read by another layer, which leaves a loss '
            f"with {counted(layer.num_tops, 'top')} without weights; write loss_weight: 0 for "
            "each of its tops, and a loss_weight in the layer that reads it",
            LayerError,
        )
    return layer.implicit_loss_weights()


def loss_terms(
    layers: Sequence[tuple[Layer, Sequence[int]]], reads: Sequence[Sequence[bool]], forced: bool
) -> tuple[LossTerm, ...]:
    """The terms of the loss, in the order of the net; raises LayerError.

    layers: each with the values that are its tops. reads: per value, a number for each bottom that
    reads it: whether ``force_backward`` wants its gradient. forced: whether the net has that.
    """
    terms = []
    for layer, tops in layers:
        is_read = [bool(reads[top]) for top in tops]
        for top, weight in zip(tops, own_weights(layer, is_read), strict=True):
            # What is read is overwritten, or, where all readers are without gradient and are not
            # forced to have one, the layer that made it is left out of the backward pass.
            alone = forced and len(reads[top]) == 1 and not reads[top][0]
            terms.append(LossTerm(top, weight, not reads[top] or alone, is_own=True))
        moved = moved_weights(layer, is_read)
        pairs = zip(tops, moved, strict=True)
        terms += [LossTerm(top, weight, has_gradient=True, is_own=False) for top, weight in pairs]
    return tuple(term for term in terms if term.weight)
