"""Weight files in HDF5, .caffemodel.h5: a group a layer, a data set a blob.

Caffe: ``Net::CopyTrainedLayersFromHDF5``, ``Net::ToHDF5``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py

from netspec.errors import WeightsError, blame, fail, require
from netspec.formats import hdf5, protobuf_wire
from netspec.frontend.shapes import Shapes
from netspec.weights.host_arrays import Kinds, on_host

# Names of layers have few slashes, and the largest nets some thousands of layers.
_MOST_DEPTH, _MOST_ENTRIES = 30, 30_000


def read_layers(path: Path) -> dict[str, dict[int, protobuf_wire.StoredBlob]]:
    """Layer name -> its blobs by index, as views of the file; raises WeightsError."""
    layers: dict[str, dict[int, protobuf_wire.StoredBlob]] = {}

    with hdf5.opened(path, ".caffemodel.h5") as file:
        data = hdf5.member(file, "data")
        if not isinstance(data, h5py.Group):
            _refuse_data(file)
            fail('has no group "data"; is it a .caffemodel.h5?', WeightsError)
        for i, (name, item) in enumerate(_below(data, "", 1)):
            require(i < _MOST_ENTRIES, "is damaged: it has no end of groups", WeightsError)
            # A layer called "inception_3a/1x1" is a group within a group.
            layer, _, index = name.rpartition("/")
            if isinstance(item, h5py.Dataset) and index.isdecimal():
                with blame(None, f'layer "{layer}"'):
                    blob = protobuf_wire.StoredBlob(item.shape, hdf5.reader(item, f"data/{name}"))
                layers.setdefault(layer, {})[int(index)] = blob
            elif isinstance(item, h5py.Group):
                layers.setdefault(name, {})
    return layers


def _below(group: h5py.Group, above: str, depth: int) -> Iterator[tuple[str, object]]:
    """The path and the object of each entry below a group."""
    what = f"is damaged: more than {_MOST_DEPTH} groups within each other"
    require(depth <= _MOST_DEPTH, what, WeightsError)
    for name in group:
        # A damaged name could not even be printed.
        name.encode()
        item = hdf5.member(group, name)
        yield above + name, item
        if isinstance(item, h5py.Group):
            yield from _below(item, f"{above}{name}/", depth + 1)


def _refuse_data(file: h5py.File) -> None:
    """Raise WeightsError if an HDF5 file holds what an HDF5Data layer reads."""
    held = [name for name in file if isinstance(hdf5.member(file, name), h5py.Dataset)][:10]
    require(not held, f"is data ({', '.join(held)}), not weights", WeightsError)


def write_layers(path: Path, shapes: Shapes, kinds: Kinds) -> None:
    """Write learned arrays, and gradients beside them, in an HDF5 file; raises WeightsError."""
    require_hdf5_names(shapes)
    with hdf5.created(path) as file:
        for kind, arrays in kinds.items():
            layers = file.create_group(kind)
            for n, each in enumerate(shapes.nodes):
                layer = layers.require_group(each.node.name)
                for i, (_, key, blob) in enumerate(each.learned):
                    # Data is stored with its owner alone, a diff with each layer that shares it.
                    if kind == "diff" or (n, i) not in shapes.graph.shared:
                        layer[str(i)] = on_host(arrays[key], blob.shape)


def require_hdf5_names(shapes: Shapes) -> None:
    """Raise WeightsError where a layer has a name that HDF5 takes for another path."""
    names = {node.name for node in shapes.graph.nodes}
    for each in shapes.nodes:
        node = each.node
        layer, _, index = node.name.rpartition("/")
        with blame(node.place, node.who):
            require(
                not {"", "."} & set(node.name.split("/"))
                and "\0" not in node.name
                and not (layer in names and index.isdecimal()),
                "HDF5 cannot keep a layer of this name; write a .caffemodel",
                WeightsError,
            )
            require(
                each.layer == node.name or not each.blobs,
                "HDF5 cannot keep two layers of one name; write a .caffemodel",
                WeightsError,
            )
