"""pycaffe's Net, over the compiled one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from netspec import build
from netspec.caffe.blob import Blob
from netspec.errors import SourceError, blame, require
from netspec.graph import AUTOMATIC
from netspec.layers.base import Array, Shape
from netspec.module import Net as Module
from netspec.phase import state_of
from netspec.proto.layers_pb2 import TEST, TRAIN
from netspec.prototxt import read_net
from netspec.runner import Params, run, runnable
from netspec.shapes import ParamKey, Shapes
from netspec.sources.feed import Feed
from netspec.sources.memory import MemoryData
from netspec.weights import copy_into, read_weights, write_weights

Nodes = tuple[int, int]


class LayerView:
    """One of ``net.layers``: its type and its learned blobs."""

    def __init__(self, layer_type: str, blobs: Sequence[Blob]) -> None:
        self.type = layer_type
        self.blobs = list(blobs)


class Net:
    """A net as pycaffe shows it: ``blobs``, ``params``, ``forward``, ``backward``, ``reshape``.

    ``Net(prototxt, phase)`` or ``Net(prototxt, weights, phase)``; ``level`` and ``stages`` choose
    layers as in Caffe.
    """

    def __init__(
        self,
        network_file: str,
        *args: Any,
        phase: int | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | None = None,
    ) -> None:
        if len(args) == 2:
            weights, phase = args
        elif args:
            (phase,) = args
        if phase not in (TRAIN, TEST):
            raise TypeError("Net needs a phase: caffe.TRAIN or caffe.TEST")
        text = read_net(network_file)
        state = state_of(text, TRAIN if phase == TRAIN else TEST, level, stages or ())
        graph = build.graph_of(text, state)
        feed = Feed(graph) if len(graph.inputs) < len(graph.fed) else None
        self._start(build.compile_net(graph, feed.tops if feed else None), feed)
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def of(cls, module: Module, feed: Feed | None) -> Net:
        """The pycaffe face of a compiled net."""
        net = cls.__new__(cls)
        net._start(module, feed)
        return net

    def _start(self, module: Module, feed: Feed | None) -> None:
        self.module, self.feed = module, feed
        self._shapes = module.shapes
        self._key = jax.random.key(np.random.randint(1 << 31))
        # What the last forward changed, as it was before: backward starts from there, too.
        self._before: dict[ParamKey, Array] = {}
        graph = module.graph
        self.blobs: OrderedDict[str, Blob] = OrderedDict(
            (name, Blob(shape)) for name, shape in self._shapes.by_name.items()
        )
        by_key = {key: _param_blob(module, key) for key in self._shapes.params}
        self._param_blobs = by_key
        self.params: OrderedDict[str, list[Blob]] = OrderedDict(
            (node.name, [by_key[key] for key in keys.values()])
            for node, keys in zip(graph.nodes, self._shapes.keys, strict=True)
            if keys
        )
        self._layer_names = [node.name for node in graph.nodes]
        self.layers = [
            LayerView(node.type, [by_key[key] for key in keys.values()])
            for node, keys in zip(graph.nodes, self._shapes.keys, strict=True)
        ]
        for i, weight in graph.losses:
            if graph.values[i].name != AUTOMATIC:
                self.blobs[graph.values[i].name].diff[...] = weight

    @property
    def inputs(self) -> list[str]:
        """Names of the blobs that Input layers make."""
        return list(self.module.graph.inputs)

    @property
    def outputs(self) -> list[str]:
        """Names of the blobs that no layer reads."""
        return list(self.module.graph.outputs)

    def forward(
        self,
        blobs: Iterable[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: Any,
    ) -> dict[str, np.ndarray]:
        """Run layers ``start`` to ``end``; returns the outputs, or ``end``'s tops, and ``blobs``.

        kwargs: arrays for input blobs, by name.
        """
        first, last = self._range(start, end)
        wanted = set(self.module.graph.nodes[last].layer.spec.top if end else self.outputs)
        for name, array in kwargs.items():
            if name not in self.inputs:
                raise ValueError(f'no input blob "{name}"; the net has {", ".join(self.inputs)}')
            self.blobs[name].data[...] = array
        self._forward(first, last)
        return {name: self.blobs[name].data for name in [*wanted, *(blobs or ())]}

    def backward(
        self,
        diffs: Iterable[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: Any,
    ) -> dict[str, np.ndarray]:
        """Run gradients from layer ``start`` back to ``end``; returns the inputs' diffs.

        kwargs: diffs for output blobs, by name.
        """
        last, first = self._range(end, start)[::-1]
        wanted = set(self.module.graph.nodes[first].layer.spec.bottom if end else self.inputs)
        for name, array in kwargs.items():
            self.blobs[name].diff[...] = array
        self._backward(last, first)
        return {name: self.blobs[name].diff for name in [*wanted, *(diffs or ())]}

    def reshape(self) -> None:
        """Give every blob the shape that follows from the inputs' present ones."""
        self._shapes = self.module.shapes_for(self._fed_shapes())
        for name, shape in self._shapes.by_name.items():
            self.blobs[name].reshape(*shape)

    def set_input_arrays(self, data: Any, labels: Any) -> None:
        """Feed these from now on, where the first layer is a MemoryData.

        data: (n, C, H, W); labels: (n) or (n, 1, 1, 1). Raises SourceError.
        """
        first = self.module.graph.nodes[0]
        source = self.feed.sources.get(first.name) if self.feed is not None else None
        with blame(first.place, first.who):
            require(
                isinstance(source, MemoryData),
                "set_input_arrays feeds a net whose first layer is a MemoryData",
                SourceError,
            )
        source.set_arrays(data, labels)  # type: ignore[union-attr]

    def show(self, arrays: Mapping[str, Array]) -> None:
        """Make these the data of their blobs; what hangs on their shapes is reshaped."""
        for name, array in arrays.items():
            self.blobs[name].data_mirror.device = array
        self.reshape()

    def copy_from(self, weights: str) -> None:
        """Set learned arrays from a .caffemodel or .h5, by layer name."""
        copy_into(self.module, read_weights(weights))

    def save(self, path: str) -> None:
        """Write a .caffemodel."""
        self._sync()
        write_weights(Path(path), self._shapes, self.module.arrays())

    def _range(self, first: str | None, last: str | None) -> Nodes:
        nodes = self.module.graph.nodes
        return (
            nodes.index(self.module.graph.node(first)) if first else 0,
            nodes.index(self.module.graph.node(last)) if last else len(nodes) - 1,
        )

    def _fed_shapes(self) -> dict[str, Shape]:
        return {name: self.blobs[name].shape for name in self.module.graph.fed}

    def _sync(self) -> Params:
        return {key: blob.data_mirror.device for key, blob in self._param_blobs.items()}

    def _arrays(self) -> Params:
        return {**self._sync(), **self.module.memory_for(self._shapes)}

    def _forward(self, first: int, last: int) -> float:
        """Run layers by index; returns the loss."""
        graph = self.module.graph
        batch = self.feed.next(self._shapes) if self.feed is not None and first == 0 else {}
        self.show({name: jnp.asarray(array) for name, array in batch.items()})
        self._key = jax.random.fold_in(self._key, 1)
        key = self._key if graph.phase == TRAIN else None
        arrays = self._arrays()
        made, updates, loss = runnable(graph, _forward)(
            self._shapes, (first, last), arrays, self._given(first, last), key
        )
        for name, array in made.items():
            self.blobs[name].hold(array)
        self.module.assign(updates)
        self._before |= {param: arrays[param] for param in updates}
        return float(loss)

    def _backward(self, last: int, first: int) -> None:
        """Gradients of layers ``last`` down to ``first``, by index.

        Every blob's diff is set; learned blobs' diffs are added to, as Caffe's are.
        """
        graph = self.module.graph
        tops = {i for node in graph.nodes[first : last + 1] for i in node.tops}
        read = {i for node in graph.nodes[first : last + 1] for i in node.bottoms}
        seeds = {
            i: self.blobs[graph.values[i].name].diff_mirror.device
            for i in tops - read
            if graph.values[i].name != AUTOMATIC
        }
        key = self._key if graph.phase == TRAIN else None
        arrays = dict(self._arrays())
        for param, array in self._before.items():
            if array.shape == arrays[param].shape:
                arrays[param] = array
        diffs, gradients = runnable(graph, _backward)(
            self._shapes, (first, last), arrays, self._given(first, last), seeds, key
        )
        for name, array in diffs.items():
            self.blobs[name].diff_mirror.device = array
        specs = self._shapes.param_specs
        for param, spec in specs.items():
            if spec.lr_mult or graph.force_backward:
                mirror = self._param_blobs[param].diff_mirror
                mirror.device = mirror.device + gradients[param]

    def _given(self, first: int, last: int) -> dict[int, Array]:
        """The values that these layers read but do not make."""
        graph = self.module.graph
        nodes = graph.nodes[first : last + 1]
        made = {i for node in nodes if not node.layer.is_source for i in node.tops}
        fed = {i for node in nodes if node.layer.is_source for i in node.tops}
        needed = {i for node in nodes for i in node.bottoms} - made | fed
        return {i: self.blobs[graph.values[i].name].data_mirror.device for i in needed}


def _param_blob(module: Module, key: ParamKey) -> Blob:
    variable = module.params[key.layer][key.blob]
    shape = module.shapes.params[key].shape
    return Blob(shape, lambda: variable[...], variable.set_value)


@partial(jax.jit, static_argnums=(0, 1))
def _forward(
    shapes: Shapes, nodes: Nodes, params: Params, given: Mapping[int, Array], key: Array | None
) -> tuple[dict[str, Array], dict[ParamKey, Array], Array]:
    made = run(shapes, params, given, key, range(nodes[0], nodes[1] + 1))
    last = {
        shapes.graph.values[i].name: i
        for i in sorted(made.values)
        if i not in given and shapes.graph.values[i].name != AUTOMATIC
    }
    return {name: made.value(i) for name, i in last.items()}, made.updates, made.loss()


@partial(jax.jit, static_argnums=(0, 1))
def _backward(
    shapes: Shapes,
    nodes: Nodes,
    params: Params,
    given: Mapping[int, Array],
    seeds: Mapping[int, Array],
    key: Array | None,
) -> tuple[dict[str, Array], dict[ParamKey, Array]]:
    graph = shapes.graph
    # Layers without tops have no gradient, and what they write has been written by the forward.
    span = [n for n in range(nodes[0], nodes[1] + 1) if graph.nodes[n].tops]
    # In-place layers write their bottom's diff over their top's: the first binding's is left.
    first: dict[str, int] = {}
    for i in sorted({*given, *(top for n in span for top in graph.nodes[n].tops)}):
        first.setdefault(graph.values[i].name, i)
    first.pop(AUTOMATIC, None)
    if graph.data_dependent:
        seen = run(shapes, params, given, key, span)
        nudges = {i: jnp.zeros_like(seen.value(i)) for i in first.values()}
    else:
        nudges = {i: jnp.zeros(shapes.values[i], jnp.float32) for i in first.values()}

    def objective(params: Params, nudges: Mapping[int, Array]) -> Array:
        made = run(shapes, params, given, key, span, nudges)
        # What no loss depends on takes part only where `force_backward` asks for it.
        terms = [
            jnp.vdot(seed, made.value(i))
            for i, seed in seeds.items()
            if graph.force_backward or graph.values[i].producer in graph.under_loss
        ]
        # A loss that a layer reads on has its weight besides what comes back from there.
        terms += [
            weight * jnp.sum(made.value(i))
            for i, weight in graph.losses
            if i in made.values and i not in seeds
        ]
        return sum(terms, start=jnp.zeros((), jnp.float32))

    gradients, diffs = jax.grad(objective, argnums=(0, 1))(dict(params), nudges)
    # The diff of an output is what the backward started from.
    shown = {name: seeds[i] if i in seeds else diffs[i] for name, i in first.items()}
    return shown, gradients
