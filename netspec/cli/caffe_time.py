"""Times of each layer of a net, forward and backward, for ``netspec caffe time``.

Every layer is two programs of its own, each waited for. The net that is trained is one program, in
which XLA fuses layers, so that it takes less than their sum. Caffe: ``time`` in ``caffe.cpp``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from netspec.errors import NetSpecError, require
from netspec.frontend.shapes import Shapes
from netspec.layers.base import Array
from netspec.proto.layers_pb2 import TRAIN
from netspec.runtime.host_calls import runnable
from netspec.runtime.module import Net
from netspec.runtime.owned import owned_jit
from netspec.runtime.run import run_layers
from netspec.runtime.timing import timed
from netspec.runtime.values import Held, Params
from netspec.sources.feed import Feed

_Values = Mapping[int, Held]
# From the diffs of a layer's tops to those of its learned arrays and its bottoms; holds residuals.
_Pullback = Callable[[_Values], tuple[Params, _Values]]


@dataclass
class LayerTimes:
    """Seconds of each layer, and of whole passes, which include the time between layers."""

    forward: list[float]
    backward: list[float]
    forward_pass: float = 0.0
    backward_pass: float = 0.0

    @classmethod
    def none(cls, layers: int) -> LayerTimes:
        """Zeros for each of ``layers`` layers."""
        return cls([0.0] * layers, [0.0] * layers)

    def over(self, passes: int) -> LayerTimes:
        """The means over ``passes`` passes."""
        return LayerTimes(
            [seconds / passes for seconds in self.forward],
            [seconds / passes for seconds in self.backward],
            self.forward_pass / passes,
            self.backward_pass / passes,
        )


class Timer:
    """Runs a net layer by layer, with Caffe's gradients: those that reach learned arrays.

    Blobs that Input layers make are zeros. loss: of the first pass, in which all is compiled.
    """

    def __init__(self, net: Net, feed: Feed) -> None:
        """Run the net once on what its data layers read; raises LayerError, SourceError."""
        self._net, self._graph, self._feed = net, net.graph, feed
        self._arrays = {**net.arrays(), **net.carried_for(net.shapes)}
        self._key = jax.random.key(0) if net.graph.phase == TRAIN else None
        # Shapes for which all is compiled.
        self._ready: set[Shapes] = set()
        self.loss = self._pass(LayerTimes.none(len(net.graph.nodes)))

    def run(self, passes: int, tell: Callable[[int, float], None]) -> LayerTimes:
        """Seconds of a mean pass; ``tell`` gets each pass's number, from 1, and its seconds."""
        require(passes > 0, f"{passes} iterations; at least 1 is needed", NetSpecError)
        times = LayerTimes.none(len(self._graph.nodes))
        before = 0.0
        for i in range(1, passes + 1):
            self._pass(times)
            now = times.forward_pass + times.backward_pass
            tell(i, now - before)
            before = now
        return times.over(passes)

    def _pass(self, times: LayerTimes) -> float:
        """One pass, forward and backward, its seconds added to ``times``; returns the loss."""
        fed = self._read(times)
        named = {self._graph.values[i].name: array.shape for i, array in fed.items()}
        shapes = self._net.shapes_for(named)
        if shapes not in self._ready:
            self._ready.add(shapes)
            self._run(shapes, fed, LayerTimes.none(len(self._graph.nodes)))
        return self._run(shapes, fed, times)

    def _read(self, times: LayerTimes) -> dict[int, Array]:
        """What the net is fed, by the index of its value."""
        fed: dict[int, Array] = {}
        for n, node in enumerate(self._graph.nodes):
            if node.name in self._feed.sources:
                seconds, batch = timed(_on_device, self._feed.sources[node.name].next)
                times.forward[n] += seconds
                times.forward_pass += seconds
                fed |= {i: batch[self._graph.values[i].name] for i in node.tops}
            elif node.layer.traits.is_source:
                fed |= {i: jnp.zeros(self._net.shapes.values[i], jnp.float32) for i in node.tops}
        return fed

    def _run(self, shapes: Shapes, fed: Mapping[int, Array], times: LayerTimes) -> float:
        start = time.perf_counter()
        values, pullbacks = self._forward(shapes, fed, times)
        middle = time.perf_counter()
        self._backward(values, pullbacks, times)
        times.forward_pass += middle - start
        times.backward_pass += time.perf_counter() - middle
        terms = [w * values[i].channels_first().sum() for i, w in self._graph.losses]
        return float(sum(terms))

    def _forward(
        self, shapes: Shapes, fed: Mapping[int, Array], times: LayerTimes
    ) -> tuple[_Values, dict[int, _Pullback]]:
        """All values, and the pullback of each layer that has gradients."""
        values = {i: Held(array) for i, array in fed.items()}
        pullbacks: dict[int, _Pullback] = {}
        for n, node in enumerate(self._graph.nodes):
            if node.layer.traits.is_source:
                continue
            learned, bottoms = self._differentiated(shapes, n, values)
            fixed = {i: values[i] for i in node.bottoms if i not in bottoms}
            others = {
                key: self._arrays[key]
                for key in (*shapes.nodes[n].keys.values(), *shapes.carried)
                if key not in learned
            }
            seconds, (tops, pullback, updates) = timed(
                runnable(self._graph, _layer),
                *(shapes, n, learned, bottoms, others, fixed, self._key),
            )
            times.forward[n] += seconds
            values |= tops
            self._arrays |= updates
            if learned or bottoms:
                pullbacks[n] = pullback
        return values, pullbacks

    def _differentiated(
        self, shapes: Shapes, n: int, values: _Values
    ) -> tuple[Params, dict[int, Held]]:
        """A layer's learned arrays and bottoms whose gradients training would compute."""
        node = self._graph.nodes[n]
        learned = {
            key: self._arrays[key]
            for _, key, blob in shapes.nodes[n].learned
            if blob.learned and shapes.param_specs[key].lr_mult
        }
        wanted = zip(node.bottoms, shapes.nodes[n].wanted, strict=True)
        return learned, {i: values[i] for i, want in wanted if want}

    def _backward(
        self, values: _Values, pullbacks: dict[int, _Pullback], times: LayerTimes
    ) -> None:
        diffs: dict[int, Held] = {}
        for i, weight in self._graph.seeds:
            diffs[i] = jax.tree.map(partial(jnp.full_like, fill_value=weight), values[i])
        for n in reversed(pullbacks):
            tops = {
                i: diffs.pop(i) if i in diffs else jax.tree.map(jnp.zeros_like, values[i])
                for i in self._graph.nodes[n].tops
            }
            seconds, (_, bottoms) = timed(runnable(self._graph, _back), pullbacks[n], tops)
            times.backward[n] += seconds
            for i, diff in bottoms.items():
                diffs[i] = jax.tree.map(jnp.add, diffs[i], diff) if i in diffs else diff


def _on_device(read: Callable[[], Mapping[str, Any]]) -> dict[str, Array]:
    return {name: jnp.asarray(array, jnp.float32) for name, array in read().items()}


@owned_jit(static=2)
def _layer(
    shapes: Shapes,
    n: int,
    learned: Params,
    bottoms: _Values,
    others: Params,
    fixed: _Values,
    key: Array | None,
) -> tuple[_Values, _Pullback, Params]:
    """Run layer ``n`` forward: its tops, its pullback, and its updated statistics."""

    def forward(learned: Params, bottoms: _Values) -> tuple[_Values, Params]:
        made = run_layers(shapes, [n], {**others, **learned}, {**fixed, **bottoms}, key)
        return {i: made.values[i] for i in shapes.graph.nodes[n].tops}, made.updates

    tops, pullback, updates = jax.vjp(forward, learned, bottoms, has_aux=True)
    return tops, pullback, updates


@jax.jit
def _back(pullback: _Pullback, diffs: _Values) -> tuple[Params, _Values]:
    return pullback(diffs)
