"""Weight files: what is written, and what is read of what others wrote."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray
from weight_files import (
    BLOBS,
    LEGACY,
    NET,
    NUMBERS,
    arrays,
    blob,
    compiled,
    layer,
    raw,
    same,
    written,
)
from weight_files import net as net
from weight_files import other as other

from netspec.errors import WeightsError
from netspec.formats import protobuf_wire
from netspec.frontend.shapes import ParamKey
from netspec.proto.layers_pb2 import BlobProto
from netspec.proto.legacy_pb2 import V0LayerParameter, V1LayerParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.runtime.module import Net
from netspec.weights.caffemodel import Weights, copy_into, read_weights, write_weights


def parsed(path: Path) -> NetParameter:
    message = NetParameter()
    message.ParseFromString(path.read_bytes())
    return message


def only_blob(weights: Weights) -> protobuf_wire.StoredBlob:
    ((found,),) = [list(blobs.values()) for blobs in weights.layers.values()]
    return found


# What we write


def unknown(message: Message) -> int:
    """How many fields of a message, and of those in it, its schema does not know."""
    inner = [v for field, v in message.ListFields() if field.message_type]
    listed = [x for v in inner for x in ([v] if isinstance(v, Message) else v)]
    return len(UnknownFieldSet(message)) + sum(map(unknown, listed))


def test_a_written_file_is_caffes_message(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    write_weights(path, net.shapes, net.arrays())
    message = parsed(path)
    assert unknown(message) == 0
    assert message.name == "tiny"
    assert {field.name for field, _ in message.ListFields()} == {"name", "layer"}
    found = {x.name: [tuple(b.shape.dim) for b in x.blobs] for x in message.layer if x.blobs}
    assert found == BLOBS
    for each, theirs in zip(net.shapes.nodes, message.layer, strict=True):
        node = each.node
        for key, stored in zip(each.keys.values(), theirs.blobs, strict=True):
            assert {field.name for field, _ in stored.ListFields()} == {"shape", "data"}
            mine = np.asarray(net.arrays()[key])
            assert np.array_equal(np.array(stored.data, np.float32), mine.ravel())
        theirs.ClearField("blobs")
        assert theirs == node.layer.spec


@pytest.mark.parametrize("name", ["x.caffemodel", "x.caffemodel.h5"])
def test_what_is_written_is_read(net: Net, other: Net, tmp_path: Path, name: str) -> None:
    write_weights(tmp_path / name, net.shapes, net.arrays())
    assert not same(arrays(net), other.arrays())
    copied = copy_into(other, read_weights(tmp_path / name))
    assert same(arrays(net), other.arrays())
    assert (copied.layers, copied.unused, copied.missing) == (tuple(BLOBS), (), ())


def test_hdf5_lies_as_caffe_lays_it(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel.h5"
    write_weights(path, net.shapes, net.arrays())
    found: dict[str, tuple[int, ...]] = {}
    with h5py.File(path) as file:
        assert list(file) == ["data"]
        file["data"].visititems(
            lambda name, item: found.update(
                {name: item.shape if isinstance(item, h5py.Dataset) else ()}
            )
        )
        assert file["data/conv/0"].dtype == np.float32
        # The shared weight of "again" is kept by its owner alone.
        weight = np.asarray(net.arrays()[ParamKey("block/1x1", "weight")])
        assert np.array_equal(file["data/block/1x1/0"][()], weight)
    groups = dict.fromkeys(["data", "conv", "relu", "block", "block/1x1", "again", "ip"], ())
    blobs = {"conv/0": (3, 2, 3, 3), "conv/1": (3,), "block/1x1/0": (3, 3, 1, 1), "again/1": (3,)}
    assert found == {**groups, **blobs, "ip/0": (2, 45), "ip/1": (2,)}


def diffs_of(net: Net) -> dict[ParamKey, NDArray[np.float32]]:
    """Other numbers for each array, but for one that has none."""
    return {key: 2 * array + 1 for key, array in arrays(net).items() if key.layer != "conv"}


def test_diffs_stand_beside_the_data(net: Net, other: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    diffs = diffs_of(net)
    write_weights(path, net.shapes, net.arrays(), diffs)
    message = parsed(path)
    assert unknown(message) == 0
    for each, theirs in zip(net.shapes.nodes, message.layer, strict=True):
        for key, stored in zip(each.keys.values(), theirs.blobs, strict=True):
            assert {field.name for field, _ in stored.ListFields()} == {"shape", "data", "diff"}
            data = np.asarray(net.arrays()[key])
            assert np.array_equal(np.array(stored.data, np.float32), data.ravel())
            diff = diffs.get(key, np.zeros_like(data))
            assert np.array_equal(np.array(stored.diff, np.float32), diff.ravel())
    copy_into(other, read_weights(path))
    assert same(arrays(net), other.arrays())


def test_diffs_stand_beside_the_data_in_hdf5(net: Net, other: Net, tmp_path: Path) -> None:
    """Data stands with its owner alone, a diff with each layer that shares it."""
    path = tmp_path / "x.h5"
    diffs = diffs_of(net)
    write_weights(path, net.shapes, net.arrays(), diffs)
    with h5py.File(path) as file:
        assert sorted(file) == ["data", "diff"]
        assert sorted(file["data/again"]) == ["1"]
        for each in net.shapes.nodes:
            for i, key in enumerate(each.keys.values()):
                diff = file["diff"][f"{each.node.name}/{i}"]
                assert diff.dtype == np.float32
                expected = diffs.get(key, np.zeros(net.shapes.params[key].shape, np.float32))
                assert np.array_equal(diff[()], expected)
    copy_into(other, read_weights(path))
    assert same(arrays(net), other.arrays())


def tree(path: Path) -> dict[str, tuple[object, ...]]:
    """Each group and dataset of an HDF5 file with all that a reader may ask of it."""
    found: dict[str, tuple[object, ...]] = {}

    def enter(name: str, item: h5py.Group | h5py.Dataset) -> None:
        is_data = isinstance(item, h5py.Dataset)
        found[name] = (item.shape, item.dtype, item.chunks) if is_data else ()

    with h5py.File(path) as file:
        file.visititems(enter)
    return found


def test_our_hdf5_file_is_like_caffes(golden: Path, tmp_path: Path) -> None:
    folder = golden / "solvers" / "sgd_hdf5"
    theirs = folder / "final.caffemodel.h5"
    given = {"data": (2, 3, 12, 12), "label": (2, 1, 12, 12)}
    prototxt = (folder / "net.prototxt").read_text()
    mine = compiled(prototxt, shapes=given)
    copy_into(mine, read_weights(theirs))
    write_weights(tmp_path / "x.h5", mine.shapes, mine.arrays())
    assert tree(tmp_path / "x.h5") == tree(theirs)
    with h5py.File(theirs) as file, h5py.File(tmp_path / "x.h5") as ours:
        assert np.array_equal(ours["data/score/0"][()], file["data/score/0"][()])


@pytest.mark.parametrize("name", ["", "/x", "x/", "a//b", "./x", "a\\000b", "conv/0"])
def test_names_that_hdf5_cannot_keep(net: Net, tmp_path: Path, name: str) -> None:
    other = compiled(NET.replace('name: "relu"', f'name: "{name}"'))
    path = tmp_path / "x.caffemodel"
    write_weights(path, other.shapes, other.arrays())
    assert len(read_weights(path).layers) == 6
    with pytest.raises(WeightsError, match="HDF5 cannot keep a layer of this name"):
        write_weights(tmp_path / "x.h5", other.shapes, other.arrays())
    assert list(tmp_path.iterdir()) == [path]


# 96 MB in eight arrays, written with their diffs and read: memory grows by one of them.
MEMORY = """
import sys, threading, time, tracemalloc
import numpy as np
from netspec.frontend.net_graph import graph_of
from netspec.sources.fed_net import compile_net
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.weights.caffemodel import copy_into, read_weights, write_weights

path, blob = sys.argv[1], 4 * 1000 * 3000
layers = "".join(
    f'layer {{ name: "ip{i}" type: "InnerProduct" bottom: "x" top: "y{i}" inner_product_param '
    '{ num_output: 3000 bias_term: false weight_filler { type: "constant" value: 1 } } }'
    for i in range(8)
)
shape = "input_param { shape { dim: 1 dim: 1000 } }"
text = parse_net('layer { name: "x" type: "Input" top: "x" ' + shape + "}" + layers, "x")
net = compile_net(graph_of(text, state_of(text, 1)))
arrays = net.arrays()

tracemalloc.start()
write_weights(path, net.shapes, arrays, arrays)
assert tracemalloc.get_traced_memory()[1] < blob / 2, tracemalloc.get_traced_memory()
tracemalloc.reset_peak()
write_weights(path, net.shapes, {k: np.asarray(a, np.float64) for k, a in arrays.items()})
found = tracemalloc.get_traced_memory()[1] - 16 * blob
assert found < 1.5 * blob, found
tracemalloc.stop()
del arrays

def held():
    with open("/proc/self/statm") as file:
        _, resident, shared = map(int, file.read().split()[:3])
    return (resident - shared) * 4096

def watch():
    while reading:
        most.append(held())
        time.sleep(0.0005)

reading, most = True, [held()]
watcher = threading.Thread(target=watch)
watcher.start()
copy_into(net, read_weights(path))
reading = False
watcher.join()
# The new array, and before it the same numbers aligned: in the file they may lie askew.
assert max(most) - most[0] < 2.5 * blob, (max(most) - most[0]) / blob
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's count of memory")
@pytest.mark.parametrize("name", ["x.caffemodel", "x.caffemodel.h5"])
def test_one_array_is_in_memory_at_a_time(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path / name)]
    # Big arrays are given back to the system at once.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


# What Caffe wrote


@pytest.mark.parametrize(
    "file",
    ["sgd_clip/init", "sgd_clip/snap_iter_6", "sgd_heavy_online/snap_iter_15", "sgd_hdf5/init"],
)
def test_caffes_files_read_as_protobuf_reads_them(golden: Path, file: str) -> None:
    path = golden / "solvers" / f"{file}.caffemodel"
    message = parsed(path)
    weights = read_weights(path)
    assert {x.name: x.type for x in message.layer} == weights.types
    assert weights.learned == ("conv1", "score", "up")
    for theirs in message.layer:
        mine = weights.layers[theirs.name]
        for i, stored in enumerate(theirs.blobs):
            assert mine[i].array.shape == tuple(stored.shape.dim)
            assert np.array_equal(mine[i].array.ravel(), np.array(stored.data, np.float32))
        assert len(mine) == len(theirs.blobs)


def test_caffes_hdf5_file_is_read(golden: Path) -> None:
    final = np.load(golden / "solvers" / "sgd_hdf5" / "final.npz")
    weights = read_weights(golden / "solvers" / "sgd_hdf5" / "final.caffemodel.h5")
    expected = {name[6:]: final[name] for name in final.files if name.startswith("param/")}
    assert weights.learned == ("conv1", "score", "up")
    for name, array in expected.items():
        layer, index = name.split("/")
        assert np.array_equal(weights.layers[layer][int(index)].array, array)
    assert sum(map(len, weights.layers.values())) == len(expected) == 5


def unpacked(array: NDArray[np.float32]) -> bytes:
    """A BlobProto with its floats one by one, as writers without ``packed`` leave them."""
    shape = BlobProto()
    shape.shape.dim.extend(array.shape)
    floats = b"".join(b"\x2d" + struct.pack("<f", x) for x in array.ravel())
    return shape.SerializeToString() + floats


FORMS = {
    "packed": blob(NUMBERS),
    "diff": BlobProto(data=NUMBERS.ravel(), diff=NUMBERS.ravel() * 2, shape={"dim": [2, 3]}),
    "doubles": BlobProto(double_data=NUMBERS.ravel(), shape={"dim": [2, 3]}),
    "doubles before floats": BlobProto(
        double_data=NUMBERS.ravel(), data=[1] * 6, double_diff=[2] * 6, shape={"dim": [2, 3]}
    ),
    "unpacked": BlobProto.FromString(unpacked(NUMBERS)),
    "raw float": raw(1, NUMBERS.tobytes()),
    "raw half": raw(2, NUMBERS.astype("<f2").tobytes()),
    "raw double": raw(0, NUMBERS.astype("<f8").tobytes()),
    "raw double, unsaid": raw(None, NUMBERS.astype("<f8").tobytes()),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_in_every_form(tmp_path: Path, form: str) -> None:
    path = written(tmp_path, NetParameter(layer=[layer("x", FORMS[form])]))
    found = only_blob(read_weights(path))
    assert np.array_equal(found.array, NUMBERS)
    assert found.fits((2, 3))
    assert not found.fits((1, 2, 3))


def test_unpacked_floats_as_they_stand(tmp_path: Path) -> None:
    body = unpacked(NUMBERS)
    head = layer("x").SerializeToString() + protobuf_wire.header(7, len(body))
    message = head + body
    path = written(tmp_path, protobuf_wire.header(100, len(message)) + message)
    assert np.array_equal(only_blob(read_weights(path)).array, NUMBERS)


def test_raw_integers(tmp_path: Path) -> None:
    for kind, dtype in ((3, "<i4"), (4, "<u4")):
        whole_numbers = (NUMBERS * 8).astype(dtype)
        net = NetParameter(layer=[layer("x", raw(kind, whole_numbers.tobytes()))])
        assert np.array_equal(only_blob(read_weights(written(tmp_path, net))).array, NUMBERS * 8)


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ((2, 3), True),
        ((1, 2, 3), True),
        ((1, 1, 2, 3), True),
        ((1, 1, 1, 2, 3), False),
        ((3, 2), False),
        ((6,), False),
    ],
)
def test_legacy_shapes_have_four_axes(tmp_path: Path, shape: tuple[int, ...], fits: bool) -> None:
    path = written(tmp_path, NetParameter(layer=[layer("x", LEGACY)]))
    found = only_blob(read_weights(path))
    assert found.legacy
    assert found.array.shape == (1, 1, 2, 3)
    assert found.fits(shape) is fits


def test_v1_and_v0_nets(tmp_path: Path) -> None:
    v1 = V1LayerParameter(
        name="ip", type=V1LayerParameter.INNER_PRODUCT, blobs=[LEGACY, blob([7, 8])]
    )
    v0 = V1LayerParameter(layer=V0LayerParameter(name="old", type="conv", blobs=[LEGACY]))
    path = written(tmp_path, NetParameter(layers=[v1, v0]))
    weights = read_weights(path)
    assert weights.types == {"ip": "InnerProduct", "old": "conv"}
    assert weights.learned == ("ip", "old")
    assert np.array_equal(weights.layers["ip"][0].array.ravel(), NUMBERS.ravel())
    assert np.array_equal(weights.layers["ip"][1].array, [7, 8])
    assert np.array_equal(weights.layers["old"][0].array.ravel(), NUMBERS.ravel())


def test_a_legacy_file_goes_into_a_net(other: Net, tmp_path: Path) -> None:
    weight = np.arange(90, dtype=np.float32)
    file = V1LayerParameter(
        name="ip",
        blobs=[
            BlobProto(data=weight, num=1, channels=1, height=2, width=45),
            BlobProto(data=[3, 4], num=1, channels=1, height=1, width=2),
        ],
    )
    copied = copy_into(other, read_weights(written(tmp_path, NetParameter(layers=[file]))))
    assert copied.layers == ("ip",)
    assert copied.missing == ("conv", "block/1x1", "again")
    found = arrays(other)
    assert np.array_equal(found[ParamKey("ip", "weight")], weight.reshape(2, 45))
    assert np.array_equal(found[ParamKey("ip", "bias")], [3, 4])


@pytest.mark.parametrize(
    "field",
    [
        protobuf_wire.number(147, 3),  # an enum in NVCaffe, swish_param here
        protobuf_wire.header(147, 2) + b"\x08\x02",  # upsample_param in ENet
        protobuf_wire.header(150, 5) + b"hello",
        bytes([147 << 3 & 0x7F | 0x80 | 5, 147 >> 4]) + struct.pack("<f", 0.5),
        protobuf_wire.header(117, 3) + b"\x92\x01\x63",  # a transform_param that breaks off
    ],
    ids=["enum", "message", "text", "float", "broken"],
)
def test_fields_of_forks_are_passed_over(tmp_path: Path, field: bytes) -> None:
    message = field + layer("x", blob(NUMBERS)).SerializeToString() + field
    data = protobuf_wire.header(100, len(message)) + message + field
    assert np.array_equal(only_blob(read_weights(written(tmp_path, data))).array, NUMBERS)


def test_of_two_layers_with_one_name_the_later_counts(tmp_path: Path) -> None:
    net = NetParameter(layer=[layer("x", blob([1])), layer("x", blob([2])), layer("x")])
    assert only_blob(read_weights(written(tmp_path, net))).array.tolist() == [2]


def test_hdf5_is_known_by_its_first_bytes(net: Net, other: Net, tmp_path: Path) -> None:
    write_weights(tmp_path / "x.h5", net.shapes, net.arrays())
    os.rename(tmp_path / "x.h5", tmp_path / "x.caffemodel")
    copy_into(other, read_weights(tmp_path / "x.caffemodel"))
    assert same(arrays(net), other.arrays())
