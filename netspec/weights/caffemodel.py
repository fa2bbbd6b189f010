"""Weight files, .caffemodel or .caffemodel.h5: read, written, and copied into a net, as Caffe does.

Of a binary net only names, types and blobs are taken: forks reuse the numbers of other fields.
V0 and V1 files, doubles and half floats are read. Caffe: ``Net::CopyTrainedLayersFrom``,
``Net::CopyTrainedLayersFromHDF5``, ``Net::ToProto``, ``Net::ToHDF5``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from netspec.errors import Place, WeightsError, blame, counted, fail, require, unreadable
from netspec.formats import hdf5, protobuf_wire, sniff
from netspec.formats.atomic import atomic_write
from netspec.formats.manifest import verify
from netspec.frontend.upgrade_v1 import current_type
from netspec.layers.base import Shape, text
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.legacy_pb2 import V1LayerParameter
from netspec.weights import weights_hdf5
from netspec.weights.host_arrays import ArrayLike, Kinds, on_host

if TYPE_CHECKING:
    from netspec.frontend.shapes import ParamKey, Shapes
    from netspec.runtime.module import Net

# The fields of a layer's name, type and blobs: in LayerParameter, V1's and V0's.
_CURRENT, _V1, _V0 = (1, 2, 7), (4, 5, 6), (1, 2, 50)
_LAYER, _LAYERS, _V0_LAYER = 100, 2, 1

_SKIP = "skip_misfits (--skip-misfits) leaves the layer as it is; to learn it anew, rename it"
_TURN = "fc_to_conv (--fc-to-conv) reads the one as the other"


@dataclass(frozen=True)
class Weights:
    """What a weight file holds: layer name -> its blobs by index, and the layers' types.

    Layers that learn nothing are there too, without blobs. owners_only: whether a blob that layers
    share is stored with its owner alone. repeated: the blobs of each of several layers that learn
    and have one name; `layers` has the last. Arrays are views of the file, read when they are used.
    """

    file: str
    layers: Mapping[str, Mapping[int, protobuf_wire.StoredBlob]]
    types: Mapping[str, str]
    owners_only: bool = False
    repeated: Mapping[str, Sequence[Mapping[int, protobuf_wire.StoredBlob]]] = field(
        default_factory=dict
    )

    @property
    def learned(self) -> tuple[str, ...]:
        """The names of the layers that have blobs."""
        return tuple(name for name, blobs in self.layers.items() if blobs)


@dataclass(frozen=True)
class Copied:
    """What `copy_into` did.

    layers: those set; turned: those of them whose weights were a fully connected layer's and are a
    convolution's now, or the reverse. unused: layers of the file that the net lacks; missing: the
    reverse. misfits: layers that were left as they are -> what does not fit.
    """

    file: str
    layers: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    turned: tuple[str, ...] = ()
    misfits: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{counted(len(self.layers), 'layer')} from {self.file}"]
        if self.turned:
            parts.append(f"fully connected read as convolution: {', '.join(self.turned)}")
        if self.misfits:
            listed = ", ".join(f"{layer} ({why})" for layer, why in self.misfits.items())
            parts.append(f"not fitting, left as they are: {listed}")
        if self.missing:
            parts.append(f"not in the file, left as they are: {', '.join(self.missing)}")
        if self.unused:
            parts.append(f"in the file only: {', '.join(self.unused)}")
        return "; ".join(parts)


def read_weights(path: str | Path) -> Weights:
    """Read a .caffemodel, binary or HDF5; raises WeightsError."""
    path = Path(path)
    with blame(Place(str(path))):
        try:
            sniff.refuse_other_formats(path)
            as_hdf5 = hdf5.is_hdf5(path) or path.suffix == ".h5"
            verify(path)
            return _read(path, as_hdf5)
        except OSError as error:
            raise WeightsError(unreadable("cannot read", error)) from None


def _read(path: Path, as_hdf5: bool) -> Weights:
    try:
        weights = _net_of_hdf5(path) if as_hdf5 else _net(protobuf_wire.mapped(path), str(path))
        require(weights.learned, "holds no learned blobs; is it a .caffemodel?", WeightsError)
    except WeightsError:
        sniff.refuse_solver_state(path)
        raise
    return weights


def _net_of_hdf5(path: Path) -> Weights:
    return Weights(str(path), weights_hdf5.read_layers(path), {}, owners_only=True)


def _net(data: memoryview, file: str) -> Weights:
    layers: dict[str, Mapping[int, protobuf_wire.StoredBlob]] = {}
    types: dict[str, str] = {}
    learners: dict[str, list[Mapping[int, protobuf_wire.StoredBlob]]] = {}
    for number, _, value in protobuf_wire.fields(data):
        if number not in (_LAYER, _LAYERS) or not isinstance(value, memoryview):
            continue
        name, layer_type, blobs = _layer(value, _CURRENT if number == _LAYER else _V1)
        # Of two layers with one name Caffe copies both, so the later one counts.
        if blobs or name not in layers:
            layers[name], types[name] = dict(enumerate(blobs)), layer_type
        if blobs:
            learners.setdefault(name, []).append(layers[name])
    repeated = {name: found for name, found in learners.items() if len(found) > 1}
    return Weights(file, layers, types, repeated=repeated)


def _layer(
    message: memoryview, at: tuple[int, int, int]
) -> tuple[str, str, tuple[protobuf_wire.StoredBlob, ...]]:
    """Name, type and blobs of a layer in any of the three forms."""
    name, layer_type = "", ""
    blobs: list[protobuf_wire.StoredBlob] = []
    name_field, type_field, blobs_field = at
    for number, kind, value in protobuf_wire.fields(message):
        with blame(None, f'layer "{name}"'):
            if at == _V1 and number == _V0_LAYER and kind == protobuf_wire.BYTES:
                return _layer(value, _V0)  # type: ignore[arg-type]
            if number == name_field and kind == protobuf_wire.BYTES:
                name = protobuf_wire.string(value)
            elif number == type_field:
                layer_type = (
                    _v1_type(value) if isinstance(value, int) else protobuf_wire.string(value)
                )
            elif number == blobs_field and kind == protobuf_wire.BYTES:
                blobs.append(protobuf_wire.blob(value))  # type: ignore[arg-type]
    return name, layer_type, tuple(blobs)


def _v1_type(value: int) -> str:
    known = V1LayerParameter.LayerType.values()
    return current_type(V1LayerParameter.LayerType.Name(value)) if value in known else ""


def copy_into(
    net: Net, weights: Weights, *, fc_to_conv: bool = False, skip_misfits: bool = False
) -> Copied:
    """Set a net's learned arrays by layer name; of several layers of one name, one after the other.

    Layers that only one side has are left alone. The others must have the same blobs in the same
    shapes, or WeightsError is raised and nothing is set, unless
    fc_to_conv: a fully connected layer's weight (O, C H W) may become a convolution's (O, C, H, W)
    and vice versa; skip_misfits: a layer of which a blob does not fit is left alone, with all its
    blobs.
    """
    graph, shapes = net.graph, net.shapes
    taken: dict[ParamKey, protobuf_wire.StoredBlob] = {}
    copied, turned, missing = [], [], []
    misfits: dict[str, str] = {}
    layers = _layers_for(shapes, weights)
    for name, n in _nodes_by_name(shapes).items():
        stored = layers.get(name)
        if stored is None:
            missing += [name] if shapes.nodes[n].blobs else []
        elif misfit := _misfit(shapes, n, stored, weights.owners_only, fc_to_conv):
            with blame(Place(weights.file), graph.nodes[n].who):
                require(skip_misfits, f"{misfit.what}; {misfit.remedy}", WeightsError)
            misfits[name] = misfit.what
        elif stored or shapes.nodes[n].blobs:
            mine = [(key, blob) for _, key, blob in shapes.nodes[n].learned]
            taken.update({mine[i][0]: blob for i, blob in stored.items()})
            turned += [name] * any(not blob.fits(mine[i][1].shape) for i, blob in stored.items())
            copied.append(name)
    _require_some(graph.file, weights, copied, misfits)
    for key, blob in taken.items():
        # One by one: what is set lets go of the array before it.
        net.assign({key: _floats(blob, shapes.params[key].shape)})
    known = {node.name for node in graph.nodes}
    unused = tuple(name for name in weights.learned if name not in known)
    return Copied(weights.file, tuple(copied), unused, tuple(missing), tuple(turned), misfits)


def _require_some(
    net: str, weights: Weights, copied: Sequence[str], misfits: Mapping[str, str]
) -> None:
    """Raise WeightsError unless anything is copied into the net of a file."""
    if misfits and not copied:
        layer, what = next(iter(misfits.items()))
        fail(f'{weights.file}: no layer fits {net}: layer "{layer}": {what}', WeightsError)
    names = ", ".join(weights.learned[:5]) + (", ..." if len(weights.learned) > 5 else "")
    require(copied, f"{weights.file}: has no layer of {net}; it has {names}", WeightsError)


def _floats(blob: protobuf_wire.StoredBlob, shape: Shape) -> jax.Array:
    """A stored array as a net holds it; numbers beyond floats become infinite, as in Caffe."""
    with np.errstate(all="ignore"):
        array = jnp.array(np.asarray(blob.array, np.float32).reshape(shape))
        # Copies that wait for each other would hold what they copy from.
        return array.block_until_ready()


def _nodes_by_name(shapes: Shapes) -> dict[str, int]:
    """What a layer's arrays are kept under -> its node; of several, the one that learns blobs."""
    by_name: dict[str, int] = {}
    for n, each in enumerate(shapes.nodes):
        if each.blobs or each.layer not in by_name:
            by_name[each.layer] = n
    return by_name


def _layers_for(
    shapes: Shapes, weights: Weights
) -> dict[str, Mapping[int, protobuf_wire.StoredBlob]]:
    """What a net's arrays are kept under -> the blobs that a file has for them."""
    layers = dict(weights.layers)
    for name, stored in weights.repeated.items():
        mine = [each.layer for each in shapes.nodes if each.blobs and each.node.name == name]
        if len(mine) > 1:
            layers.update(zip(mine, stored, strict=False))
    return layers


class _Misfit(NamedTuple):
    """What of a layer's blobs does not fit, with the numbers, and what may be done."""

    what: str
    remedy: str


def _misfit(
    shapes: Shapes,
    n: int,
    stored: Mapping[int, protobuf_wire.StoredBlob],
    owners_only: bool,
    fc_to_conv: bool,
) -> _Misfit | None:
    """Why node ``n`` cannot take the stored blobs, if it cannot."""
    blobs = shapes.nodes[n].blobs
    every = set(range(len(blobs)))
    elsewhere = {i for i in every if owners_only and (n, i) in shapes.graph.shared}
    if not every - elsewhere <= set(stored) <= every:
        names = f" ({', '.join(blobs)})" if blobs else ""
        what = f"the file has {counted(len(stored), 'blob')}, the net {len(blobs)}{names}"
        return _Misfit(what, _SKIP)
    for i, (name, blob) in enumerate(blobs.items()):
        if i not in stored or stored[i].fits(blob.shape):
            continue
        turns = stored[i].turns_into(blob.shape)
        if not (turns and fc_to_conv):
            theirs = text(stored[i].shape)
            what = f"{name} is {theirs} in the file, {text(blob.shape)} in the net"
            return _Misfit(what, _TURN if turns else _SKIP)
    return None


def write_weights(
    path: str | Path,
    shapes: Shapes,
    arrays: Mapping[ParamKey, ArrayLike],
    diffs: Mapping[ParamKey, ArrayLike] | None = None,
) -> None:
    """Write learned arrays as Caffe's snapshot does.

    arrays: every learned array; diffs: their gradients, to be written too, zeros where one is
    absent. What lies on a device is fetched one array at a time. A path that ends in .h5 becomes
    HDF5. The file appears whole or not at all. Raises OSError, and WeightsError where HDF5 cannot
    keep a layer's name.
    """
    with atomic_write(path) as part:
        put_weights(part, shapes, arrays, diffs, str(path).endswith(".h5"))


def put_weights(
    path: Path,
    shapes: Shapes,
    arrays: Mapping[ParamKey, ArrayLike],
    diffs: Mapping[ParamKey, ArrayLike] | None,
    hdf5: bool,
) -> None:
    """Write as `write_weights` does, in a stated format and straight to the path."""
    kinds: Kinds = {"data": arrays}
    if diffs is not None:
        kinds["diff"] = {key: diffs.get(key) for key in shapes.params}
    (weights_hdf5.write_layers if hdf5 else _write_binary)(path, shapes, kinds)


def _write_binary(path: Path, shapes: Shapes, kinds: Kinds) -> None:
    with open(path, "wb") as file:
        title = shapes.graph.name.encode()
        file.write(protobuf_wire.header(1, len(title)) + title)
        for each in shapes.nodes:
            spec = LayerParameter()
            spec.CopyFrom(each.node.layer.spec)
            spec.ClearField("blobs")
            head = spec.SerializeToString()
            sizes = [
                protobuf_wire.blob_size(blob.shape, len(kinds)) for blob in each.blobs.values()
            ]
            headers = sum(len(protobuf_wire.header(_CURRENT[2], size)) for size in sizes)
            file.write(protobuf_wire.header(_LAYER, len(head) + headers + sum(sizes)))
            file.write(head)
            for _, key, blob in each.learned:
                # A layer that shares an array may see it in another shape than its owner does.
                fetch = [partial(on_host, kind[key], blob.shape) for kind in kinds.values()]
                protobuf_wire.write_fetched(file, _CURRENT[2], blob.shape, *fetch)
