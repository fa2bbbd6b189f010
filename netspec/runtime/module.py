"""A net as a Flax module.

Learned arrays keep Caffe's shapes, such as (O, I, H, W) for a convolution's weight, whatever layout
a run computes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.errors import TraceContextError

from netspec.errors import GraphError, blame, counted, fail, nearest, require
from netspec.formats import protobuf_wire
from netspec.frontend.graph import Graph
from netspec.frontend.shapes import NodeShapes, ParamKey, Shapes, infer
from netspec.layers.base import Array, Shape, count, text
from netspec.layers.fillers import fill
from netspec.proto.layers_pb2 import TRAIN, FillerParameter
from netspec.runtime import memory
from netspec.runtime.compute_policy import PLAIN, ComputePolicy
from netspec.runtime.host_calls import runnable
from netspec.runtime.masked_shapes import Bucketed
from netspec.runtime.owned import owned_cache, owned_jit
from netspec.runtime.phase_switch import switched
from netspec.runtime.remat import FLOAT_BYTES
from netspec.runtime.run import run
from netspec.runtime.sizes import use_programs
from netspec.runtime.values import Params, on_device

# (what earlier runs came to, blob by name) -> what this run makes of both.
Fold = Callable[[Any, Callable[[str], Array]], Any]


def _keep(carry: Any, blob: Callable[[str], Array]) -> Any:
    return carry


class Carried(nnx.Variable[Any]):
    """State that a layer carries from run to run: no weight, no statistic."""


class LayerParams(nnx.Module):
    """The learned arrays of one layer, by index as in a .caffemodel, or by name."""

    def __init__(self, blobs: Mapping[str, nnx.Variable[Any]]) -> None:
        self._names = tuple(blobs)
        for name, variable in blobs.items():
            setattr(self, name, variable)

    def __getitem__(self, which: int | str) -> nnx.Variable[Any]:
        name = self._names[which] if isinstance(which, int) else which
        if name not in self._names:
            raise KeyError(f'no blob "{name}"{nearest(name, self._names)}')
        return getattr(self, name)

    def share(self, name: str, variable: nnx.Variable[Any]) -> None:
        """Have another layer's variable, perhaps another net's, for a blob of equal shape."""
        setattr(self, name, variable)

    def __iter__(self) -> Iterator[nnx.Variable[Any]]:
        return (self[name] for name in self._names)

    def __len__(self) -> int:
        return len(self._names)

    def items(self) -> list[tuple[str, nnx.Variable[Any]]]:
        """(name, variable) of each blob, in Caffe's order."""
        return [(name, self[name]) for name in self._names]


class NetParams(nnx.Module):
    """The learned arrays of a net: layer name -> `LayerParams`, in the order of the net.

    A layer that learns and whose name an earlier one has that does, too, goes by ``name (2)``.
    """

    def __init__(self, layers: Mapping[str, LayerParams]) -> None:
        self._order = tuple(layers)
        self._layers = nnx.data(dict(layers))

    def __getitem__(self, layer: str) -> LayerParams:
        if layer not in self._layers:
            raise KeyError(f'no layer "{layer}" with learned blobs{nearest(layer, self._order)}')
        return self._layers[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, layer: object) -> bool:
        return layer in self._layers

    def items(self) -> list[tuple[str, LayerParams]]:
        """(layer name, its arrays), in the order of the net."""
        return [(layer, self[layer]) for layer in self._order]


class Net(nnx.Module):
    """A compiled net: ``net(**inputs) -> {blob: array}``.

    Use it as any NNX module, with ``nnx.jit``, ``nnx.grad`` and an optax optimiser. Learned arrays
    are ``nnx.Param``, running statistics ``nnx.BatchStat``; a shared array is one variable in
    several layers. ``carried`` has, by layer and name as ``params`` does, the state that recurrent
    layers carry from run to run, as `Carried` variables. ``policy``: how it computes, from the next
    run on.

    ``train()`` and ``eval()`` set ``deterministic`` and ``use_running_average``, as they do in
    Flax's own modules: whether Dropout and STOCHASTIC pooling draw numbers, and which statistics
    BatchNorm uses, unless the layer's message says. All else of the phase is chosen when the net
    is loaded: which layers there are, and what layers written in Python see.
    """

    deterministic: bool
    use_running_average: bool

    def __init__(self, shapes: Shapes, seed: int = 0, policy: ComputePolicy = PLAIN) -> None:
        self.shapes = nnx.static(shapes)
        self.policy = nnx.static(policy)
        self._seed = seed
        self.rngs: nnx.Rngs | None = nnx.data(None)
        self.deterministic = self.use_running_average = shapes.graph.phase != TRAIN
        variables = {
            key: (nnx.Param if shapes.params[key].learned else nnx.BatchStat)(array)
            for key, array in initial(shapes, seed).items()
        }
        self.params = NetParams(
            {
                each.layer: LayerParams({n: variables[key] for n, key in each.keys.items()})
                for each in shapes.nodes
                if each.keys
            }
        )
        self.carried = NetParams(
            {
                each.layer: LayerParams(
                    {n: Carried(jnp.zeros(s, jnp.float32)) for n, s in each.carried.items()}
                )
                for each in shapes.nodes
                if each.carried
            }
        )

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "deterministic" and not value and self.rngs is None:
            self.rngs = nnx.Rngs(self._seed)

    @property
    def graph(self) -> Graph:
        """The layers and how they are connected."""
        return self.shapes.graph

    def __call__(self, **inputs: Any) -> dict[str, Array]:
        """Run the net; returns every blob by name, in Caffe's layout.

        inputs: one array for each fed blob. Images may have another size than the prototxt says,
        if the net can work at it. Raises GraphError or LayerError.
        """
        return self.forward(inputs)

    def forward(
        self, inputs: Mapping[str, Any], wanted: tuple[str, ...] | None = None
    ) -> dict[str, Array]:
        """Like a call, for ``inputs`` in a mapping; only the ``wanted`` blobs are kept."""
        return self.fold(inputs, tuple(self.graph.blobs) if wanted is None else wanted)[0]

    def fold(
        self,
        inputs: Mapping[str, Any],
        wanted: tuple[str, ...],
        fold: Fold = _keep,
        carry: Any = None,
    ) -> tuple[dict[str, Array], Any]:
        """The ``wanted`` blobs of a run, and ``fold(carry, blob)`` computed in the same program.

        fold: a pure function of arrays that hashes by what it does; its ``blob(name)`` gives any
        blob in Caffe's layout, which need not leave the program. carry: arrays, as the run before
        left them.
        """
        for name in wanted:
            self.graph.blob(name)
        feeds = {name: on_device(array) for name, array in inputs.items()}
        self._check_names(feeds)
        shapes = self.shapes_for({name: array.shape for name, array in feeds.items()})
        return self.fold_bucketed(Bucketed(feeds, shapes, shapes), wanted, fold, carry)

    def forward_bucketed(self, batch: Bucketed, wanted: tuple[str, ...]) -> dict[str, Array]:
        """The ``wanted`` blobs of a batch: see `fold_bucketed`."""
        return self.fold_bucketed(batch, wanted)[0]

    def fold_bucketed(
        self, batch: Bucketed, wanted: tuple[str, ...], fold: Fold = _keep, carry: Any = None
    ) -> tuple[dict[str, Array], Any]:
        """As `fold`, for a batch in the arrays of a size bucket.

        Outside the valid regions blobs hold -1, which is no class. Raises GraphError or LayerError.
        """
        use_programs(self.shapes, batch.shapes)
        shapes = switched(batch.shapes, self.deterministic, self.use_running_average)
        key = self.rngs() if self.rngs is not None and not self.deterministic else None
        forward = runnable(self.graph, _forward)
        arrays = {**self.arrays(), **self.carried_for(shapes)}
        feeds = {name: on_device(array) for name, array in batch.feeds.items()}
        blobs, carry, updates = forward(
            shapes, wanted, self.policy, fold, arrays, feeds, key, batch.sizes, carry
        )
        try:
            self.assign(updates)
        except TraceContextError:
            kept = ", ".join(sorted(map(str, updates)))
            fail(
                f"{self.graph.file}: a run changes {kept}, which JAX's own transformations "
                "cannot keep; use nnx.jit and nnx.grad, and hand them the net",
                GraphError,
            )
        return blobs, carry

    def arrays(self) -> dict[ParamKey, Array]:
        """Every learned array, shared ones once, under their owner."""
        return {key: self.params[key.layer][key.blob][...] for key in self.shapes.params}

    def carried_for(self, shapes: Shapes) -> dict[ParamKey, Array]:
        """Carried state for a run at these shapes; zeros where the run before had other shapes."""
        held = {key: self.carried[key.layer][key.blob][...] for key in shapes.carried}
        return {
            key: held[key] if held[key].shape == shape else jnp.zeros(shape, jnp.float32)
            for key, shape in shapes.carried.items()
        }

    def assign(self, arrays: Params) -> None:
        """Set some of the arrays that `arrays` and `carried_for` give."""
        for key, array in arrays.items():
            holder = self.carried if key in self.shapes.carried else self.params
            holder[key.layer][key.blob].set_value(array)

    def shapes_for(self, given: Mapping[str, Shape]) -> Shapes:
        """All shapes for fed blobs of these shapes; raises LayerError where the net cannot."""
        if all(self.shapes[name] == shape for name, shape in given.items()):
            return self.shapes
        return _shapes_like(self.shapes, tuple(sorted(given.items())))

    def _check_names(self, feeds: Mapping[str, Array]) -> None:
        fed = self.graph.fed
        for name in feeds:
            if name not in fed:
                fail(f'{self.graph.file}: no input "{name}"{nearest(name, fed)}', GraphError)
        missing = [name for name in fed if name not in feeds]
        require(
            not missing,
            f"{self.graph.file}: the net is fed {', '.join(fed)}; missing: {', '.join(missing)}",
            GraphError,
        )


@owned_cache
def _shapes_like(shapes: Shapes, given: tuple[tuple[str, Shape], ...]) -> Shapes:
    """Shapes for other inputs, with the same learned arrays."""
    other = infer(shapes.graph, dict(given))
    for old, new in zip(shapes.nodes, other.nodes, strict=True):
        for name, blob in old.blobs.items():
            with blame(old.node.place, old.node.who):
                require(
                    blob.shape == new.blobs[name].shape,
                    f"its {name} is {text(blob.shape)}, but this input needs "
                    f"{text(new.blobs[name].shape)}; the layer cannot work at this size",
                )
    return other


@owned_jit(static=4)
def _forward(
    shapes: Shapes,
    wanted: tuple[str, ...],
    policy: ComputePolicy,
    fold: Fold,
    params: Params,
    feeds: Mapping[str, Array],
    key: Array | None,
    sizes: Array | None,
    carry: Any,
) -> tuple[dict[str, Array], Any, dict[ParamKey, Array]]:
    given = {shapes.graph.first_blobs[n]: a for n, a in feeds.items()}
    made = run(shapes, params, given, key, sizes=sizes, policy=policy)

    def blob(name: str) -> Array:
        return made.value(shapes.graph.blobs[name], fill=-1.0)

    return {name: blob(name) for name in wanted}, fold(carry, blob), made.updates


def initial(shapes: Shapes, seed: int) -> dict[ParamKey, Array]:
    """Every learned array of a net: as its layer's ``blobs`` state it, as it starts, or filled.

    Raises LayerError where a filler, or a stated blob, does not fit.
    """
    root = jax.random.key(seed)
    nodes = {each.layer: each for each in shapes.nodes if each.keys}
    arrays = {}
    for i, (key, blob) in enumerate(shapes.params.items()):
        node = nodes[key.layer].node
        if node.layer.spec.blobs:
            with blame(node.place, node.who):
                arrays[key] = jnp.asarray(_stated(nodes[key.layer], key.blob))
            continue
        if blob.start is not None:
            arrays[key] = jnp.array(blob.start)
            continue
        with blame(node.place, f"{node.who}: {key.blob} filler"):
            arrays[key] = _filled(blob.filler, blob.shape, jax.random.fold_in(root, i))
    return arrays


def _filled(filler: FillerParameter, shape: Shape, key: Array) -> Array:
    """As `fill`; raises LayerError where the array does not fit in memory."""
    takes, room = FLOAT_BYTES * count(shape), memory.capacity()
    what = f"{text(shape)} numbers take {memory.size(takes)} of memory"
    require(room is None or takes <= room, f"{what}; there are {memory.size(room or 0)}")
    try:
        return fill(filler, shape, key)
    except MemoryError:
        fail(f"{what}, which is not there")
    except jax.errors.JaxRuntimeError as error:
        require("RESOURCE_EXHAUSTED" not in str(error), f"{what}, which is not there")
        raise


def _stated(each: NodeShapes[Shape], name: str) -> np.ndarray:
    """A learned array that the layer's own message holds."""
    blobs = each.blobs
    stated = each.node.layer.spec.blobs
    require(
        len(stated) == len(blobs),
        f"states {counted(len(stated), 'blob')} but learns {len(blobs)} ({', '.join(blobs)})",
    )
    found = protobuf_wire.blob(memoryview(stated[list(blobs).index(name)].SerializeToString()))
    shape = blobs[name].shape
    require(found.fits(shape), f"states {name} {text(found.shape)}, but it is {text(shape)}")
    return found.array.reshape(shape).astype(np.float32)
