"""Weight files: .caffemodel and .caffemodel.h5, read and written as Caffe does.

Of a binary net only names, types and blobs are taken: forks reuse the numbers of other fields.
V0 and V1 files, doubles and half floats are read. Caffe: ``Net::CopyTrainedLayersFrom``,
``Net::ToProto``, ``Net::ToHDF5``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import jax
import jax.numpy as jnp
import numpy as np

from netspec import wire
from netspec.errors import Place, WeightsError, blame, fail, require, unreadable
from netspec.files import is_hdf5, whole
from netspec.layers.base import text
from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.legacy_pb2 import V1LayerParameter
from netspec.upgrade import current_type

if TYPE_CHECKING:
    from netspec.module import Net
    from netspec.shapes import ParamKey, Shapes

ArrayLike = np.ndarray | jax.Array

# Where a layer's name, type and blobs stand: in LayerParameter, V1's and V0's.
_CURRENT, _V1, _V0 = (1, 2, 7), (4, 5, 6), (1, 2, 50)
_LAYER, _LAYERS, _V0_LAYER = 100, 2, 1


@dataclass(frozen=True)
class Weights:
    """What a weight file holds: layer name -> its blobs by index, and the layers' types.

    Layers that learn nothing are there too, without blobs.
    """

    file: str
    layers: Mapping[str, Mapping[int, wire.StoredBlob]]
    types: Mapping[str, str]

    @property
    def learned(self) -> tuple[str, ...]:
        """The names of the layers that have blobs."""
        return tuple(name for name, blobs in self.layers.items() if blobs)


@dataclass(frozen=True)
class Copied:
    """What `copy_into` did: layers set, layers of the file that the net lacks, and vice versa."""

    file: str
    layers: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.layers)} layers from {self.file}"]
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
            hdf5 = is_hdf5(path) or path.suffix == ".h5"
            return _read_hdf5(path) if hdf5 else _read_binary(path)
        except OSError as error:
            raise WeightsError(unreadable("cannot read", error)) from None


def _read_binary(path: Path) -> Weights:
    data = wire.mapped(path)
    try:
        weights = _net(data, str(path))
        require(weights.learned, "holds no learned blobs; is it a .caffemodel?", WeightsError)
    except WeightsError:
        if _is_prototxt(data):
            fail("is prototxt text, not weights; weights are a .caffemodel", WeightsError)
        raise
    return weights


def _net(data: memoryview, file: str) -> Weights:
    layers: dict[str, Mapping[int, wire.StoredBlob]] = {}
    types: dict[str, str] = {}
    for number, _, value in wire.fields(data):
        if number not in (_LAYER, _LAYERS) or not isinstance(value, memoryview):
            continue
        name, layer_type, blobs = _layer(value, _CURRENT if number == _LAYER else _V1)
        # Of two layers with one name Caffe copies both, so the later one counts.
        if blobs or name not in layers:
            layers[name], types[name] = dict(enumerate(blobs)), layer_type
    return Weights(file, layers, types)


def _is_prototxt(data: memoryview) -> bool:
    """Whether a file begins like text; tags and lengths of a binary net are control characters."""
    head = bytes(data[:4096])
    return b"{" in head and not any(byte < 32 and byte not in b"\t\n\r" for byte in head)


def _layer(
    message: memoryview, at: tuple[int, int, int]
) -> tuple[str, str, tuple[wire.StoredBlob, ...]]:
    """Name, type and blobs of a layer in any of the three forms."""
    name, layer_type = "", ""
    blobs: list[wire.StoredBlob] = []
    name_field, type_field, blobs_field = at
    for number, kind, value in wire.fields(message):
        with blame(None, f'layer "{name}"'):
            if at == _V1 and number == _V0_LAYER and kind == wire.BYTES:
                return _layer(value, _V0)  # type: ignore[arg-type]
            if number == name_field and kind == wire.BYTES:
                name = wire.string(value)
            elif number == type_field:
                layer_type = _v1_type(value) if isinstance(value, int) else wire.string(value)
            elif number == blobs_field and kind == wire.BYTES:
                blobs.append(wire.blob(value))  # type: ignore[arg-type]
    return name, layer_type, tuple(blobs)


def _v1_type(value: int) -> str:
    known = V1LayerParameter.LayerType.values()
    return current_type(V1LayerParameter.LayerType.Name(value)) if value in known else ""


def _read_hdf5(path: Path) -> Weights:
    layers: dict[str, dict[int, wire.StoredBlob]] = {}

    def enter(name: str, item: object) -> None:
        # A layer called "inception_3a/1x1" is a group within a group.
        layer, _, index = name.rpartition("/")
        if isinstance(item, h5py.Dataset) and index.isdecimal():
            layers.setdefault(layer, {})[int(index)] = _dataset(item, layer)
        elif isinstance(item, h5py.Group):
            layers.setdefault(name, {})

    try:
        with h5py.File(path, "r") as file:
            data = file.get("data")
            if not isinstance(data, h5py.Group):
                fail('has no group "data"; is it a .caffemodel.h5?', WeightsError)
            data.visititems(enter)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError):
        raise WeightsError("is damaged, or no HDF5 file") from None
    weights = Weights(str(path), layers, {})
    require(weights.learned, "holds no learned blobs", WeightsError)
    return weights


def _dataset(item: h5py.Dataset, layer: str) -> wire.StoredBlob:
    require(
        item.dtype.kind in "fiu",
        f'layer "{layer}" holds {item.dtype} values; numbers expected',
        WeightsError,
    )
    return wire.StoredBlob(item[()], legacy=False)


def copy_into(net: Net, weights: Weights) -> Copied:
    """Set a net's learned arrays by layer name; raises WeightsError where one does not fit.

    Layers that only one side has are left alone. Nothing is set unless everything fits.
    """
    arrays: dict[ParamKey, np.ndarray] = {}
    copied, missing = [], []
    graph, shapes = net.graph, net.shapes
    for name, n in _nodes_by_name(shapes).items():
        stored = weights.layers.get(name)
        if stored is None:
            missing += [name] if shapes.blobs[n] else []
        elif stored or shapes.blobs[n]:
            with blame(Place(weights.file), graph.nodes[n].who):
                arrays.update(_fitting(shapes, n, stored))
            copied.append(name)
    if not copied:
        names = ", ".join(weights.learned[:5]) + (", ..." if len(weights.learned) > 5 else "")
        fail(f"{weights.file}: has no layer of {graph.file}; it has {names}", WeightsError)
    net.assign({key: jnp.array(array) for key, array in arrays.items()})
    known = {node.name for node in graph.nodes}
    unused = tuple(name for name in weights.learned if name not in known)
    return Copied(weights.file, tuple(copied), unused, tuple(missing))


def _nodes_by_name(shapes: Shapes) -> dict[str, int]:
    """Layer name -> its node; of several, the one that learns blobs."""
    by_name: dict[str, int] = {}
    for n, node in enumerate(shapes.graph.nodes):
        if shapes.blobs[n] or node.name not in by_name:
            by_name[node.name] = n
    return by_name


def _fitting(
    shapes: Shapes, n: int, stored: Mapping[int, wire.StoredBlob]
) -> dict[ParamKey, np.ndarray]:
    """What node ``n`` takes from its stored blobs; HDF5 files leave shared blobs to their owner."""
    blobs, keys = shapes.blobs[n], shapes.keys[n]
    wanted = {i for i in range(len(blobs)) if (n, i) not in shapes.graph.shared}
    require(
        wanted <= set(stored) <= set(range(len(blobs))),
        f"the file has {len(stored)} blobs, the net {len(blobs)}"
        + (f" ({', '.join(blobs)})" if blobs else ""),
        WeightsError,
    )
    taken = {}
    for i, (name, blob) in enumerate(blobs.items()):
        if i not in stored:
            continue
        require(
            stored[i].fits(blob.shape),
            f"{name} is {text(stored[i].array.shape)} in the file, {text(blob.shape)} in the "
            "net; to learn the layer anew, rename it",
            WeightsError,
        )
        array = np.asarray(stored[i].array, np.float32)
        taken[keys[name]] = array.reshape(shapes.params[keys[name]].shape)
    return taken


def write_weights(path: str | Path, shapes: Shapes, arrays: Mapping[ParamKey, ArrayLike]) -> None:
    """Write learned arrays as Caffe's snapshot does; a path that ends in .h5 becomes HDF5.

    arrays: every learned array; those on a device are fetched one at a time. The file appears
    whole or not at all. Raises OSError.
    """
    with whole(path) as part:
        (_write_hdf5 if str(path).endswith(".h5") else _write_binary)(part, shapes, arrays)


def _write_binary(path: Path, shapes: Shapes, arrays: Mapping[ParamKey, ArrayLike]) -> None:
    with open(path, "wb") as file:
        name = shapes.graph.name.encode()
        file.write(wire.header(1, len(name)) + name)
        for n, node in enumerate(shapes.graph.nodes):
            spec = LayerParameter()
            spec.CopyFrom(node.layer.spec)
            spec.ClearField("blobs")
            head = spec.SerializeToString()
            # A layer that shares an array may see it in another shape than its owner does.
            blobs = [
                arrays[shapes.keys[n][name]].reshape(blob.shape)
                for name, blob in shapes.blobs[n].items()
            ]
            sizes = [wire.blob_size(blob.shape) for blob in blobs]
            headers = sum(len(wire.header(_CURRENT[2], size)) for size in sizes)
            file.write(wire.header(_LAYER, len(head) + headers + sum(sizes)))
            file.write(head)
            for blob in blobs:
                wire.write_blob(file, _CURRENT[2], np.asarray(blob))


def _write_hdf5(path: Path, shapes: Shapes, arrays: Mapping[ParamKey, ArrayLike]) -> None:
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for n, (node, keys) in enumerate(zip(shapes.graph.nodes, shapes.keys, strict=True)):
            group = data.require_group(node.name)
            for i, key in enumerate(keys.values()):
                if (n, i) not in shapes.graph.shared:
                    group[str(i)] = np.asarray(arrays[key])
