"""The arrays of a run: each value of the graph in the layout in which a layer left it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.runtime.border_reuse import Borders, put_back
from netspec.runtime.compute_policy import wide
from netspec.runtime.masked_shapes import ValidRegions

# Learned arrays, statistics and carried state by key.
Params = Mapping[ParamKey, Array]


def on_device(array: Any) -> Array:
    """An array, or a number, as a float32 array that programs take; a host array is copied.

    NumPy copies it, as `jnp.asarray` compiles a program for each shape, and without a copy the
    device might share memory that the caller writes to.
    """
    if isinstance(array, np.ndarray):
        return jax.device_put(np.array(array, np.float32))
    return jnp.asarray(array, jnp.float32)


@jax.tree_util.register_dataclass
@dataclass
class Held:
    """An array in a run: channels-first, channels-last or both.

    borders: where rows are left out of it, see `netspec.runtime.border_reuse`.
    """

    first: Array | None = None
    last: Array | None = None
    borders: Borders = field(default=(), metadata={"static": True})

    @property
    def rank(self) -> int:
        """How many axes it has."""
        array = self.first if self.first is not None else self.last
        return array.ndim  # type: ignore[union-attr]

    def in_one_layout(self) -> Held:
        """The same in one layout only, the one that later layers take without a transposition."""
        if self.last is not None:
            return Held(last=self.last, borders=self.borders)
        return Held(first=self.first, borders=self.borders)

    def channels_first(self) -> Array:
        """As (N, C, ...)."""
        if self.first is None:
            self.first = jnp.moveaxis(self.last, -1, 1)  # type: ignore[arg-type]
        return self.first

    def channels_last(self) -> Array:
        """As (N, ..., C) if it has 4 axes or more; smaller ones have one layout only."""
        if self.rank < 4:
            return self.channels_first()
        if self.last is None:
            self.last = jnp.moveaxis(self.first, 1, -1)  # type: ignore[arg-type]
        return self.last

    def with_borders(self, wanted: Borders = ()) -> Held:
        """The same with only those rows left out that ``wanted`` leaves out; none by default."""
        if self.borders == wanted:
            return self
        if self.last is not None:
            return Held(last=put_back(self.last, (1, 2), self.borders, wanted), borders=wanted)
        return Held(put_back(self.channels_first(), (2, 3), self.borders, wanted), borders=wanted)


@dataclass
class Run:
    """What a run has made so far, and what it was given.

    values: arrays by the graph's value index. updates: new statistics and carried state, by key.
    valid_regions: how much of each array is the blob; None where all of it is. written: learned
    arrays as layers on the host left them, by key.
    """

    shapes: Shapes
    valid_regions: ValidRegions | None = None
    values: dict[int, Held] = field(default_factory=dict)
    updates: dict[ParamKey, Array] = field(default_factory=dict)
    written: dict[ParamKey, Array] = field(default_factory=dict)

    def value(self, index: int, fill: float | None = None) -> Array:
        """A value in Caffe's layout, with ``fill``, if given, where its array is larger."""
        array = wide(self.values[index].with_borders().channels_first())
        if self.valid_regions is None or fill is None:
            return array
        return self.valid_regions.cleared(index, array, fill)

    def blobs(self) -> dict[str, Array]:
        """Blob name -> its last binding, in Caffe's layout."""
        blobs = self.shapes.graph.blobs
        return {name: self.value(i) for name, i in blobs.items() if i in self.values}

    def loss(self) -> Array:
        """The sum of all tops with a loss weight, each times its weight: ().

        Gradients come from those terms alone that Caffe's start from.
        """
        terms = [
            _term(term.weight * jnp.sum(self.value(term.value, fill=0.0)), term.has_gradient)
            for term in self.shapes.graph.loss_terms
            if term.value in self.values
        ]
        return sum(terms, start=jnp.zeros((), jnp.float32))


def _term(term: Array, has_gradient: bool) -> Array:
    return term if has_gradient else jax.lax.stop_gradient(term)
