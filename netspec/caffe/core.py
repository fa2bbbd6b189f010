"""A compiled net with a blob for each of its values, and its forward and backward passes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from netspec.caffe import passes
from netspec.caffe.blob import Blob, Blobs
from netspec.caffe.layer import LayerView
from netspec.caffe.passes import Nodes
from netspec.frontend.graph import AUTOMATIC, Node
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array
from netspec.proto.layers_pb2 import TRAIN
from netspec.runtime.host_calls import runnable
from netspec.runtime.module import Net as Module
from netspec.runtime.sizes import use_programs
from netspec.runtime.values import Params
from netspec.solving.weight_sharing import shared_arrays
from netspec.sources.feed import Feed

# What is called with a layer's index, beside its pass.
Callback = Callable[[int], Any]


class Core:
    """The blobs and passes of pycaffe's Net, without its names and conveniences.

    module: the compiled net, whose variables hold the learned arrays. feed: its data layers.
    blobs: name -> `Blob`. params: layer -> its learned blobs. layers: a `LayerView` each.
    """

    def __init__(self, module: Module, feed: Feed | None, seed: int) -> None:
        """seed: what random layers draw from."""
        self.module, self.feed = module, feed
        self._shapes = module.shapes
        self._key = jax.random.key(seed)
        # What the last forward changed, as it was before: backward starts from there.
        self._before: dict[ParamKey, Array] = {}
        self._callbacks: dict[str, list[Callback]] = {}
        if feed is not None:
            # A thread that the end of the process finds in a program would abort it.
            weakref.finalize(self, feed.close)
        graph = module.graph
        self.blobs = Blobs(
            (name, Blob(shape, made=name not in graph.fed))
            for name, shape in self._shapes.by_name.items()
        )
        self._param_blobs = {
            key: Blob(blob.shape, learned=module.params[key.layer][key.blob])
            for key, blob in self._shapes.params.items()
        }
        self.layers = [self._view(n) for n in range(len(graph.nodes))]
        self._layer_names = [node.name for node in graph.nodes]
        pairs = zip(self._layer_names, self.layers, strict=True)
        # Of several layers of one name the last, as in Caffe.
        self.params = Blobs({name: layer.blobs for name, layer in pairs if layer.blobs})
        for i, weight in graph.losses:
            if graph.values[i].name != AUTOMATIC:
                self.blobs[graph.values[i].name].diff_mirror.fill(weight)

    def reshape(self) -> None:
        """Give every blob the shape that follows from the shapes of the fed ones.

        Raises LayerError where the net cannot have these.
        """
        self._shapes = self._fitting()
        use_programs(self.module.shapes, self._shapes)
        for name, shape in self._shapes.by_name.items():
            self.blobs[name].reshape(*shape)

    def show(self, arrays: Mapping[str, Array]) -> None:
        """Make these the data of their blobs; blobs whose shapes depend on theirs are reshaped."""
        for name, array in arrays.items():
            self.blobs[name].hold(array)
        if self._fitting() is not self._shapes:
            self.reshape()

    def sync(self) -> Params:
        """Bring what was written into views of learned arrays to the module; gives the arrays."""
        return {key: blob.data_mirror.device for key, blob in self._param_blobs.items()}

    def refresh(self) -> None:
        """Show the module's arrays to those who hold views of them."""
        for blob in self._param_blobs.values():
            blob.data_mirror.refresh()

    def show_diffs(self, diffs: Mapping[ParamKey, Array]) -> None:
        """Make these the diffs of learned blobs."""
        for key, diff in diffs.items():
            self._param_blobs[key].diff_mirror.device = diff

    def show_steps(self, steps: Mapping[ParamKey, Array]) -> None:
        """Set the diffs of learned blobs to minus what an update added, as Caffe does."""
        for key, blob in self._param_blobs.items():
            if key in steps:
                blob.promise_diff(partial(jnp.negative, steps[key]))
            else:
                blob.clear_diff()

    def param_diffs(self) -> dict[ParamKey, Array]:
        """The diffs of all learned blobs."""
        return {key: blob.diff_mirror.device for key, blob in self._param_blobs.items()}

    def clear_param_diffs(self) -> None:
        """Set the diffs of all learned blobs to zero."""
        for blob in self._param_blobs.values():
            blob.clear_diff()

    def share_with(self, other: Core) -> None:
        """Share the memory of another net's learned arrays, by layer name, from now on.

        Raises LayerError where shapes differ. Caffe: ``ShareTrainedLayersWith``.
        """
        for shared in shared_arrays(self._shapes, other._shapes):
            theirs = shared.theirs
            self._param_blobs[shared.mine].data_mirror = other._param_blobs[theirs].data_mirror
            variable = other.module.params[theirs.layer][theirs.blob]
            self.module.params[shared.layer].share(shared.blob, variable)

    def before_forward(self, run: Callback) -> None:
        """Call ``run`` with each layer's index before its forward; layers then run one by one."""
        self._callbacks.setdefault("before_forward", []).append(run)

    def after_forward(self, run: Callback) -> None:
        """Call ``run`` with each layer's index after its forward."""
        self._callbacks.setdefault("after_forward", []).append(run)

    def before_backward(self, run: Callback) -> None:
        """Call ``run`` with each layer's index before its backward."""
        self._callbacks.setdefault("before_backward", []).append(run)

    def after_backward(self, run: Callback) -> None:
        """Call ``run`` with each layer's index after its backward."""
        self._callbacks.setdefault("after_backward", []).append(run)

    def _forward(self, first: int, last: int) -> float:
        """Run layers by index; returns the loss."""
        return float(sum(self._run(first, last)))

    def _run(self, first: int, last: int) -> list[Array]:
        """Run layers by index, without waiting for the device; returns the parts of the loss."""
        graph = self.module.graph
        if graph.phase == TRAIN:
            self._key = jax.random.fold_in(self._key, 1)
        losses = []
        for nodes in self._spans("forward", range(first, last + 1)):
            self._call("before_forward", nodes)
            losses.append(self._run_span(nodes))
            self._call("after_forward", nodes)
        return losses

    def _run_span(self, nodes: Nodes) -> Array:
        graph = self.module.graph
        if self.feed is not None and nodes[0] == 0:
            batch = self.feed.next(self._shapes)
            self.show({name: jnp.asarray(array) for name, array in batch.items()})
        elif self._fitting() is not self._shapes:
            self.reshape()
        arrays = self._arrays()
        made = runnable(graph, passes.forward)(
            self._shapes, nodes, arrays, self._given(nodes), self._run_key
        )
        for name, array in made.blobs.items():
            self.blobs[name].hold(array)
        self.module.assign(made.updates)
        for key in made.updates.keys() & self._param_blobs.keys():
            self._param_blobs[key].data_mirror.refresh()
        self._before |= {param: arrays[param] for param in made.updates}
        loss: Array = made.loss
        return loss

    def _backward(self, last: int, first: int) -> None:
        """Propagate gradients from layer ``last`` down to ``first``, by index.

        Every blob's diff is set; learned blobs' diffs are added to, as Caffe's are.
        """
        # The values that layers of this pass have given a diff already.
        reached: set[int] = set()
        for nodes in self._spans("backward", range(last, first - 1, -1)):
            self._call("before_backward", nodes)
            self._backward_span(nodes, reached)
            self._call("after_backward", nodes)

    def _backward_span(self, nodes: Nodes, reached: set[int]) -> None:
        graph = self.module.graph
        span = graph.nodes[nodes[0] : nodes[1] + 1]
        tops = {i for node in span for i in node.tops}
        bottoms = {i for node in span for i in node.bottoms}
        given = self._given(nodes)
        arrays = dict(self._arrays())
        for param, array in self._before.items():
            if array.shape == arrays[param].shape:
                arrays[param] = array
        diffs, gradients = runnable(graph, passes.backward)(
            self._shapes,
            nodes,
            arrays,
            given,
            self._edited(tops),
            self._seeds(tops - bottoms),
            self._run_key,
        )
        again = {graph.values[i].name for i in bottoms & reached}
        for name, array in diffs.items():
            mirror = self.blobs[name].diff_mirror
            mirror.device = mirror.device + array if name in again else array
        reached |= bottoms
        for key, gradient in gradients.items():
            self._param_blobs[key].add_diff(gradient)

    def _seeds(self, values: set[int]) -> dict[int, Array]:
        """The diffs from which a backward pass starts."""
        named = {i: self.module.graph.values[i].name for i in values}
        return {
            i: self.blobs[name].diff_mirror.device for i, name in named.items() if name != AUTOMATIC
        }

    def _edited(self, values: set[int]) -> dict[int, Array]:
        """What was written into blobs that layers had made: backward starts from that."""
        graph = self.module.graph
        return {
            i: self.blobs[name].data_mirror.device
            for name, i in graph.blobs.items()
            if i in values and name not in graph.fed and self.blobs[name].data_mirror.edited
        }

    def _given(self, nodes: Nodes) -> dict[int, Array]:
        """The values that these layers read but do not make."""
        graph = self.module.graph
        span = graph.nodes[nodes[0] : nodes[1] + 1]
        made = {i for node in span if not node.layer.traits.is_source for i in node.tops}
        fed = {i for node in span if node.layer.traits.is_source for i in node.tops}
        needed = {i for node in span for i in node.bottoms} - made | fed
        return {i: self.blobs[graph.values[i].name].data_mirror.device for i in needed}

    def _arrays(self) -> Params:
        return {**self.sync(), **self.module.carried_for(self._shapes)}

    @property
    def _run_key(self) -> Array | None:
        return self._key if self.module.graph.phase == TRAIN else None

    def _spans(self, way: str, nodes: range) -> list[Nodes]:
        """The parts in which a pass runs: one, or one a layer where there are callbacks."""
        if any(name.endswith(way) for name in self._callbacks):
            return [(n, n) for n in nodes]
        return [(min(nodes), max(nodes))] if nodes else []

    def _fitting(self) -> Shapes:
        """The shapes that follow from those of the fed blobs."""
        return self.module.shapes_for({n: self.blobs[n].shape for n in self.module.graph.fed})

    def _call(self, when: str, nodes: Nodes) -> None:
        for run in self._callbacks.get(when, ()):
            run(nodes[0])

    def _view(self, n: int) -> LayerView:
        node = self.module.graph.nodes[n]
        blobs = [self._param_blobs[key] for key in self._shapes.nodes[n].keys.values()]
        return LayerView(node.type, blobs, lambda: self._user(node))

    def _user(self, node: Node) -> Any:
        """The user's object behind a layer written in Python, or None."""
        sources = self.feed.sources if self.feed is not None else {}
        holder = sources.get(node.name) if node.layer.traits.is_source else node.layer
        return getattr(holder, "user", None)
