"""Finds a loss that does not move: what it is at chance, whether it stays there, and why.

It asks the layers themselves: it knows no formula of any loss, and no layer type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import jax.numpy as jnp
import numpy as np

from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.runtime.run import run_layers
from netspec.runtime.values import Params
from netspec.solving.diagnosis.measure import Look, open_bottoms, reached

# How near to chance a loss counts as at chance.
NEAR = 0.01


def chance(shapes: Shapes, params: Params, feeds: Mapping[str, Array]) -> float | None:
    """The total loss that the net would have if all scores were equal.

    Each loss layer that reads class indices is applied to equal scores and the labels just fed.
    None where there is no such layer, where another kind of loss stands beside them, where labels
    are computed or scores are fed, and where it matters what the scores are equal to.
    """
    found = _at_equal_scores(shapes, params, feeds, 0.0)
    other = _at_equal_scores(shapes, params, feeds, 0.5)
    if found is None or other is None or not np.isclose(found, other, rtol=1e-3):
        return None
    return found


def _at_equal_scores(
    shapes: Shapes, params: Params, feeds: Mapping[str, Array], score: float
) -> float | None:
    graph = shapes.graph
    fed = {graph.first_blobs[name]: array for name, array in feeds.items()}
    given: dict[int, Array] = {}
    nodes = sorted({graph.values[i].producer for i, _ in graph.losses})
    if graph.data_dependent or not nodes:
        return None
    for n in nodes:
        node = graph.nodes[n]
        labels = node.layer.scoring(*shapes.nodes[n].bottoms).labels
        if labels is None or node.bottoms[labels.scores] in fed:
            return None
        for slot, i in enumerate(node.bottoms):
            if slot == labels.scores:
                given[i] = jnp.full(shapes.values[i], score, jnp.float32)
            elif i in fed:
                given[i] = jnp.asarray(fed[i])
            else:
                return None
    return float(run_layers(shapes, nodes, params, given).loss())


class StuckWatch:
    """Watches whether the loss of a run from iteration 0 stays at chance.

    It asks for the losses of three steps and computes nothing at any other. `due` says whether it
    wants a step; `stays` takes that step's loss.
    """

    def __init__(self) -> None:
        self._moments = [0, 9, 19]

    def due(self, iteration: int) -> bool:
        """Whether to hand the step after ``iteration`` updates to `stays`."""
        return bool(self._moments) and iteration == self._moments[0]

    def stays(
        self, loss: float, shapes: Shapes, params: Params, feeds: Mapping[str, Array]
    ) -> bool:
        """Whether this loss of a step that was `due`, the last one, was at chance as all before.

        feeds: what the step was fed. A loss that once was elsewhere ends the watch.
        """
        expected = chance(shapes, params, feeds)
        if expected is None or not abs(loss - expected) <= NEAR * abs(expected):
            self._moments = []
            return False
        del self._moments[0]
        return not self._moments


def why_stuck(look: Look, shapes: Shapes) -> list[str]:
    """Why the gradients of a step do not move the learned arrays, a line a cause.

    Empty where each learned array has a gradient, or will have one after the next update: a score
    layer that starts at 0 keeps gradients from all below it, but for one step only.
    """
    stop = _Stop(look, shapes)
    if not stop.silent:
        return []
    lines = [*stop.zero_weights(), *stop.cut_off(), *stop.dead_layers(), *stop.dead_inputs()]
    scores = [*stop.constant_scores()] if lines else []
    return [*lines, *scores, *stop.summary()]


class _Stop:
    """The places in a net where the gradients of a step end."""

    def __init__(self, look: Look, shapes: Shapes) -> None:
        self.look, self.shapes, self.graph = look, shapes, shapes.graph
        self.reached = reached(shapes.graph)

    @cached_property
    def silent(self) -> list[ParamKey]:
        """The learned arrays without a gradient, but for those that wait for a layer to start."""
        none = {key for key, found in self.look.gradients.items() if found.zero}
        waiting = {
            key
            for n, each in enumerate(self.shapes.nodes)
            if any(self._starts(above) for above in self._blocks_above(n))
            for key in each.keys.values()
        }
        return [key for key in self.look.gradients if key in none - waiting]

    @cached_property
    def zeros(self) -> list[ParamKey]:
        """The weights that are 0 and stay so, in layers that a loss depends on."""
        return [
            key
            for key, blob in self.shapes.params.items()
            if blob.learned
            and not blob.is_offset
            and self.look.params[key].zero
            and (key in self.silent or key not in self.look.gradients)
            and (len(blob.shape) > 1 or any(self._blocks(n) for n in self._users(key)))
            and any(self.reached & set(self.graph.nodes[n].tops) for n in self._users(key))
        ]

    def zero_weights(self) -> Iterator[str]:
        """Weights that are 0, by what made them so."""
        frozen = "; lr_mult: 0 keeps them so"
        reasons = {
            (False, True): "they have no weight_filler and no weights were loaded",
            (False, False): "they have no weight_filler, no weights were loaded" + frozen,
            (True, True): "their filler or the weights loaded made them so",
            (True, False): "their filler or the weights loaded made them so" + frozen,
        }
        for (filled, learned), reason in reasons.items():
            keys = [
                key
                for key in self.zeros
                if bool(self.shapes.params[key].filler.ListFields()) == filled
                and (key in self.look.gradients) == learned
            ]
            if keys:
                yield f"{_named(keys)} are all zero: {reason}; gradients cannot pass"

    def cut_off(self) -> Iterator[str]:
        """Arrays that no loss depends on."""
        for n, node in enumerate(self.graph.nodes):
            keys = [key for key in self.shapes.nodes[n].keys.values() if key in self.silent]
            if not keys or self.reached & set(node.tops):
                continue
            stops = [f'layer "{self.graph.nodes[r].name}"' for r in self._stops_above(n)]
            why = (
                f"propagate_down: false keeps gradients from it in {', '.join(stops)}"
                if stops
                else "no loss hangs on what it makes"
            )
            yield f"{node.place}: {node.who}: {why}"

    def dead_layers(self) -> Iterator[str]:
        """Layers that get gradients and propagate none."""
        for n, node in enumerate(self.graph.nodes):
            if not self._blocks(n) or self._starts(n) or self._has_zeros(n):
                continue
            for _, i in open_bottoms(node):
                if self._no_gradient(i):
                    name, found = self.graph.values[i].name, self.look.values[i]
                    tops = [self.look.values[top] for top in node.tops]
                    dead = ", and its tops are all zero" if all(top.zero for top in tops) else ""
                    yield (
                        f'{node.place}: {node.who}: no gradient passes to its bottom "{name}", '
                        f"which {found.range}{dead}"
                    )

    def dead_inputs(self) -> Iterator[str]:
        """Arrays without a gradient because all that they are multiplied with is 0."""
        for n, node in enumerate(self.graph.nodes):
            bottoms = [self.graph.values[i].name for i in node.bottoms if self.look.values[i].zero]
            keys = self.shapes.nodes[n].keys
            names = [b for b, k in keys.items() if k in self.silent and k not in self.zeros]
            if names and bottoms and self._gets_gradient(n):
                yield (
                    f'{node.place}: {node.who}: its bottom "{bottoms[0]}" is all zero, so its '
                    f"{', '.join(names)} has no gradient"
                )

    def constant_scores(self) -> Iterator[str]:
        """Scores that are all the same number."""
        for each in self.shapes.nodes:
            node, labels = each.node, each.node.layer.scoring(*each.bottoms).labels
            if labels is None or not set(node.tops) & {i for i, _ in self.graph.losses}:
                continue
            found = self.look.values[node.bottoms[labels.scores]]
            if found.least == found.most:
                name = self.graph.values[node.bottoms[labels.scores]].name
                yield f'{node.place}: {node.who}: its scores "{name}" are {found.most:g} everywhere'

    def summary(self) -> Iterator[str]:
        """How much of the net learns nothing."""
        if len(self.silent) == len(self.look.gradients):
            yield "no gradient reaches any learned array"
        else:
            yield f"no gradient reaches {_listed([str(key) for key in self.silent])}"

    def _no_gradient(self, value: int) -> bool:
        return value in self.look.diffs and self.look.diffs[value].zero

    def _gets_gradient(self, n: int) -> bool:
        tops = [self.look.diffs[i] for i in self.graph.nodes[n].tops if i in self.look.diffs]
        return any(not diff.zero for diff in tops)

    def _blocks(self, n: int) -> bool:
        """Whether a layer gets a gradient and propagates none to a bottom that could take it."""
        bottoms = open_bottoms(self.graph.nodes[n])
        return self._gets_gradient(n) and any(self._no_gradient(i) for _, i in bottoms)

    def _has_zeros(self, n: int) -> bool:
        return bool(set(self.zeros) & set(self.shapes.nodes[n].keys.values()))

    def _starts(self, n: int) -> bool:
        """Whether a layer's weights are 0 now, and will not be after the next update."""
        moving = [k for k in self.shapes.nodes[n].keys.values() if k in self.look.gradients]
        return any(
            self.look.params[key].zero
            and not self.look.gradients[key].zero
            and not self.shapes.params[key].is_offset
            for key in moving
        )

    def _blocks_above(self, n: int) -> set[int]:
        """The layers that keep gradients from a layer."""
        found: set[int] = set()
        seen, front = {n}, [n]
        while front:
            tops = self.graph.nodes[front.pop()].tops
            readers = {r for i in tops if self._no_gradient(i) for r in self.graph.readers[i]}
            for reader in readers - seen:
                seen.add(reader)
                (found.add if self._gets_gradient(reader) else front.append)(reader)
        return found

    def _stops_above(self, n: int) -> list[int]:
        """The layers whose ``propagate_down`` keeps gradients from a layer."""
        found: set[int] = set()
        seen, front = {n}, [n]
        while front:
            for i in self.graph.nodes[front.pop()].tops:
                for reader in set(self.graph.readers[i]) & self.graph.under_loss - seen:
                    node = self.graph.nodes[reader]
                    if node.stops[node.bottoms.index(i)]:
                        found.add(reader)
                    else:
                        seen.add(reader)
                        front.append(reader)
        return sorted(found)

    def _users(self, key: ParamKey) -> list[int]:
        return [n for n, each in enumerate(self.shapes.nodes) if key in each.keys.values()]


def _named(keys: list[ParamKey]) -> str:
    """Arrays in words: ``the weights of fc6, fc7``, or one by one where names differ."""
    if all(key.blob == "weight" for key in keys):
        return f"the weights of {_listed([key.layer for key in keys])}"
    return f"the arrays {_listed([str(key) for key in keys])}"


def _listed(names: list[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
