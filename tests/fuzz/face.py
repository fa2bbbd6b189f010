"""All that the fuzzer asks of netspec's own modules, in one place.

The rest of the fuzzer knows arrays by blob name or by these handles alone.
"""

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import netspec
from netspec.frontend.graph import Graph, Node, connect
from netspec.frontend.phase import phase_of, select, state_of
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import ParamKey, Shapes, infer
from netspec.frontend.upgrade import upgrade
from netspec.layers import REGISTRY, Layer
from netspec.runtime.run import run
from netspec.runtime.size_buckets import SizeBuckets

from .drafts import Draft, Shape

Values = Mapping[int, Any]


def host_types() -> set[str]:
    """The layer types that read files or call the user's Python, Input among them."""
    traits = ((name, kind.traits) for name, kind in REGISTRY.items())
    return {name for name, has in traits if has.is_source or has.on_host}


def learns(layer_type: str) -> bool:
    """Whether layers of a type may have learned arrays."""
    return REGISTRY[layer_type].blobs is not Layer.blobs


def shapes_of(draft: Draft) -> dict[str, Shape]:
    """The shape of each blob of a draft; raises NetSpecError where it is refused."""
    graph = graph_of(draft.text(), draft.phase)
    return infer(graph).by_name


def graph_of(text: str, phase: str, file: str = "net") -> Graph:
    """The connected layers of a prototxt."""
    net = parse_net(text, file)
    return connect(select(upgrade(net), state_of(net, phase_of(phase))))


class Face:
    """A net from its prototxt, as the checks use it; raises NetSpecError where it is refused."""

    def __init__(self, path: Path, phase: str) -> None:
        self.net = netspec.load(path, phase=phase)
        self.shapes: Shapes = self.net.shapes
        self.graph: Graph = self.net.graph

    @cached_property
    def computing(self) -> list[int]:
        """The nodes that are not fed from outside."""
        nodes = enumerate(self.graph.nodes)
        return [n for n, node in nodes if not node.layer.traits.is_source]

    def is_loss(self, value: int) -> bool:
        """Whether a loss layer makes a value."""
        return self.graph.nodes[self.graph.values[value].producer].layer.traits.is_loss

    @cached_property
    def keys(self) -> list[list[ParamKey]]:
        """Per node, the arrays that stand behind its learned blobs."""
        return [list(each.keys.values()) for each in self.shapes.nodes]

    @cached_property
    def learned(self) -> dict[ParamKey, bool]:
        """Every learned array; False for statistics."""
        return {key: blob.learned for key, blob in self.shapes.params.items()}

    @cached_property
    def param_shapes(self) -> dict[ParamKey, Shape]:
        """The shape of every learned array."""
        return {key: blob.shape for key, blob in self.shapes.params.items()}

    def blob_shapes(self, n: int) -> list[Shape]:
        """The shapes of a node's learned blobs, as it sees them itself."""
        return [blob.shape for blob in self.shapes.nodes[n].blobs.values()]

    def carried(self, n: int) -> list[ParamKey]:
        """What a node leaves for the next run beside statistics."""
        return [ParamKey(self.graph.nodes[n].name, name) for name in self.shapes.nodes[n].carried]

    @cached_property
    def random(self) -> list[Node]:
        """The nodes that draw random numbers in this phase."""
        return [node for node in self.graph.nodes if _draws(node)]

    def run(self, params: Any, fed: Values) -> Any:
        """The net on arrays by value index."""
        return run(self.shapes, params, fed)

    def values(self, params: Any, fed: Values) -> dict[int, Any]:
        """Every value that layers make."""
        made = self.run(params, fed)
        return {i: made.value(i) for i in made.values if i not in fed}

    def objective(self, params: Any, fed: Values, seeds: Values) -> Any:
        """The losses and the seeded outputs, summed; every value, and what is kept."""
        made = self.run(params, fed)
        total = made.loss()
        for i, seed in seeds.items():
            value = made.value(i)
            total = total + jnp.vdot(seed[tuple(map(slice, value.shape))], value)
        return total, ({i: made.value(i) for i in made.values if i not in fed}, made.updates)

    @cached_property
    def gradient(self) -> Any:
        """(params, fed, seeds) -> the gradients of the former two; every value, what is kept."""
        step = jax.grad(self.objective, argnums=(0, 1), has_aux=True)
        return step if self.graph.data_dependent else jax.jit(step)

    def call(self, params: Any, fed: Mapping[str, Any]) -> dict[str, Any]:
        """Every blob as the public net gives it."""
        self.net.assign({key: jnp.asarray(array) for key, array in params.items()})
        return self.net(**fed)

    def bucketed(self, params: Any, fed: Mapping[str, Any]) -> tuple[str, Any, Any]:
        """What is said, and every blob and the gradients of params in a size bucket.

        Both are None where the net works at its blobs' own size only.
        """
        said: list[str] = []
        home = {name: tuple(n + 1 for n in array.shape) for name, array in fed.items()}
        batch = SizeBuckets(self.net, said.append, home).bucket(fed)
        if batch.sizes is None:
            return " ".join(said), None, None
        first = self.graph.first_blobs
        arrays = {first[name]: jnp.asarray(array) for name, array in batch.feeds.items()}

        def loss(params: Any) -> Any:
            made = run(batch.shapes, params, arrays, sizes=batch.sizes)
            blobs = {name: made.value(i, fill=-1.0) for name, i in self.graph.blobs.items()}
            return made.loss(), blobs

        gradients, blobs = jax.jit(jax.grad(loss, has_aux=True))(params)
        cut = {name: np.asarray(batch.cut(name, array)) for name, array in blobs.items()}
        return " ".join(said), cut, gradients

    def forced(self) -> bool:
        """Whether all gradients are asked for."""
        return self.graph.force_backward

    def reached(self, name: str) -> bool:
        """Whether backward starts from an output that is no loss."""
        producer = self.graph.values[self.graph.blobs[name]].producer
        return self.forced() or producer in self.graph.under_loss

    def trained(self, key: ParamKey) -> bool:
        """Whether a learned array's gradient is asked for."""
        return self.forced() or bool(self.shapes.param_specs[key].lr_mult)


def _draws(node: Node) -> bool:
    spec, train = node.layer.spec, node.layer.train
    return train and (
        node.type == "Dropout"
        or (node.type == "Pooling" and spec.pooling_param.pool == 2)
        or (node.type == "SPP" and spec.spp_param.pool == 2)
    )


def folder() -> tempfile.TemporaryDirectory[str]:
    """Where a net's files are written while it is checked."""
    return tempfile.TemporaryDirectory(prefix="netspec_fuzz_")
