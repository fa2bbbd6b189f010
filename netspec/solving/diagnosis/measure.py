"""One pass that measures every blob, every learned array and every gradient of a training step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from netspec.frontend.graph import Graph, Node
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array, Shape, count
from netspec.runtime.host_calls import runnable
from netspec.runtime.owned import owned_jit
from netspec.runtime.run import value_gradients
from netspec.runtime.values import Params, Run


class Figures(NamedTuple):
    """The fields of `Measure`, on the device.

    These cost a step neither memory nor much time; `not_finite` makes a pass of its own to find
    where in an array a number is not finite.
    """

    shape: Array
    total: Array
    squares: Array
    least: Array
    most: Array


@dataclass(frozen=True)
class Measure:
    """An array in numbers: the sums of abs(x) and of x^2, its range. A NaN makes all of them so."""

    shape: Shape
    total: float
    squares: float
    least: float
    most: float

    @property
    def mean(self) -> float:
        """The mean of abs(x); 0 for an empty array."""
        return self.total / max(count(self.shape), 1)

    @property
    def finite(self) -> bool:
        """Whether all its numbers are finite."""
        return math.isfinite(self.least) and math.isfinite(self.most)

    @property
    def zero(self) -> bool:
        """Whether all its numbers are 0."""
        return self.least == self.most == 0

    @property
    def largest(self) -> float:
        """The largest abs(x)."""
        return max(abs(self.least), abs(self.most))

    @property
    def range(self) -> str:
        """As messages say it: ``ranges from -3 to 7``, ``is 0 everywhere``, ``holds nan``."""
        if not self.finite:
            return f"holds {self.most if math.isinf(self.most) else self.least:g}"
        if self.least == self.most:
            return f"is {self.least:g} everywhere"
        return f"ranges from {self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class Look:
    """The measures of one training step.

    loss: the total loss. values: of every value, by the graph's value index. diffs: of the total
    loss's gradients with respect to those values that gradients pass through. params: of every
    array that the run reads. gradients: of the learned ones.
    """

    loss: float
    values: Mapping[int, Measure]
    diffs: Mapping[int, Measure]
    params: Mapping[ParamKey, Measure]
    gradients: Mapping[ParamKey, Measure]


def look(
    shapes: Shapes,
    params: Params,
    learned: Iterable[ParamKey],
    feeds: Mapping[str, Array],
    key: Array | None,
) -> Look:
    """Measure one forward and backward pass, compiled once for each shape of the data.

    params: every array that the run needs. learned: those that training changes. feeds: arrays of
    all fed blobs by name. key: the step's, so that random layers draw the same numbers. Changes
    nothing, not even running statistics. Raises what layers on the host raise.
    """
    first = shapes.graph.first_blobs
    given = {first[name]: array for name, array in feeds.items()}
    seen = runnable(shapes.graph, _look)(shapes, tuple(learned), dict(params), given, key)
    loss, values, diffs, arrays, gradients = jax.device_get(seen)
    order = [*shapes.params, *(name for name in arrays if name not in shapes.params)]
    return Look(
        loss=float(loss),
        values={i: _measure(figures) for i, figures in values.items()},
        diffs={i: _measure(figures) for i, figures in diffs.items()},
        params={name: _measure(arrays[name]) for name in order if name in arrays},
        gradients={name: _measure(gradients[name]) for name in order if name in gradients},
    )


Parts = tuple[
    Array, dict[int, Figures], dict[int, Figures], dict[ParamKey, Figures], dict[ParamKey, Figures]
]


@owned_jit(static=2)
def _look(
    shapes: Shapes,
    learned: tuple[ParamKey, ...],
    params: dict[ParamKey, Array],
    given: Mapping[int, Array],
    key: Array | None,
) -> Parts:
    """Return figures alone, so that the program frees each array as soon as a step does."""
    wanted = carrying(shapes, learned)

    def objective(made: Run) -> tuple[Array, dict[int, Figures]]:
        return made.loss(), {i: _figures(made.value(i)) for i in made.values}

    value, values, gradients, diffs = value_gradients(
        shapes, range(len(shapes.graph.nodes)), params, given, objective, learned, wanted, key
    )
    return (
        value,
        values,
        {i: _figures(array) for i, array in diffs.items()},
        {name: _figures(array) for name, array in params.items()},
        {name: _figures(array) for name, array in gradients.items()},
    )


def _figures(array: Array) -> Figures:
    x = jax.lax.stop_gradient(array).astype(jnp.float32)
    return Figures(
        shape=jnp.asarray(x.shape, jnp.int32),
        total=jnp.sum(jnp.abs(x)),
        squares=jnp.sum(x * x),
        least=jnp.min(x) if x.size else jnp.zeros(()),
        most=jnp.max(x) if x.size else jnp.zeros(()),
    )


def _measure(figures: Figures) -> Measure:
    shape, *numbers = figures
    total, squares, least, most = map(float, numbers)
    return Measure(tuple(map(int, shape)), total, squares, least, most)


def reached(graph: Graph) -> frozenset[int]:
    """The values that the gradient of some loss reaches, as far as the graph says."""
    found = {i for i, _ in graph.seeds}
    for node in reversed(graph.nodes):
        if found & set(node.tops):
            found |= {bottom for _, bottom in open_bottoms(node)}
    return frozenset(found)


def open_bottoms(node: Node) -> Iterator[tuple[int, int]]:
    """(slot, value) of each bottom that a layer propagates gradients to."""
    for slot, (bottom, stop) in enumerate(zip(node.bottoms, node.stops, strict=True)):
        if not stop and slot not in node.layer.bottom_use.shape_only:
            yield slot, bottom


def carrying(shapes: Shapes, learned: Iterable[ParamKey]) -> frozenset[int]:
    """The values that gradients pass through on their way to learned arrays.

    With ``force_backward`` also those on their way to any bottom that it reaches.
    """
    graph, mine = shapes.graph, set(learned)
    moving: set[int] = set()
    for each in shapes.nodes:
        node = each.node
        bottoms = list(open_bottoms(node))
        if graph.force_backward:
            moving |= {i for slot, i in bottoms if slot not in node.layer.bottom_use.no_gradient}
        if mine & set(each.keys.values()) or any(i in moving for _, i in bottoms):
            moving |= set(node.tops)
    return reached(graph) & moving
