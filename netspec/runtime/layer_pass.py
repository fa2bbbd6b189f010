"""Run layers in order: each one's bottoms in the layout and type that it takes, its tops held.

A run holds images channels-last where layers compute faster so; layers say which layouts they
take, and a blob is transposed only where two layers disagree. What goes in and comes out has
Caffe's layout, and is float32: see `netspec.runtime.compute_policy` for what lies between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp

from netspec.errors import blame, require
from netspec.frontend.graph import Node
from netspec.frontend.shapes import NodeShapes, ParamKey, Shapes
from netspec.layers.base import Array, Shape, text
from netspec.layers.context import Context
from netspec.layers.numerics import MemoryLayout
from netspec.layers.residuals import Left, substitute
from netspec.layers.valid_region import PaddingValue
from netspec.runtime.border_reuse import Borders, ReducedLayer
from netspec.runtime.compute_policy import PLAIN, ComputePolicy
from netspec.runtime.remat import rematerialised
from netspec.runtime.values import Held, Params, Run


@dataclass(frozen=True)
class LayerPass:
    """What all layers of a run compute with.

    params: every learned array, shared ones once, and carried state (zeros where it is absent).
    key: for layers that draw random numbers. reduced: the layers, by number, that compute fewer
    rows. perturbations: arrays added to the values of these indices as they are made. replacements:
    arrays that stand for the values of these indices; gradients go to what was computed there.
    """

    shapes: Shapes
    params: Params
    key: Array | None = None
    policy: ComputePolicy = PLAIN
    reduced: Mapping[int, ReducedLayer] = field(default_factory=dict)
    perturbations: Mapping[int, Array] = field(default_factory=dict)
    replacements: Mapping[int, Array] = field(default_factory=dict)

    def run(self, made: Run, nodes: Iterable[int]) -> None:
        """Add to a run what some layers make; raises LayerError with the layer's place."""
        for n in self._computing(nodes):
            self.run_node(made, n)

    def run_segment(self, made: Run, nodes: Sequence[int]) -> None:
        """As `run`; no residuals are kept of what is within: gradients compute it once more."""
        graph, nodes = self.shapes.graph, self._computing(nodes)
        read = {i for n in nodes for i in graph.nodes[n].bottoms if i in made.values}
        live = {i: made.values[i].in_one_layout() for i in read}
        keys = {key for n in nodes for key in self.shapes.nodes[n].keys.values()}
        mine = {key: made.updates.get(key, self.params[key]) for key in keys}
        later = [i for n in nodes for i in graph.nodes[n].tops if self._is_read(i, nodes)]

        def compute(
            live: dict[int, Held], mine: dict[ParamKey, Array]
        ) -> tuple[dict[int, Held], dict[ParamKey, Array]]:
            # A residual must not be given another layout here.
            part = Run(
                self.shapes,
                made.valid_regions,
                {i: held.in_one_layout() for i, held in live.items()},
            )
            replace(self, params={**self.params, **mine}).run(part, nodes)
            return {i: part.values[i].in_one_layout() for i in later}, part.updates

        values, updates = rematerialised(compute)(live, mine)
        made.values.update(values)
        made.updates.update(updates)

    def _computing(self, nodes: Iterable[int]) -> list[int]:
        return [n for n in nodes if not self.shapes.graph.nodes[n].layer.traits.is_source]

    def _is_read(self, value: int, nodes: Sequence[int]) -> bool:
        """Whether others than these nodes read a value, or the net hands it out or sums it up."""
        graph = self.shapes.graph
        readers = graph.readers[value]
        summed = value in (i for i, _ in graph.losses)
        return summed or not readers or any(n not in nodes for n in readers)

    def run_node(
        self, made: Run, n: int, channels_last: bool | None = None, left: Left | None = None
    ) -> Context:
        """As `run` for one layer; returns what it was asked with, and has set there.

        channels_last: the layout to compute in, where it is not the bottoms'. left: what its
        forward pass left, where only its gradients are asked for.
        """
        each, node = self.shapes.nodes[n], self.shapes.graph.nodes[n]
        reduced = self.reduced.get(n)
        layer, bottom_borders, top_borders = reduced or ReducedLayer(node.layer, (), ())
        bottoms = [made.values[i].with_borders(bottom_borders) for i in node.bottoms]
        with blame(node.place, node.who):
            if channels_last is None:
                channels_last = computes_channels_last(node, bottoms)
            ctx = self._context(made, n, channels_last, left)
            held = _arrays(bottoms, self._stops(each, left), channels_last)
            if self.shapes.graph.data_dependent:
                _check_true_shapes(each, [ctx.shape(array) for array in held])
            arrays = made.valid_regions.surrounded(n, ctx, held) if made.valid_regions else held
            tops = layer.apply(ctx, *self.policy.bottoms(node, arrays))
        tops = self._cleared(made, n, ctx, tops if isinstance(tops, tuple) else (tops,))
        tops = self.policy.tops(node, held, tops)
        for i, top in zip(node.tops, tops, strict=True):
            made.values[i] = self._as_given(i, _hold(top, channels_last, top_borders))
        for name, array in ctx.updates.items():
            owner = each.keys[name]
            made.updates[owner] = array.reshape(self.shapes.params[owner].shape)
        for name, array in ctx.carried_on.items():
            made.updates[ParamKey(each.layer, name)] = jax.lax.stop_gradient(array)
        made.written.update((each.keys[name], array) for name, array in ctx.written.items())
        return ctx

    def _context(self, made: Run, n: int, channels_last: bool, left: Left | None) -> Context:
        each = self.shapes.nodes[n]
        return Context(
            # Of layers that share a statistic the later ones see what the earlier made of it.
            blobs=_blobs(each, self.params, made.updates),
            channels_last=channels_last,
            run_key=self.key,
            index=n,
            carried=_carried(each, self.params),
            wanted=each.wanted,
            valid_regions=made.valid_regions.of(each.node.bottoms) if made.valid_regions else (),
            left=left,
        )

    def _stops(self, each: NodeShapes[Shape], left: Left | None) -> Sequence[bool]:
        """Per bottom, whether no gradient goes to it."""
        # Users' own layers are asked only for those gradients that Caffe would compute.
        if (self.perturbations or left) and each.node.layer.traits.on_host:
            return [not wanted for wanted in each.wanted]
        return each.node.stops

    def _as_given(self, value: int, held: Held) -> Held:
        """A value as it was made, or as a replacement and a perturbation have it."""
        if value in self.replacements:
            computed = held.channels_first()
            held = Held(substitute(self.replacements[value].astype(computed.dtype), computed))
        if value in self.perturbations:
            first = held.channels_first()
            held = Held(first + self.perturbations[value].astype(first.dtype))
        return held

    def _cleared(
        self, made: Run, n: int, ctx: Context, tops: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        """Tops without the least floats outside their valid regions: later layers may sum them."""
        if (
            not made.valid_regions
            or PaddingValue.LEAST not in made.valid_regions.masked_shapes.padding_values[n]
        ):
            return tops
        return tuple(
            made.valid_regions.cleared(i, top, channels_last=ctx.channels_last)
            for i, top in zip(self.shapes.graph.nodes[n].tops, tops, strict=True)
        )


def computes_channels_last(node: Node, bottoms: Sequence[Held]) -> bool:
    """Whether a layer computes channels-last on these bottoms.

    XLA's CPU convolutions are 1.6 times faster so; tensor cores and TPUs want it too.
    """
    if node.layer.numerics.layout is MemoryLayout.EITHER:
        return bool(bottoms) and bottoms[0].last is not None
    return node.layer.numerics.layout is MemoryLayout.CHANNELS_LAST


def _check_true_shapes(each: NodeShapes[Shape], bottoms: Sequence[Shape]) -> None:
    """Raise LayerError unless a node can work on ``bottoms``, whose sizes depend on data.

    Shapes were inferred, and learned arrays made, for the sizes that the data would have if nothing
    were left out.
    """
    if tuple(bottoms) == each.bottoms:
        return
    each.node.layer.shape(*bottoms)
    for name, blob in each.node.layer.blobs(*bottoms).items():
        made = each.blobs[name].shape
        require(
            blob.shape == made,
            f"its {name} is {text(made)}, but bottoms of {', '.join(map(text, bottoms))} need "
            f"{text(blob.shape)}: their size depends on data",
        )


def _blobs(each: NodeShapes[Shape], params: Params, updates: Params) -> dict[str, Array]:
    """A node's learned arrays, in its own shapes: PERMISSIVE sharers may see others than owners."""
    return {
        name: updates.get(key, params[key]).reshape(blob.shape) for name, key, blob in each.learned
    }


def _carried(each: NodeShapes[Shape], params: Params) -> dict[str, Array]:
    """What the run before left for a node."""
    carried = {}
    for name, shape in each.carried.items():
        held = params.get(ParamKey(each.layer, name))
        carried[name] = (
            jnp.zeros(shape, jnp.float32) if held is None else jax.lax.stop_gradient(held)
        )
    return carried


def _arrays(bottoms: Sequence[Held], stops: Sequence[bool], channels_last: bool) -> list[Array]:
    arrays = [b.channels_last() if channels_last else b.channels_first() for b in bottoms]
    pairs = zip(arrays, stops, strict=True)
    return [jax.lax.stop_gradient(a) if stop else a for a, stop in pairs]


def _hold(top: Array, channels_last: bool, borders: Borders) -> Held:
    if channels_last and top.ndim >= 4:
        return Held(last=top, borders=borders)
    return Held(first=top, borders=borders)
