"""Names what first was not finite in a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from netspec.frontend.graph import Node
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.runtime.host_calls import runnable
from netspec.runtime.owned import owned_jit
from netspec.runtime.run import run_layers
from netspec.runtime.values import Params
from netspec.solving.diagnosis.measure import Look, Measure, open_bottoms

# Magnitudes from here on are those of a run that grows without bound.
LARGE = 1e6


def culprit(
    look: Look, shapes: Shapes, params: Params, feeds: Mapping[str, Array], key: Array | None
) -> str | None:
    """Describe what first was not finite in a step: place, numbers, likely remedy; None if nothing.

    In this order: what was fed, the arrays that the step started from, the blobs as they were
    made, the total loss, the gradients going backward. The other arguments are those that `look`
    was made with: a blob that is not finite is computed once more, to say where in it.
    """
    step = _MeasuredStep(look, shapes, params, feeds, key)
    return next((suspect.say() for suspect in step.suspects() if not suspect.finite), None)


class _Suspect(NamedTuple):
    """Something that may not be finite, and what to say of it then."""

    finite: bool
    say: Callable[[], str]


class _MeasuredStep:
    """A step that was measured, with the arrays that it was made of."""

    def __init__(
        self,
        look: Look,
        shapes: Shapes,
        params: Params,
        feeds: Mapping[str, Array],
        key: Array | None,
    ) -> None:
        self.look, self.shapes, self.graph = look, shapes, shapes.graph
        self.params, self.key = params, key
        self.given = {shapes.graph.first_blobs[name]: array for name, array in feeds.items()}

    def suspects(self) -> Iterator[_Suspect]:
        """All that a step computes with, in the order in which one spoils the next."""
        look, graph = self.look, self.graph
        for node in graph.sources:
            for i in node.tops:
                if i in look.values:
                    yield _Suspect(look.values[i].finite, partial(self._say_fed, node, i))
        for key, found in look.params.items():
            yield _Suspect(found.finite, partial(self._say_param, key))
        for i in sorted(look.values):
            yield _Suspect(look.values[i].finite, partial(self._say_blob, i))
        yield _Suspect(bool(np.isfinite(look.loss)), self._say_loss)
        for n in reversed(range(len(graph.nodes))):
            for name, found in self._gradients(n):
                yield _Suspect(found.finite, partial(self._say_gradient, n, name, found))

    def _gradients(self, n: int) -> Iterator[tuple[str, Measure]]:
        """The gradients that a layer computes, each with what it is the gradient of."""
        for blob, key in self.shapes.nodes[n].keys.items():
            if key in self.look.gradients:
                yield f"its {blob}", self.look.gradients[key]
        for _, i in open_bottoms(self.graph.nodes[n]):
            if i in self.look.diffs:
                yield f'its bottom "{self.graph.values[i].name}"', self.look.diffs[i]

    def _say_fed(self, node: Node, i: int) -> str:
        return _said(
            node,
            f'its top "{self.graph.values[i].name}" is fed {self._where(i)}; the data itself, or '
            "how it is made, is at fault",
        )

    def _say_param(self, key: ParamKey) -> str:
        return _said(
            self._owner(key),
            f"its {key.blob} holds numbers that are not finite before the step: "
            f"{_fault(self.params[key])}; an update made them (lower base_lr, or set "
            "clip_gradients), or the weights that were loaded hold them",
        )

    def _say_blob(self, i: int) -> str:
        n = self.graph.values[i].producer
        node, name = self.graph.nodes[n], self.graph.values[i].name
        what = f'its top "{name}" is the first blob that is not finite: {self._where(i)}'
        inputs = [self.look.values[bottom] for bottom in node.bottoms]
        arrays = [self.look.params[key] for key in self.shapes.nodes[n].keys.values()]
        remedy = self._remedy(n, [*inputs, *arrays], "computes") or self._bad_labels(n)
        return _said(node, "; ".join([what, *self._inputs(n), *remedy]))

    def _say_loss(self) -> str:
        terms = [
            f"{weight:g} x {self.look.values[i].total:g} ({self.graph.values[i].name})"
            for i, weight in self.graph.losses
            if i in self.look.values
        ]
        return (
            f"{self.graph.file}: the total loss is {self.look.loss:g} though every blob is finite: "
            f"it is {' + '.join(terms)}; lower the loss_weight"
        )

    def _say_gradient(self, n: int, name: str, found: Measure) -> str:
        node, look = self.graph.nodes[n], self.look
        what = (
            f"all blobs are finite, but the gradient of {name} is the first, going backward, "
            f"that is not: it {found.range}"
        )
        tops = [(self.graph.values[i].name, look.diffs[i]) for i in node.tops if i in look.diffs]
        diffs = [f'the gradient of its top "{top}" {diff.range}' for top, diff in tops]
        near = [look.values[i] for i in node.bottoms] + [diff for _, diff in tops]
        remedy = self._remedy(n, near, "has the slope of")
        return _said(node, "; ".join([what, *self._inputs(n), *diffs, *remedy]))

    def _where(self, i: int) -> str:
        """What is not finite in a value, and where in it."""
        if i in self.given:
            return _fault(self.given[i])
        value = runnable(self.graph, _value)
        return _fault(value(self.shapes, i, dict(self.params), self.given, self.key))

    def _inputs(self, n: int) -> list[str]:
        """The ranges of what a layer reads."""
        bottoms = [
            f'its bottom "{self.graph.values[i].name}" {self.look.values[i].range}'
            for i in self.graph.nodes[n].bottoms
        ]
        keys = self.shapes.nodes[n].keys
        arrays = [f"its {name} {self.look.params[key].range}" for name, key in keys.items()]
        return bottoms + arrays

    def _remedy(self, n: int, near: list[Measure], does: str) -> list[str]:
        """What likely helps a layer whose inputs these are."""
        layer = self.graph.nodes[n].layer
        if any(not one.finite or one.largest >= LARGE for one in near):
            return [
                "numbers this large mostly come of updates that are too large: lower base_lr, or "
                "set clip_gradients" + "".join(f" ({line})" for line in self._scalings())
            ]
        if layer.formula and not layer.traits.is_loss and not self.shapes.nodes[n].keys:
            return [f"the layer {does} {layer.formula}: keep its bottom where that is finite"]
        return []

    def _scalings(self) -> Iterator[str]:
        """What each loss is divided by, since one that nothing divides needs a small base_lr."""
        for each in self.shapes.nodes:
            if sentence := each.node.layer.scoring(*each.bottoms).scaling:
                yield f'the loss of layer "{each.node.name}" is a {sentence}'

    def _bad_labels(self, n: int) -> list[str]:
        node = self.graph.nodes[n]
        labels = node.layer.scoring(*self.shapes.nodes[n].bottoms).labels
        if labels is None:
            return []
        found = self.look.values[node.bottoms[labels.bottom]]
        if found.least >= 0 and (found.most < labels.classes or found.most == labels.ignore):
            return []
        ignored = "" if labels.ignore is None else f", or {labels.ignore} to be ignored"
        return [f"labels must be classes 0..{labels.classes - 1}{ignored}"]

    def _owner(self, key: ParamKey) -> Node:
        """The layer that learns an array, or carries it from run to run."""
        return next(
            (each.node for each in self.shapes.nodes if key in each.keys.values()),
            self.graph.node(key.layer),
        )


@owned_jit(static=2)
def _value(
    shapes: Shapes,
    index: int,
    params: Params,
    given: Mapping[int, Array],
    key: Array | None,
) -> Array:
    """Compute one value, by no more layers than it takes."""
    nodes = range(shapes.graph.values[index].producer + 1)
    return run_layers(shapes, nodes, params, given, key).value(index)


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


def _said(node: Node, message: str) -> str:
    return f"{node.place}: {node.who}: {message}"
