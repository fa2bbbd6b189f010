"""A compiled net with a blob for each of its values, and its forward and backward passes."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from netspec.caffe import passes
from netspec.caffe.blob import Blob, Blobs
from netspec.caffe.layer import LayerView
from netspec.caffe.layer_callbacks import LayerCallbacks
from netspec.caffe.passes import Nodes
from netspec.caffe.shared_blob import SharedBlob
from netspec.errors import blame, require
from netspec.frontend.graph import AUTOMATIC, Node
from netspec.frontend.refused_gradients import check_backward
from netspec.frontend.shapes import ParamKey, Shapes
from netspec.layers.base import Array, count, text
from netspec.proto.layers_pb2 import TRAIN
from netspec.runtime.backward import Residuals
from netspec.runtime.host_calls import runnable
from netspec.runtime.module import Net as Module
from netspec.runtime.sizes import use_programs
from netspec.runtime.values import Params, on_device
from netspec.solving.weight_sharing import share_variable, shared_arrays
from netspec.sources.feed import Feed


class Core(LayerCallbacks):
    """The blobs and passes of pycaffe's Net, without its names and conveniences.

    module: the compiled net, whose variables hold the learned arrays. feed: its data layers.
    blobs: name -> `Blob`. params: layer -> its learned blobs. layers: a `LayerView` each.
    """

    def __init__(self, module: Module, feed: Feed | None, seed: int) -> None:
        """seed: what random layers draw from."""
        super().__init__()
        self.module, self.feed = module, feed
        self._shapes = module.shapes
        self._key = jax.random.key(seed)
        if feed is not None:
            # A thread that the end of the process finds in a program would abort it.
            weakref.finalize(self, feed.close)
        graph = module.graph
        # Per layer, what the pass left in which it ran last; and by name, the value in a blob.
        self._residuals: list[Residuals | None] = [None] * len(graph.nodes)
        self._bound = dict(graph.first_blobs)
        self.blobs = Blobs(
            (name, Blob(self._shapes.values[i], made=name not in graph.fed))
            for name, i in graph.all_blobs.items()
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
        for term in graph.loss_terms:
            if term.is_own:
                self.blobs[graph.values[term.value].name].diff_mirror.fill(term.weight)

    def reshape(self) -> None:
        """Give every blob the shape that follows from the shapes of the fed ones.

        Raises LayerError where the net cannot have these.
        """
        self._shapes = self._fitting()
        use_programs(self.module.shapes, self._shapes)
        self._residuals = [None] * len(self._residuals)
        for name, i in self.module.graph.all_blobs.items():
            self.blobs[name].reshape(*self._shapes.values[i])

    def show(self, arrays: Mapping[str, Array]) -> None:
        """Make these the data of their blobs; blobs whose shapes depend on theirs are reshaped."""
        for name, array in arrays.items():
            self.blobs[name].hold(array)
        if self._fitting() is not self._shapes:
            self.reshape()

    def show_pass(self, made: Mapping[str, Array], began: Residuals | None) -> None:
        """Show what a pass of the whole net made elsewhere; backward then goes on from it.

        began: what the pass began with, if known: the state that layers carry, its random key, and
        the arrays that it was fed.
        """
        self.show(made)
        graph = self.module.graph
        self._bound.update(graph.all_blobs)
        self._residuals = [None] * len(self._residuals)
        if began is not None:
            values = {graph.all_blobs[name]: array for name, array in made.items()}
            values = {**self._made_on_host(), **values, **began.values}
            left = Residuals({**self._arrays(), **began.params}, began.key, values)
            self._residuals = [left] * len(self._residuals)

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
            share_variable(self.module, shared.mine, variable)

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
            self.show({name: on_device(array) for name, array in batch.items()})
        elif self._fitting() is not self._shapes:
            self.reshape()
        arrays, given, key = self._arrays(), self._given(nodes), self._run_key
        made = runnable(graph, passes.forward)(self._shapes, nodes, arrays, given, key)
        for i in sorted({*given, *made.values}):
            self._bound[graph.values[i].name] = i
        for i in set(self._bound.values()) & made.values.keys():
            self.blobs[graph.values[i].name].hold(made.values[i])
        self.module.assign(made.updates)
        for param in made.updates.keys() & self._param_blobs.keys():
            self._param_blobs[param].data_mirror.refresh()
        residuals = Residuals(arrays, key, {**given, **made.values})
        for n in range(nodes[0], nodes[1] + 1):
            self._residuals[n] = residuals
        loss: Array = made.loss
        return loss

    def _backward(self, last: int, first: int) -> None:
        """Propagate gradients from layer ``last`` down to ``first``, by index.

        Every blob's diff is set; learned blobs' diffs are added to, as Caffe's are. Raises
        LayerError for a layer that has no gradient.
        """
        check_backward(self._shapes, range(last, first - 1, -1))
        # The values that layers of this pass have given a diff already.
        reached: set[int] = set()
        for nodes in self._spans("backward", range(last, first - 1, -1)):
            self._call("before_backward", nodes)
            for part in passes.of_one_forward(nodes, self._residuals):
                self._backward_span(part, reached)
            self._call("after_backward", nodes)

    def _backward_span(self, nodes: Nodes, reached: set[int]) -> None:
        graph = self.module.graph
        span = graph.nodes[nodes[0] : nodes[1] + 1]
        tops = {i for node in span for i in node.tops}
        bottoms = {i for node in span for i in node.bottoms}
        arrays = self._arrays()
        seeds = self._diffs(tops - bottoms - reached)
        diffs, gradients = runnable(graph, passes.backward)(
            self._shapes,
            nodes,
            arrays,
            self._present(tops | bottoms),
            self._left(nodes, arrays),
            seeds,
            self._diffs(tops & reached),
        )
        again = {graph.values[i].name for i in (bottoms - tops) & reached}
        for name, diff in diffs.items():
            mirror = self.blobs[name].diff_mirror
            # A layer in place may have given its blob another shape of as many numbers.
            array = diff.reshape(mirror.shape) if diff.size == count(mirror.shape) else diff
            mirror.device = mirror.device + array if name in again else array
        reached |= bottoms
        for key, gradient in gradients.items():
            self._param_blobs[key].add_diff(gradient)

    def _diffs(self, values: set[int]) -> dict[int, Array]:
        """The diffs that the blobs of some values hold."""
        graph = self.module.graph
        named = {i: graph.values[i].name for i in values}
        # Of several automatic tops the last one alone has a blob.
        last = graph.all_blobs.get(AUTOMATIC)
        held = {
            i: self.blobs[name].diff_mirror.device
            for i, name in named.items()
            if name != AUTOMATIC or i == last
        }
        return {i: self._as_value(i, diff) for i, diff in held.items()}

    def _as_value(self, i: int, array: Array) -> Array:
        """An array of a blob in the shape of one of its values; layers in place may differ."""
        shape = self._shapes.values[i]
        return array.reshape(shape) if array.size == count(shape) else array

    def _present(self, values: set[int]) -> dict[int, Array]:
        """Those values that blobs hold, as they are now; others have been overwritten in place."""
        graph = self.module.graph
        arrays = {
            i: self.blobs[name].data_mirror.device
            for name, i in self._bound.items()
            if i in values and name != AUTOMATIC
        }
        fixed = not graph.data_dependent
        shapes = self._shapes.values
        return {i: a for i, a in arrays.items() if not fixed or a.shape == shapes[i]}

    def _left(self, nodes: Nodes, arrays: Params) -> Residuals:
        """What the forward pass of some layers left; if there was none, what blobs hold."""
        left = self._residuals[nodes[0]]
        graph = self.module.graph
        if left is None:
            made = {i: self.blobs[name].data_mirror.device for name, i in graph.blobs.items()}
            values = {**self._made_on_host(), **made, **self._given(nodes)}
            return Residuals(arrays, self._run_key, values)
        # A solver's step takes the memory of what it replaces.
        gone = [key for key, array in left.params.items() if array.is_deleted()]
        return left._replace(params={**left.params, **{key: arrays[key] for key in gone}})

    def _made_on_host(self) -> dict[int, Array]:
        """The blobs that layers on the host made: backward does not run these again."""
        graph = self.module.graph
        tops = [i for node in graph.on_host for i in node.tops]
        return {i: self.blobs[graph.values[i].name].data_mirror.device for i in tops}

    def _given(self, nodes: Nodes) -> dict[int, Array]:
        """The values that these layers read but do not make."""
        graph = self.module.graph
        span = graph.nodes[nodes[0] : nodes[1] + 1]
        made = {i for node in span if not node.layer.traits.is_source for i in node.tops}
        fed = {i for node in span if node.layer.traits.is_source for i in node.tops}
        needed = {i for node in span for i in node.bottoms} - made | fed
        for node in span:
            for i in needed.intersection(node.bottoms):
                self._check_bottom(node, i)
        arrays = {i: self.blobs[graph.values[i].name].data_mirror.device for i in needed}
        if graph.data_dependent:
            return arrays
        # A layer in place may have left the same numbers in another shape.
        return {i: array.reshape(self._shapes.values[i]) for i, array in arrays.items()}

    def _check_bottom(self, node: Node, value: int) -> None:
        """Raise LayerError where a blob is not as a layer reads it, e.g. after one in place."""
        name, shape = self.module.graph.values[value].name, self._shapes.values[value]
        now = self.blobs[name].shape
        with blame(node.place, node.who):
            require(
                count(now) == count(shape) or self.module.graph.data_dependent,
                f'its bottom "{name}" is {text(now)} now, but it reads {text(shape)}; '
                "run the layers below it first",
            )

    def _arrays(self) -> Params:
        return {**self.sync(), **self.module.carried_for(self._shapes)}

    @property
    def _run_key(self) -> Array | None:
        return self._key if self.module.graph.phase == TRAIN else None

    def _fitting(self) -> Shapes:
        """The shapes that follow from those of the fed blobs."""
        return self.module.shapes_for({n: self.blobs[n].shape for n in self.module.graph.fed})

    def _view(self, n: int) -> LayerView:
        node = self.module.graph.nodes[n]
        blobs = [
            owner
            if (owner := self._param_blobs[key]).shape == blob.shape
            # A PERMISSIVE sharer has the owner's numbers in its own shape.
            else SharedBlob(owner, blob.shape)
            for _, key, blob in self._shapes.nodes[n].learned
        ]
        return LayerView(node.type, blobs, lambda: self._user(node))

    def _user(self, node: Node) -> Any:
        """The user's object behind a layer written in Python, or None."""
        sources = self.feed.sources if self.feed is not None else {}
        holder = sources.get(node.name) if node.layer.traits.is_source else node.layer
        return getattr(holder, "user", None)
