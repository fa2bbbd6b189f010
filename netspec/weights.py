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
from netspec.files import whole
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
    """What a weight file holds: layer name -> its blobs by index, and the layers' types."""

    file: str
    layers: Mapping[str, Mapping[int, wire.StoredBlob]]
    types: Mapping[str, str]


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
    """Read a .caffemodel or, by its ending, a .h5; raises WeightsError."""
    path = Path(path)
    with blame(Place(str(path))):
        try:
            return _read_hdf5(path) if path.suffix == ".h5" else _read_binary(path)
        except OSError as error:
            raise WeightsError(unreadable("cannot read", error)) from None


def _read_binary(path: Path) -> Weights:
    data = wire.mapped(path)
    layers: dict[str, Mapping[int, wire.StoredBlob]] = {}
    types: dict[str, str] = {}
    try:
        for number, kind, value in wire.fields(data):
            if kind != wire.BYTES or number not in (_LAYER, _LAYERS):
                continue
            name, layer_type, blobs = _layer(value, _CURRENT if number == _LAYER else _V1)  # type: ignore[arg-type]
            if blobs and name not in layers:
                layers[name], types[name] = dict(enumerate(blobs)), layer_type
    except WeightsError as error:
        if bytes(data[:1]).isalpha() and b"{" in bytes(data[:4096]):
            fail("is prototxt text, not weights; weights are a .caffemodel", WeightsError)
        raise WeightsError(error.message, who=error.who) from None
    require(layers, "holds no learned blobs; is it a .caffemodel?", WeightsError)
    return Weights(str(path), layers, types)


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
    return current_type(V1LayerParameter.LayerType.Name(value)) if value in known else ""  # type: ignore[arg-type]


def _read_hdf5(path: Path) -> Weights:
    layers: dict[str, dict[int, wire.StoredBlob]] = {}

    def enter(name: str, item: object) -> None:
        # A layer called "inception_3a/1x1" is a group within a group.
        layer, _, index = name.rpartition("/")
        if isinstance(item, h5py.Dataset) and index.isdigit():
            layers.setdefault(layer, {})[int(index)] = wire.StoredBlob(item[()], legacy=False)

    try:
        with h5py.File(path, "r") as file:
            require("data" in file, 'has no group "data"; is it a .caffemodel.h5?', WeightsError)
            file["data"].visititems(enter)
    except FileNotFoundError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError):
        raise WeightsError("is damaged, or no HDF5 file") from None
    require(layers, "holds no learned blobs", WeightsError)
    return Weights(str(path), layers, {})


def copy_into(net: Net, weights: Weights) -> Copied:
    """Set a net's learned arrays by layer name; raises WeightsError where one does not fit.

    Layers that only one side has are left alone. Nothing is set unless everything fits.
    """
    arrays: dict[ParamKey, np.ndarray] = {}
    copied, missing = [], []
    graph, shapes = net.graph, net.shapes
    for n, node in enumerate(graph.nodes):
        if not shapes.blobs[n]:
            continue
        if node.name not in weights.layers:
            missing.append(node.name)
            continue
        with blame(Place(weights.file), node.who):
            arrays.update(_fitting(shapes, n, weights.layers[node.name]))
        copied.append(node.name)
    require(
        copied,
        f"no layer has a name that {graph.file} knows (the file has "
        f"{', '.join(list(weights.layers)[:5])}, ...)",
        WeightsError,
    )
    net.assign({key: jnp.array(array) for key, array in arrays.items()})
    names = {node.name for node in graph.nodes}
    unused = tuple(name for name in weights.layers if name not in names)
    return Copied(weights.file, tuple(copied), unused, tuple(missing))


def _fitting(
    shapes: Shapes, n: int, stored: Mapping[int, wire.StoredBlob]
) -> dict[ParamKey, np.ndarray]:
    """What node ``n`` takes from its stored blobs; HDF5 files leave shared blobs to their owner."""
    blobs, keys = shapes.blobs[n], shapes.keys[n]
    wanted = {i for i in range(len(blobs)) if (n, i) not in shapes.graph.shared}
    require(
        wanted <= set(stored) <= set(range(len(blobs))),
        f"the file has {len(stored)} blobs, the net {len(blobs)} ({', '.join(blobs)})",
        WeightsError,
    )
    taken = {}
    for i, (blob, key) in enumerate(zip(blobs.values(), keys.values(), strict=True)):
        if i not in stored:
            continue
        require(
            stored[i].fits(blob.shape),
            f"{key.blob} is {text(stored[i].array.shape)} in the file, {text(blob.shape)} in the "
            "net; to learn the layer anew, rename it",
            WeightsError,
        )
        array = np.asarray(stored[i].array, np.float32)
        taken[key] = array.reshape(shapes.params[key].shape)
    return taken


def write_weights(
    path: str | Path, shapes: Shapes, arrays: Mapping[ParamKey, ArrayLike]
) -> None:
    """Write learned arrays as Caffe's snapshot does; a path that ends in .h5 becomes HDF5.

    arrays: every learned array; those on a device are fetched one at a time. The file appears whole or not at all. Raises OSError.
    """
    with whole(path) as part:
        (_write_hdf5 if str(path).endswith(".h5") else _write_binary)(part, shapes, arrays)


def _write_binary(path: Path, shapes: Shapes, arrays: Mapping[ParamKey, ArrayLike]) -> None:
    with open(path, "wb") as file:
        name = shapes.graph.name.encode()
        file.write(wire.header(1, len(name)) + name)
        for node, keys in zip(shapes.graph.nodes, shapes.keys, strict=True):
            spec = LayerParameter()
            spec.CopyFrom(node.layer.spec)
            spec.ClearField("blobs")
            head = spec.SerializeToString()
            blobs = [arrays[key] for key in keys.values()]
            sizes = [wire.blob_size(blob) for blob in blobs]
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
