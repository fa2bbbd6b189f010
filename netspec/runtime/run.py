"""A net as a pure function: arrays in, one array per value out.

The run holds images channels-last where the backend computes faster so; layers say which layouts
they take, and a blob is transposed only where two layers disagree. What goes in and comes out has
Caffe's layout, and is float32: see `netspec.runtime.compute_policy` for what lies between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from netspec.errors import blame
from netspec.frontend.graph import Graph, Node
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array, Context, Layout
from netspec.layers.lowering import windows
from netspec.layers.valid_region import PaddingValue
from netspec.runtime.border_reuse import Margins, Step, plan, put_back
from netspec.runtime.compute_policy import PLAIN, ComputePolicy, wide
from netspec.runtime.masked_shapes import ValidRegions, masked_shapes
from netspec.runtime.remat import segments

Params = Mapping[ParamKey, Array]
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


@jax.tree_util.register_dataclass
@dataclass
class Held:
    """An array in a run, in one layout or in both; margins: of which rows are left out."""

    first: Array | None = None
    last: Array | None = None
    margins: Margins = field(default=(), metadata={"static": True})

    @property
    def rank(self) -> int:
        """How many axes it has."""
        array = self.first if self.first is not None else self.last
        return array.ndim  # type: ignore[union-attr]

    def alone(self) -> Held:
        """The same in one layout only, that which costs nothing on the way to later layers."""
        if self.last is not None:
            return Held(last=self.last, margins=self.margins)
        return Held(first=self.first, margins=self.margins)

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

    def with_margins(self, wanted: Margins = ()) -> Held:
        """The same with as many of the rows that are left out as ``wanted`` has; all by default."""
        if self.margins == wanted:
            return self
        if self.last is not None:
            return Held(last=put_back(self.last, (1, 2), self.margins, wanted), margins=wanted)
        return Held(put_back(self.channels_first(), (2, 3), self.margins, wanted), margins=wanted)


@dataclass
class Run:
    """What a run made: ``values`` by the graph's value index, and what is to be kept.

    updates: new statistics and memory, by key. extents: how much of each array is its value, where
    that is not all.
    """

    shapes: Shapes
    valid_regions: ValidRegions | None = None
    values: dict[int, Held] = field(default_factory=dict)
    updates: dict[ParamKey, Array] = field(default_factory=dict)

    def value(self, index: int, fill: float | None = None) -> Array:
        """A value in Caffe's layout, with ``fill``, if given, where its array is larger."""
        array = wide(self.values[index].with_margins().channels_first())
        if self.valid_regions is None or fill is None:
            return array
        return self.valid_regions.cleared(index, array, fill)

    def blobs(self) -> dict[str, Array]:
        """Blob name -> its last binding, in Caffe's layout."""
        blobs = self.shapes.graph.blobs
        return {name: self.value(i) for name, i in blobs.items() if i in self.values}

    def loss(self) -> Array:
        """The sum of all tops with a loss weight, each times its weight."""
        terms = [
            weight * jnp.sum(self.value(i, fill=0.0))
            for i, weight in self.shapes.graph.losses
            if i in self.values
        ]
        return sum(terms, start=jnp.zeros((), jnp.float32))


def run(
    shapes: Shapes,
    params: Params,
    given: Mapping[int, Array | Held],
    key: Array | None = None,
    nodes: Iterable[int] | None = None,
    perturbations: Mapping[int, Array] | None = None,
    instead: Mapping[int, Array] | None = None,
    sizes: Array | None = None,
    policy: ComputePolicy = PLAIN,
) -> Run:
    """Run a net, or some of its layers.

    params: every learned array, shared ones once, and the layers' memory (zeros where it is not
    there). given: arrays of the values that the run starts from (fed blobs; for a partial run,
    what earlier layers made, perhaps as they hold it). key: for layers that draw random numbers.
    nodes: which layers to run, in order; all by default. Some alone compute all of their pixels, as
    do those that are given perturbations: see `netspec.runtime.border_reuse`. perturbations: arrays
    added to the values of these indices as they are made, so that gradients with respect to one are
    gradients with respect to the value; users' own layers are still asked only for those gradients
    that Caffe would compute. instead: arrays that stand in for the values of these indices;
    gradients go through to what was computed there. sizes: the true sizes of values in arrays that
    may be larger, as `MaskedShapes.sizes` gives them. policy: whole nets alone, and
    those without perturbations, are computed in segments.
    """
    perturbations, instead = perturbations or {}, instead or {}
    made = Run(shapes, None if sizes is None else ValidRegions(masked_shapes(shapes), sizes))
    for i, array in given.items():
        held = array if isinstance(array, Held) else Held(array)
        made.values[i] = (
            Held(held.channels_first() + perturbations[i]) if i in perturbations else held
        )
    nudged = bool(perturbations) or bool(instead)
    wanted = range(len(shapes.graph.nodes)) if nodes is None else tuple(nodes)
    # Where a margin ends in an array that is larger than its value hangs on the value's size.
    steps = {} if nudged or sizes is not None else plan(shapes)
    steps = steps if steps.keys() <= set(wanted) else {}
    one = _Pass(shapes, params, key, perturbations, instead, policy, steps)
    with policy.products():
        if nodes is not None or nudged or not policy.remat:
            one.run(made, wanted)
            return made
        for segment in segments(shapes, policy.blob_bytes):
            (one.run_again if segment.again else one.run)(made, segment.nodes)
    return made


@dataclass(frozen=True)
class _Pass:
    """What all layers of a run compute with: see `run`."""

    shapes: Shapes
    params: Params
    key: Array | None
    perturbations: Mapping[int, Array]
    instead: Mapping[int, Array]
    policy: ComputePolicy
    steps: Mapping[int, Step]

    def run(self, made: Run, nodes: Iterable[int]) -> None:
        """Add to a run what some layers make."""
        for n in self._computing(nodes):
            self._node(made, n)

    def run_again(self, made: Run, nodes: Sequence[int]) -> None:
        """The same for a stage: what it makes is not kept for the way back but made once more."""
        graph, nodes = self.shapes.graph, self._computing(nodes)
        read = {i for n in nodes for i in graph.nodes[n].bottoms if i in made.values}
        live = {i: made.values[i].alone() for i in read}
        keys = {key for n in nodes for key in self.shapes.nodes[n].keys.values()}
        mine = {key: made.updates.get(key, self.params[key]) for key in keys}
        later = [i for n in nodes for i in graph.nodes[n].tops if self._is_read(i, nodes)]

        def compute(
            live: dict[int, Held], mine: dict[ParamKey, Array]
        ) -> tuple[dict[int, Held], dict[ParamKey, Array]]:
            # What is kept for the way back must not be given another layout here.
            part = Run(
                self.shapes, made.valid_regions, {i: held.alone() for i, held in live.items()}
            )
            replace(self, params={**self.params, **mine}).run(part, nodes)
            return {i: part.values[i].alone() for i in later}, part.updates

        values, updates = windows.rematerialised(compute)(live, mine)
        made.values.update(values)
        made.updates.update(updates)

    def _computing(self, nodes: Iterable[int]) -> list[int]:
        return [n for n in nodes if not self.shapes.graph.nodes[n].layer.is_source]

    def _is_read(self, value: int, nodes: Sequence[int]) -> bool:
        """Whether others than these nodes read a value, or the net hands it out or sums it up."""
        graph = self.shapes.graph
        readers = graph.readers[value]
        summed = value in (i for i, _ in graph.losses)
        return summed or not readers or any(n not in nodes for n in readers)

    def _node(self, made: Run, n: int) -> None:
        node = self.shapes.graph.nodes[n]
        step = self.steps.get(n)
        layer = step.layer if step else node.layer
        bottoms = [made.values[i].with_margins(step.bottom if step else ()) for i in node.bottoms]
        wanted = self.shapes.nodes[n].wanted
        stops = [not w for w in wanted] if self.perturbations and node.layer.on_host else node.stops
        with blame(node.place, node.who):
            ctx = Context(
                # Of layers that share a statistic the later ones see what the earlier made of it.
                blobs=_blobs(self.shapes, n, self.params, made.updates),
                channels_last=_channels_last(node, bottoms),
                run_key=self.key,
                index=n,
                carried=_carried(self.shapes, n, self.params),
                wanted=wanted,
                valid_regions=made.valid_regions.of(node.bottoms) if made.valid_regions else (),
            )
            held = _arrays(bottoms, stops, ctx.channels_last)
            arrays = made.valid_regions.surrounded(n, ctx, held) if made.valid_regions else held
            tops = layer.apply(ctx, *self.policy.bottoms(node, arrays))
        tops = self._cleared(made, n, ctx, tops if isinstance(tops, tuple) else (tops,))
        tops = self.policy.tops(node, held, tops)
        for i, top in zip(node.tops, tops, strict=True):
            made.values[i] = _hold(top, ctx.channels_last, step.top if step else ())
            if i in self.instead:
                computed = made.values[i].channels_first()
                passing = computed - jax.lax.stop_gradient(computed)
                made.values[i] = Held(self.instead[i].astype(computed.dtype) + passing)
            if i in self.perturbations:
                first = made.values[i].channels_first()
                made.values[i] = Held(first + self.perturbations[i].astype(first.dtype))
        for name, array in ctx.updates.items():
            owner = self.shapes.nodes[n].keys[name]
            made.updates[owner] = array.reshape(self.shapes.params[owner].shape)
        for name, array in ctx.carried_on.items():
            made.updates[ParamKey(node.name, name)] = jax.lax.stop_gradient(array)

    def _cleared(
        self, made: Run, n: int, ctx: Context, tops: tuple[Array, ...]
    ) -> tuple[Array, ...]:
        """Tops without the least floats beyond them, which a later layer would sum up."""
        if (
            not made.valid_regions
            or PaddingValue.LEAST not in made.valid_regions.masked_shapes.padding_values[n]
        ):
            return tops
        return tuple(
            made.valid_regions.cleared(i, top, channels_last=ctx.channels_last)
            for i, top in zip(self.shapes.graph.nodes[n].tops, tops, strict=True)
        )


def runnable(graph: Graph, compiled: AnyFunction) -> AnyFunction:
    """``compiled`` as a net can run it: the plain function in it where it cannot be compiled.

    What a layer on the host raises arrives as its own error, with its place.
    """
    function = compiled.__wrapped__ if graph.data_dependent else compiled  # type: ignore[attr-defined]
    if not graph.on_host:
        return function

    def settled(*args: Any) -> Any:
        for node in graph.on_host:
            node.layer.failure = None
        try:
            return jax.block_until_ready(function(*args))
        except Exception as error:
            for node in graph.on_host:
                if node.layer.failure is not None:
                    with blame(node.place, node.who):
                        raise node.layer.failure from error
            raise

    return settled  # type: ignore[return-value]


def _blobs(shapes: Shapes, n: int, params: Params, updates: Params) -> dict[str, Array]:
    """A node's learned arrays, in its own shapes: PERMISSIVE sharers may see others than owners."""
    return {
        name: updates.get(key, params[key]).reshape(blob.shape)
        for name, key, blob in shapes.nodes[n].learned
    }


def _carried(shapes: Shapes, n: int, params: Params) -> dict[str, Array]:
    """What the run before left for a node."""
    memory = {}
    for name, shape in shapes.nodes[n].carried.items():
        held = params.get(ParamKey(shapes.graph.nodes[n].name, name))
        memory[name] = (
            jnp.zeros(shape, jnp.float32) if held is None else jax.lax.stop_gradient(held)
        )
    return memory


def _channels_last(node: Node, bottoms: list[Held]) -> bool:
    """Whether a layer computes channels-last in this run."""
    if node.layer.layout is Layout.CHANNELS_LAST:
        return windows.channels_last(jax.default_backend())
    if node.layer.layout is Layout.EITHER:
        return bool(bottoms) and bottoms[0].last is not None
    return False


def _arrays(bottoms: list[Held], stops: Sequence[bool], channels_last: bool) -> list[Array]:
    arrays = [b.channels_last() if channels_last else b.channels_first() for b in bottoms]
    pairs = zip(arrays, stops, strict=True)
    return [jax.lax.stop_gradient(a) if stop else a for a, stop in pairs]


def _hold(top: Array, channels_last: bool, margins: Margins) -> Held:
    if channels_last and top.ndim >= 4:
        return Held(last=top, margins=margins)
    return Held(first=top, margins=margins)
