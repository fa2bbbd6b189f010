"""What a layer may ask of the run that it computes in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from netspec.errors import LayerError
from netspec.layers.residuals import Left, substitute
from netspec.layers.shape import Array, Shape
from netspec.layers.valid_region import Size, ValidRegion, places


@dataclass
class Context:
    """What a layer may ask for while it computes.

    blobs: its learned arrays by name, in Caffe's shapes, float32 whatever the bottoms are.
    channels_last: whether bottoms of rank 4 and more arrive as (N, ..., C).
    run_key, index: the run's random key, and which of the run's layers this is.
    carried: the arrays of `Layer.carried`, as the run before left them.
    wanted: for each bottom, whether Caffe would compute its gradient.
    valid_regions: for each bottom, which part of its array is the blob; None if all is. Empty if
    that holds for all bottoms.
    left: what the forward pass left, where only gradients are asked for.
    updates, carried_on, written, buffers: what the layer has set with `update`, `carry`, `write`
    and `kept`.
    """

    blobs: Mapping[str, Array]
    channels_last: bool = False
    run_key: Array | None = None
    index: int = 0
    carried: Mapping[str, Array] = field(default_factory=dict)
    wanted: tuple[bool, ...] = ()
    valid_regions: tuple[ValidRegion | None, ...] = ()
    left: Left | None = None
    updates: dict[str, Array] = field(default_factory=dict)
    carried_on: dict[str, Array] = field(default_factory=dict)
    written: dict[str, Array] = field(default_factory=dict)
    buffers: dict[str, Array] = field(default_factory=dict)

    def key(self) -> Array:
        """This layer's random key for this run; raises LayerError if the run has none."""
        if self.run_key is None:
            raise LayerError("draws random numbers, but this run was given no key")
        return jax.random.fold_in(self.run_key, self.index)

    def update(self, name: str, value: Array) -> None:
        """Set a running statistic for the runs that follow."""
        self.updates[name] = value

    def carry(self, name: str, value: Array) -> None:
        """Set an array of `Layer.carried` for the next run."""
        self.carried_on[name] = value

    def write(self, name: str, value: Array) -> None:
        """Say what a layer on the host wrote into a learned array."""
        self.written[name] = value

    def kept(self, name: str, array: Array) -> Array:
        """An array that Caffe's backward takes from a buffer of the layer's last forward.

        Where only gradients are asked for, its value is that of the forward pass; the gradient goes
        to the ``array`` given.
        """
        self.buffers[name] = array
        return array if self.left is None else substitute(self.left.buffers()[name], array)

    def by_top(self, top: Array, gradient: Callable[[Array], Array]) -> Array:
        """A top whose gradient Caffe's backward computes from the top as it is now.

        gradient: of the top's present array, a function of the bottoms that has the same gradient;
        its value does not matter.
        """
        return top if self.left is None else gradient(self.left.top(0))

    def axis(self, axis: int, rank: int) -> int:
        """Where Caffe's ``axis`` of a blob of ``rank`` axes lies in the arrays of this run."""
        return places(rank, self.channels_last)[axis]

    def shape(self, array: Array) -> Shape:
        """Caffe's shape (N, C, ...) of an array of this run."""
        return tuple(array.shape[i] for i in places(array.ndim, self.channels_last))

    def size(self, bottom: int, array: Array) -> Size:
        """The blob's own shape (N, C, ...), of a bottom whose array may be larger."""
        region = self._region(bottom)
        return self.shape(array) if region is None else region.of(self.shape(array))

    def inside(self, bottom: int, array: Array) -> Array | None:
        """The mask of a bottom's valid region, to broadcast; None if its array is all valid."""
        region = self._region(bottom)
        if region is None:
            return None
        return region.inside(array.shape, places(array.ndim, self.channels_last))

    def mean(self, array: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        """The mean along Caffe's ``axes`` of an array like the first bottom's, over the blob."""
        inside = self.inside(0, array)
        along = tuple(sorted(self.axis(i, array.ndim) for i in axes))
        if inside is None:
            return jnp.mean(array, axis=along, keepdims=keepdims)
        total = jnp.sum(jnp.where(inside, array, 0.0), axis=along, keepdims=keepdims)
        size = self.size(0, array)
        return total / math.prod(size[i] for i in axes)

    def _region(self, bottom: int) -> ValidRegion | None:
        return self.valid_regions[bottom] if self.valid_regions else None
