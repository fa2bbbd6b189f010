"""Gradients one layer after another, from the last to the first, as Caffe's backward takes them.

A layer's gradient is taken from the arrays as they are now, which may have been edited since the
forward pass, and from what that pass left. Of an array that a layer overwrote in place nothing is
held: what is needed of it is computed once more from what the forward pass was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp

from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.numerics import MemoryLayout
from netspec.layers.residuals import Left
from netspec.layers.shape import Array
from netspec.runtime.compute_policy import PLAIN
from netspec.runtime.layer_pass import LayerPass
from netspec.runtime.values import Held, Params, Run


class Residuals(NamedTuple):
    """What a forward pass of some layers leaves for their gradients: arrays that never change.

    params: learned arrays and carried state, as the pass took them. key: its random key. values:
    by index, those that it was given, and those that it made and nothing overwrote.
    """

    params: Params
    key: Array | None
    values: Mapping[int, Array]


class Gradients(NamedTuple):
    """Gradients by values, by index, and by learned arrays; absent where nothing comes back."""

    values: dict[int, Array]
    learned: dict[ParamKey, Array]


def layer_gradients(
    shapes: Shapes,
    nodes: Sequence[int],
    params: Params,
    values: Mapping[int, Array],
    residuals: Residuals,
    diffs: Mapping[int, Array],
    learned: Iterable[ParamKey],
) -> Gradients:
    """Gradients of some layers, by number and in the order of the net.

    params: as they are now. values: what layers read and made, as it is now, by index; for those
    that are absent, as they were. residuals: of the pass in which these layers ran last. diffs: the
    gradients from which to start, by value. learned: the arrays to have gradients of. Layers on the
    host are asked for the gradients that Caffe would compute, and not run. Raises LayerError.
    """
    sweep = _Sweep(shapes, params, values, residuals, frozenset(learned))
    sweep.diffs.update((i, Held(diff)) for i, diff in diffs.items())
    with PLAIN.products():
        for n in reversed(nodes):
            sweep.go_back(n)
    return Gradients({i: h.channels_first() for i, h in sweep.diffs.items()}, sweep.gradients)


@dataclass
class _Sweep:
    """The gradients of the layers that have been gone through, and what is known of the arrays."""

    shapes: Shapes
    params: Params
    values: Mapping[int, Array]
    residuals: Residuals
    learned: frozenset[ParamKey]
    diffs: dict[int, Held] = field(default_factory=dict)
    gradients: dict[ParamKey, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take what is there in the layout in which a run would have made it."""
        self._now = {i: Held(array) for i, array in self.values.items()}
        self._then = {i: Held(array) for i, array in self.residuals.values.items()}
        self._buffers: dict[int, Mapping[str, Array]] = {}
        self._channels_last = _layouts(self.shapes)
        self._forward = LayerPass(self.shapes, self.residuals.params, self.residuals.key)
        # The states from which recurrent layers went on are not those they left since.
        then = self.residuals.params
        carried = {key: then[key] for key in self.shapes.carried if key in then}
        self._present = replace(self._forward, params={**self.params, **carried})

    def go_back(self, n: int) -> None:
        """Add what comes back through a layer to the gradients."""
        each, last = self.shapes.nodes[n], self._channels_last[n]
        node = each.node
        # Users' own layers are asked only for those gradients that Caffe would compute.
        stops = [not want for want in each.wanted] if node.layer.traits.on_host else node.stops
        wanted = {i for i, stop in zip(node.bottoms, stops, strict=True) if not stop}
        mine = {key: self.params[key] for key in each.keys.values() if key in self.learned}
        if not self.diffs.keys() & set(node.tops) or not (wanted or mine):
            return
        held = {i: _in_layout(self._at_present(i), last) for i in node.bottoms}
        left = Left(
            lambda: self._kept(n), lambda top: _in_layout(self._at_present(node.tops[top]), last)
        )

        def tops_of(mine: Params, bottoms: Mapping[int, Array]) -> list[Array]:
            given = {i: _held(array, last) for i, array in {**held, **bottoms}.items()}
            made = Run(self.shapes, values=given)
            layers = replace(self._present, params={**self._present.params, **mine})
            layers.run_node(made, n, last, left)
            return [_in_layout(made.values[i], last) for i in node.tops]

        tops, back = jax.vjp(tops_of, mine, {i: held[i] for i in wanted})
        pairs = zip(node.tops, tops, strict=True)
        gradients, diffs = back([self._diff(i, top, last) for i, top in pairs])
        for key, gradient in gradients.items():
            before = self.gradients.get(key)
            self.gradients[key] = gradient if before is None else before + gradient
        for i, diff in diffs.items():
            total = _in_layout(self.diffs[i], last) + diff if i in self.diffs else diff
            self.diffs[i] = _held(total, last)

    def _diff(self, i: int, like: Array, last: bool) -> Array:
        """The gradient by a top, zero where nothing came back to it."""
        return _in_layout(self.diffs[i], last) if i in self.diffs else jnp.zeros_like(like)

    def _at_present(self, i: int) -> Held:
        """A value as it is now."""
        return self._now[i] if i in self._now else self._in_the_forward(i)

    def _in_the_forward(self, i: int) -> Held:
        """A value as the forward pass made it."""
        if i not in self._then:
            self._kept(self.shapes.graph.values[i].producer)
        return self._then[i]

    def _kept(self, n: int) -> Mapping[str, Array]:
        """What a layer put into its buffers in the forward pass, which is computed once more."""
        if n not in self._buffers:
            bottoms = self.shapes.graph.nodes[n].bottoms
            made = Run(self.shapes, values={i: self._in_the_forward(i) for i in bottoms})
            ctx = self._forward.run_node(made, n, self._channels_last[n])
            self._buffers[n] = ctx.buffers
            for i in self.shapes.graph.nodes[n].tops:
                self._then.setdefault(i, made.values[i])
        return self._buffers[n]


def _layouts(shapes: Shapes) -> list[bool]:
    """Per layer, whether it computes channels-last in a run of the whole net."""
    found: list[bool] = []
    last: set[int] = set()
    for node in shapes.graph.nodes:
        layout = node.layer.numerics.layout
        follows = layout is MemoryLayout.EITHER and set(node.bottoms[:1]) <= last
        found.append(bool(node.bottoms) and (follows or layout is MemoryLayout.CHANNELS_LAST))
        if found[-1]:
            last |= {i for i in node.tops if len(shapes.values[i]) >= 4}
    return found


def _in_layout(held: Held, channels_last: bool) -> Array:
    return held.channels_last() if channels_last else held.channels_first()


def _held(array: Array, channels_last: bool) -> Held:
    return Held(last=array) if channels_last and array.ndim >= 4 else Held(first=array)
