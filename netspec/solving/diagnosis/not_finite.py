"""One pass that sees everything, and what to say of it.

`look` measures every blob, every learned array and every gradient of a training step; `culprit`
names the first of them that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from netspec.frontend.graph import Graph, Node
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array, Shape, count
from netspec.runtime.host_calls import runnable
from netspec.runtime.run import run_layers, value_gradients
from netspec.runtime.values import Params, Run

# Magnitudes from here on are those of a run that grows without bound.
LARGE = 1e6


class Figures(NamedTuple):
    """The fields of `Measure`, on the device.

    These four cost a step neither memory nor much time; where numbers are not finite is found in
    a pass of its own.
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
        """Whether all its numbers are."""
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
    """One training step in numbers.

    loss: the total one. values: by the graph's value index. diffs: the total loss's gradients with
    respect to those of them that gradients pass through. params: every array that the run reads.
    gradients: of the learned ones.
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
    all fed blobs by name. key: the step's, so that what is random is as it was there. Nothing
    changes, running statistics neither. Raises what layers on the host raise.
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


@partial(jax.jit, static_argnums=(0, 1))
def _look(
    shapes: Shapes,
    learned: tuple[ParamKey, ...],
    params: dict[ParamKey, Array],
    given: Mapping[int, Array],
    key: Array | None,
) -> Parts:
    """Figures alone leave the program, so that each array is gone as soon as in a step."""
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


@partial(jax.jit, static_argnums=(0, 1))
def _value(
    shapes: Shapes,
    index: int,
    params: Params,
    given: Mapping[int, Array],
    key: Array | None,
) -> Array:
    """One value, by no more layers than it takes."""
    nodes = range(shapes.graph.values[index].producer + 1)
    return run_layers(shapes, nodes, params, given, key).value(index)


def reached(graph: Graph) -> frozenset[int]:
    """The values that some loss's gradient comes back to, as far as the graph says."""
    found = {i for i, _ in graph.losses}
    for node in reversed(graph.nodes):
        if found & set(node.tops):
            found |= {bottom for _, bottom in open_bottoms(node)}
    return frozenset(found)


def open_bottoms(node: Node) -> Iterator[tuple[int, int]]:
    """(slot, value) of each bottom that a layer hands gradients to."""
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


def culprit(
    look: Look, shapes: Shapes, params: Params, feeds: Mapping[str, Array], key: Array | None
) -> str | None:
    """What first was not finite in a step, as a message with place, numbers and likely remedy.

    In this order: what was fed, the arrays that the step started from, the blobs as they were
    made, the total loss, the gradients as they came back. None if all are finite. The others are
    what `look` was given: a blob that is not finite is computed again, to say where in it.
    """
    graph = shapes.graph
    given = {graph.first_blobs[name]: array for name, array in feeds.items()}

    def where(index: int) -> str:
        if index in given:
            return _fault(given[index])
        return _fault(runnable(graph, _value)(shapes, index, dict(params), given, key))

    return (
        _fed_culprit(look, graph, where)
        or _param_culprit(look, shapes, params)
        or _blob_culprit(look, shapes, where)
        or _loss_culprit(look, graph)
        or _gradient_culprit(look, shapes)
    )


def _fault(array: Array) -> str:
    """What is not finite: ``nan at (0, 2, 5, 1)``, ``-inf at (0, 3) and 4 more``."""
    host = np.asarray(array)
    bad = np.flatnonzero(~np.isfinite(host))
    if not bad.size:
        # Compiled apart from the whole step, a sum may just not overflow.
        return "nan or inf"
    where = ", ".join(map(str, np.unravel_index(bad[0], host.shape)))
    more = f" and {bad.size - 1} more" if bad.size > 1 else ""
    return f"{host.flat[bad[0]]:g}" + (f" at ({where}){more}" if host.ndim else "")


def _fed_culprit(look: Look, graph: Graph, where: Callable[[int], str]) -> str | None:
    for node in graph.sources:
        for i in node.tops:
            if i in look.values and not look.values[i].finite:
                return _said(
                    node,
                    f'its top "{graph.values[i].name}" is fed {where(i)}; the data itself, or how '
                    "it is made, is at fault",
                )
    return None


def _param_culprit(look: Look, shapes: Shapes, params: Params) -> str | None:
    for key, found in look.params.items():
        if not found.finite:
            return _said(
                _owner(shapes, key),
                f"its {key.blob} holds numbers that are not finite before the step: "
                f"{_fault(params[key])}; an update made them (lower base_lr, or set "
                "clip_gradients), or the weights that were loaded hold them",
            )
    return None


def _blob_culprit(look: Look, shapes: Shapes, where: Callable[[int], str]) -> str | None:
    graph = shapes.graph
    for i in sorted(look.values):
        if look.values[i].finite:
            continue
        n = graph.values[i].producer
        node = graph.nodes[n]
        what = f'its top "{graph.values[i].name}" is the first blob that is not finite: {where(i)}'
        inputs = [look.values[bottom] for bottom in node.bottoms]
        arrays = [look.params[key] for key in shapes.nodes[n].keys.values()]
        remedy = _remedy(shapes, n, [*inputs, *arrays], "computes") or _bad_labels(look, shapes, n)
        return _said(node, "; ".join([what, *_inputs(look, shapes, n), *remedy]))
    return None


def _loss_culprit(look: Look, graph: Graph) -> str | None:
    if np.isfinite(look.loss):
        return None
    terms = [
        f"{weight:g} x {look.values[i].total:g} ({graph.values[i].name})"
        for i, weight in graph.losses
        if i in look.values
    ]
    return (
        f"{graph.file}: the total loss is {look.loss:g} though every blob is finite: it is "
        f"{' + '.join(terms)}; lower the loss_weight"
    )


def _gradient_culprit(look: Look, shapes: Shapes) -> str | None:
    graph = shapes.graph
    for n in reversed(range(len(graph.nodes))):
        node, keys = graph.nodes[n], shapes.nodes[n].keys
        for name, found in [
            *((f"its {b}", look.gradients[k]) for b, k in keys.items() if k in look.gradients),
            *(
                (f'its bottom "{graph.values[i].name}"', look.diffs[i])
                for _, i in open_bottoms(node)
                if i in look.diffs
            ),
        ]:
            if found.finite:
                continue
            what = (
                f"all blobs are finite, but the gradient of {name} is the first, going backward, "
                f"that is not: it {found.range}"
            )
            tops = [(graph.values[i].name, look.diffs[i]) for i in node.tops if i in look.diffs]
            diffs = [f'the gradient of its top "{top}" {diff.range}' for top, diff in tops]
            near = [look.values[i] for i in node.bottoms] + [diff for _, diff in tops]
            remedy = _remedy(shapes, n, near, "has the slope of")
            return _said(node, "; ".join([what, *_inputs(look, shapes, n), *diffs, *remedy]))
    return None


def _inputs(look: Look, shapes: Shapes, n: int) -> list[str]:
    """The ranges of what a layer reads."""
    node, values = shapes.graph.nodes[n], shapes.graph.values
    bottoms = [f'its bottom "{values[i].name}" {look.values[i].range}' for i in node.bottoms]
    arrays = [f"its {name} {look.params[key].range}" for name, key in shapes.nodes[n].keys.items()]
    return bottoms + arrays


def _remedy(shapes: Shapes, n: int, near: list[Measure], does: str) -> list[str]:
    """What likely helps a layer whose inputs these are."""
    node = shapes.graph.nodes[n]
    if any(not one.finite or one.largest >= LARGE for one in near):
        return [
            "numbers this large mostly come of updates that are too large: lower base_lr, or set "
            "clip_gradients" + "".join(f" ({line})" for line in _scalings(shapes))
        ]
    if node.layer.formula and not node.layer.traits.is_loss and not shapes.nodes[n].keys:
        return [f"the layer {does} {node.layer.formula}: keep its bottom where that is finite"]
    return []


def _scalings(shapes: Shapes) -> Iterator[str]:
    """What each loss is divided by, since one that nothing divides needs a small base_lr."""
    for each in shapes.nodes:
        if sentence := each.node.layer.scoring(*each.bottoms).scaling:
            yield f'the loss of layer "{each.node.name}" is a {sentence}'


def _bad_labels(look: Look, shapes: Shapes, n: int) -> list[str]:
    node = shapes.graph.nodes[n]
    labels = node.layer.scoring(*shapes.nodes[n].bottoms).labels
    if labels is None:
        return []
    found = look.values[node.bottoms[labels.bottom]]
    if found.least >= 0 and (found.most < labels.classes or found.most == labels.ignore):
        return []
    ignored = "" if labels.ignore is None else f", or {labels.ignore} to be ignored"
    return [f"labels must be classes 0..{labels.classes - 1}{ignored}"]


def _owner(shapes: Shapes, key: ParamKey) -> Node:
    """The layer that owns an array, or remembers it."""
    return next(
        (each.node for each in shapes.nodes if key in each.keys.values()),
        shapes.graph.node(key.layer),
    )


def _said(node: Node, message: str) -> str:
    return f"{node.place}: {node.who}: {message}"
