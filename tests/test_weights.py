import bz2
import gzip
import lzma
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import ArrayLike, NDArray

from netspec import build
from netspec.errors import WeightsError
from netspec.formats import protobuf_wire, sniff
from netspec.formats.atomic import whole
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import ParamKey
from netspec.layers.base import Shape, text
from netspec.proto.layers_pb2 import TEST, BlobProto, LayerParameter
from netspec.proto.legacy_pb2 import V0LayerParameter, V1LayerParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.runtime.module import Net
from netspec.weights.caffemodel import Weights, copy_into, read_weights, write_weights

NET = """
name: "tiny"
layer {
  name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 2 dim: 5 dim: 7 } }
}
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param {
    num_output: 3 kernel_size: 3
    weight_filler { type: "gaussian" std: 1 } bias_filler { value: 0.5 }
  }
}
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer {
  name: "block/1x1" type: "Convolution" bottom: "conv" top: "block" param { name: "w" }
  convolution_param {
    num_output: 3 kernel_size: 1 bias_term: false weight_filler { type: "xavier" }
  }
}
layer {
  name: "again" type: "Convolution" bottom: "block" top: "again" param { name: "w" }
  convolution_param { num_output: 3 kernel_size: 1 bias_filler { value: 2 } }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "again" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } }
}
"""
# The blobs of NET as a .caffemodel lists them; "again" shares its weight.
BLOBS = {
    "conv": [(3, 2, 3, 3), (3,)],
    "block/1x1": [(3, 3, 1, 1)],
    "again": [(3, 3, 1, 1), (3,)],
    "ip": [(2, 45), (2,)],
}


def compiled(prototxt: str, seed: int = 0, shapes: Mapping[str, Shape] | None = None) -> Net:
    net = parse_net(prototxt, "net.prototxt")
    return build.compile_net(build.graph_of(net, state_of(net, TEST)), shapes, seed)


@pytest.fixture(scope="module")
def net() -> Net:
    """What tests write; none may change it."""
    return compiled(NET)


@pytest.fixture
def other() -> Net:
    """The same net with other numbers, to copy into."""
    return compiled(NET, seed=1)


def arrays(net: Net) -> dict[ParamKey, NDArray[np.float32]]:
    return {key: np.array(array) for key, array in net.arrays().items()}


def same(ours: dict[ParamKey, NDArray[np.float32]], theirs: Mapping[ParamKey, ArrayLike]) -> bool:
    return all(np.array_equal(array, np.asarray(theirs[key])) for key, array in ours.items())


def parsed(path: Path) -> NetParameter:
    message = NetParameter()
    message.ParseFromString(path.read_bytes())
    return message


def blob(array: object) -> BlobProto:
    floats = np.asarray(array, np.float32)
    message = BlobProto(data=floats.ravel())
    message.shape.dim.extend(floats.shape)
    return message


def layer(name: str, *blobs: BlobProto, type: str = "Convolution") -> LayerParameter:
    return LayerParameter(name=name, type=type, blobs=blobs)


def written(folder: Path, message: NetParameter | bytes, name: str = "x.caffemodel") -> Path:
    path = folder / name
    path.write_bytes(message if isinstance(message, bytes) else message.SerializeToString())
    return path


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
    for node, keys, theirs in zip(net.graph.nodes, net.shapes.keys, message.layer, strict=True):
        for key, stored in zip(keys.values(), theirs.blobs, strict=True):
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
    for keys, theirs in zip(net.shapes.keys, message.layer, strict=True):
        for key, stored in zip(keys.values(), theirs.blobs, strict=True):
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
        for node, keys in zip(net.graph.nodes, net.shapes.keys, strict=True):
            for i, key in enumerate(keys.values()):
                diff = file["diff"][f"{node.name}/{i}"]
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
from netspec.build import compile_net, graph_of
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


# Other forms


NUMBERS = (np.arange(1, 7).reshape(2, 3) / 8).astype(np.float32)


def unpacked(array: NDArray[np.float32]) -> bytes:
    """A BlobProto with its floats one by one, as writers without ``packed`` leave them."""
    shape = BlobProto()
    shape.shape.dim.extend(array.shape)
    floats = b"".join(b"\x2d" + struct.pack("<f", x) for x in array.ravel())
    return shape.SerializeToString() + floats


def raw(kind: int | None, data: bytes) -> BlobProto:
    message = BlobProto(raw_data=data)
    if kind is not None:
        message.raw_data_type = kind  # type: ignore[assignment]
    message.shape.dim.extend(NUMBERS.shape)
    return message


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


LEGACY = BlobProto(data=NUMBERS.ravel(), num=1, channels=1, height=2, width=3)


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


# What goes into a net


def test_layers_of_one_side_only_are_left_alone(net: Net, other: Net, tmp_path: Path) -> None:
    before = arrays(other)
    file = NetParameter(
        layer=[
            layer("gone", blob([1])),
            layer("relu", type="ReLU"),
            layer("conv", blob(np.ones((3, 2, 3, 3))), blob([1, 2, 3])),
        ]
    )
    copied = copy_into(other, read_weights(written(tmp_path, file)))
    assert str(copied) == (
        f"1 layer from {tmp_path}/x.caffemodel; not in the file, left as they are: block/1x1, "
        "again, ip; in the file only: gone"
    )
    after = arrays(other)
    assert after.pop(ParamKey("conv", "weight")).tolist() == np.ones((3, 2, 3, 3)).tolist()
    assert after.pop(ParamKey("conv", "bias")).tolist() == [1, 2, 3]
    assert same(after, before)


def legacy(array: object) -> BlobProto:
    floats = np.asarray(array, np.float32)
    num, channels, height, width = (1,) * (4 - floats.ndim) + floats.shape
    return BlobProto(data=floats.ravel(), num=num, channels=channels, height=height, width=width)


GOOD_CONV = layer("conv", blob(np.ones((3, 2, 3, 3))), blob([1, 2, 3]))
WEIGHT = np.arange(90, dtype=np.float32)
AS_CONV = NET.replace(
    """type: "InnerProduct" bottom: "again" top: "ip"
  inner_product_param { num_output: 2 """,
    """type: "Convolution" bottom: "again" top: "ip"
  convolution_param { num_output: 2 kernel_h: 3 kernel_w: 5 """,
)


@pytest.mark.parametrize("name", ["x.caffemodel", "x.caffemodel.h5"])
@pytest.mark.parametrize(("old", "new"), [(NET, AS_CONV), (AS_CONV, NET)], ids=["conv", "fc"])
def test_fully_connected_is_convolution(tmp_path: Path, old: str, new: str, name: str) -> None:
    """They compute the same: (O, C H W) and (O, C, H, W) list the same numbers."""
    theirs, mine = compiled(old), compiled(new, seed=1)
    write_weights(tmp_path / name, theirs.shapes, theirs.arrays())
    weights = read_weights(tmp_path / name)
    with pytest.raises(WeightsError, match=r"in the net; fc_to_conv \(--fc-to-conv\) reads the on"):
        copy_into(mine, weights)
    copied = copy_into(mine, weights, fc_to_conv=True)
    assert (sorted(copied.layers), copied.turned) == (sorted(BLOBS), ("ip",))
    assert "; fully connected read as convolution: ip" in str(copied)
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 7)).astype(np.float32)
    top, expected = (np.asarray(net(data=x)["ip"]).ravel() for net in (mine, theirs))
    np.testing.assert_allclose(top, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("stored", "prototxt", "turns"),
    [
        (blob(WEIGHT.reshape(2, 45)), AS_CONV, True),
        (legacy(WEIGHT.reshape(2, 45)), AS_CONV, True),
        (legacy(WEIGHT.reshape(2, 3, 3, 5)), NET, True),
        (blob(WEIGHT.reshape(2, 3, 15)), NET, True),
        (blob(WEIGHT.reshape(45, 2)), AS_CONV, False),
        (blob(WEIGHT.reshape(3, 2, 3, 5)), NET, False),
        (blob(WEIGHT.reshape(2, 3, 5, 3)), AS_CONV, False),
        (blob(WEIGHT[:88].reshape(2, 44)), AS_CONV, False),
        (legacy(WEIGHT.reshape(1, 1, 45, 2)), NET, False),
        (blob(WEIGHT), AS_CONV, False),
    ],
)
def test_which_shapes_turn(tmp_path: Path, stored: BlobProto, prototxt: str, turns: bool) -> None:
    file = NetParameter(layer=[layer("ip", stored, legacy([3, 4]))])
    weights = read_weights(written(tmp_path, file))
    mine = compiled(prototxt)
    if turns:
        assert copy_into(mine, weights, fc_to_conv=True).turned == ("ip",)
        assert np.array_equal(arrays(mine)[ParamKey("ip", "weight")].ravel(), WEIGHT)
        assert arrays(mine)[ParamKey("ip", "bias")].tolist() == [3, 4]
    else:
        with pytest.raises(WeightsError, match=r"in the net; skip_misfits \(--skip-misfits\) l"):
            copy_into(mine, weights, fc_to_conv=True)


def test_what_fits_is_not_turned(net: Net, other: Net, tmp_path: Path) -> None:
    write_weights(tmp_path / "x.caffemodel", net.shapes, net.arrays())
    assert copy_into(other, read_weights(tmp_path / "x.caffemodel"), fc_to_conv=True).turned == ()


def test_layers_that_do_not_fit_may_be_left(other: Net, tmp_path: Path) -> None:
    """All blobs of a layer are left, even those that would fit."""
    before = arrays(other)
    misfits = [
        layer("ip", blob(np.ones((5, 45))), blob([1, 2])),
        layer("block/1x1", blob(np.ones((3, 3, 1, 1))), blob([1, 2, 3])),
    ]
    weights = read_weights(written(tmp_path, NetParameter(layer=[GOOD_CONV, *misfits])))
    copied = copy_into(other, weights, skip_misfits=True)
    assert (copied.layers, copied.missing, copied.unused) == (("conv",), ("again",), ())
    assert copied.misfits == {
        "block/1x1": "the file has 2 blobs, the net 1 (weight)",
        "ip": "weight is 5x45 in the file, 2x45 in the net",
    }
    assert str(copied) == (
        f"1 layer from {tmp_path}/x.caffemodel; not fitting, left as they are: block/1x1 (the file "
        "has 2 blobs, the net 1 (weight)), ip (weight is 5x45 in the file, 2x45 in the net); not "
        "in the file, left as they are: again"
    )
    after = arrays(other)
    assert after.pop(ParamKey("conv", "bias")).tolist() == [1, 2, 3]
    assert after.pop(ParamKey("conv", "weight")).tolist() == np.ones((3, 2, 3, 3)).tolist()
    assert same(after, before)
    path = written(tmp_path, NetParameter(layer=misfits))
    with pytest.raises(WeightsError) as error:
        copy_into(other, read_weights(path), skip_misfits=True)
    assert str(error.value) == (
        f'{path}: no layer fits net.prototxt: layer "block/1x1": the file has 2 blobs, the net 1 '
        "(weight)"
    )


def test_a_shared_blob_may_be_left_to_its_owner(other: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["data/again/1"] = np.array([5, 6, 7], np.float64)
    weight = arrays(other)[ParamKey("block/1x1", "weight")]
    assert copy_into(other, read_weights(path)).layers == ("again",)
    assert arrays(other)[ParamKey("again", "bias")].tolist() == [5, 6, 7]
    assert np.array_equal(arrays(other)[ParamKey("block/1x1", "weight")], weight)


SKIP = "skip_misfits (--skip-misfits) leaves the layer as it is; to learn it anew, rename it"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [layer("ip", blob(np.ones((2, 45))))],
            f'layer "ip" (InnerProduct): the file has 1 blob, the net 2 (weight, bias); {SKIP}',
        ),
        (
            [layer("ip")],
            f'layer "ip" (InnerProduct): the file has 0 blobs, the net 2 (weight, bias); {SKIP}',
        ),
        (
            [layer("block/1x1", blob(np.ones((3, 3, 1, 1))), blob([1, 2, 3]))],
            'layer "block/1x1" (Convolution): the file has 2 blobs, the net 1 (weight); ' + SKIP,
        ),
        (
            [layer("relu", blob([0.25]), type="PReLU")],
            f'layer "relu" (ReLU): the file has 1 blob, the net 0; {SKIP}',
        ),
        (
            [layer("again", blob([1, 2, 3]))],
            f'layer "again" (Convolution): the file has 1 blob, the net 2 (weight, bias); {SKIP}',
        ),
        (
            [layer("ip", blob(np.ones((5, 45))), blob([1, 2]))],
            'layer "ip" (InnerProduct): weight is 5x45 in the file, 2x45 in the net; ' + SKIP,
        ),
        (
            [layer("ip", blob(np.ones((2, 45))), blob([[1, 2]]))],
            f'layer "ip" (InnerProduct): bias is 1x2 in the file, 2 in the net; {SKIP}',
        ),
        (
            [layer("ip", blob(np.ones((2, 3, 3, 5))), blob([1, 2]))],
            'layer "ip" (InnerProduct): weight is 2x3x3x5 in the file, 2x45 in the net; '
            "fc_to_conv (--fc-to-conv) reads the one as the other",
        ),
    ],
)
def test_nothing_is_set_unless_everything_fits(
    other: Net, tmp_path: Path, layers: list[LayerParameter], message: str
) -> None:
    before = arrays(other)
    path = written(tmp_path, NetParameter(layer=[GOOD_CONV, *layers]))
    with pytest.raises(WeightsError) as error:
        copy_into(other, read_weights(path))
    assert str(error.value) == f"{path}: {message}"
    assert same(before, other.arrays())


def test_a_file_of_another_net(other: Net, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e", "f"]
    for count, listing in ((6, "a, b, c, d, e, ..."), (2, "a, b")):
        file = NetParameter(layer=[layer(name, blob([1])) for name in names[:count]])
        path = written(tmp_path, file)
        with pytest.raises(WeightsError) as error:
            copy_into(other, read_weights(path))
        assert str(error.value) == f"{path}: has no layer of net.prototxt; it has {listing}"


# Files that cannot be read


def hdf5(**items: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with h5py.File(folder / "x.h5", "w") as file:
            for name, value in items.items():
                file[name.replace("__", "/")] = value
        return folder / "x.h5"

    return write


def content(data: bytes, name: str = "x.caffemodel") -> Callable[[Path], Path]:
    return lambda folder: written(folder, data, name)


def npz(folder: Path) -> Path:
    np.savez(folder / "x.npz", a=NUMBERS)
    return folder / "x.npz"


def zipped(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "x.pth", "w") as file:
            file.writestr(name, "")
        return folder / "x.pth"

    return write


def tarred(folder: Path) -> Path:
    with tarfile.open(folder / "x.tar", "w") as file:
        file.add(written(folder, b"x"), "x.caffemodel")
    return folder / "x.tar"


PROTOTXT = "is prototxt text; weights are a .caffemodel, solver states a .solverstate"
WEB = "is a web page, not the file itself; download it again"


def one(message: BlobProto) -> Callable[[Path], Path]:
    return lambda folder: written(folder, NetParameter(layer=[layer("x", message)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (content(b""), "is empty"),
        (lambda folder: folder / "no.caffemodel", "cannot read: no such file"),
        (lambda folder: folder / "no.h5", "cannot read: no such file"),
        (lambda folder: folder, "cannot read: is a directory"),
        (content(NET.encode()), PROTOTXT),
        (content(b'# A net.\r\n\tinput: "data" layer { }\n'), PROTOTXT),
        (
            content(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
            'is a pointer of git LFS, not the file itself; "git lfs pull" fetches it',
        ),
        (content(b"\n<!DOCTYPE html><html>{}</html>"), WEB),
        (content(b"\xef\xbb\xbf<html lang=en>", "x.h5"), WEB),
        (
            content(b'{"message": "Not Found"}'),
            "is JSON, perhaps a server's message; download it again",
        ),
        (
            content("404: nicht übrig\nfür heute".encode()),
            'is text that begins "404: nicht übrig"; only Caffe\'s files can be read',
        ),
        (
            content(b"0a" * 32 + b'\n{"netspec":2,"iteration":7}\n', "x_iter_7.resume.json"),
            "is the record of a snapshot; name the .solverstate or the .caffemodel beside it",
        ),
        (content(b"PK\x03\x04" + bytes(40)), "is a zip archive; unpack it first"),
        (npz, "is a NumPy .npz; only Caffe's files can be read"),
        (zipped("archive/data.pkl"), "is a PyTorch file; only Caffe's files can be read"),
        (zipped("x.caffemodel"), "is a zip archive; unpack it first"),
        (content(gzip.compress(b"x")), "is a gzip archive; unpack it first"),
        (content(bz2.compress(b"x")), "is a bzip2 archive; unpack it first"),
        (content(lzma.compress(b"x")), "is an xz archive; unpack it first"),
        (content(b"7z\xbc\xaf\x27\x1c"), "is a 7z archive; unpack it first"),
        (content(b"Rar!\x1a\x07"), "is a rar archive; unpack it first"),
        (tarred, "is a tar archive; unpack it first"),
        (
            content(pickle.dumps([1], protocol=2)),
            "is a Python pickle, as PyTorch writes; only Caffe's files can be read",
        ),
        (
            content(pickle.dumps([1], protocol=4)),
            "is a Python pickle; only Caffe's files can be read",
        ),
        (content(b"\x93NUMPY\x01\0"), "is a NumPy array; only Caffe's files can be read"),
        (content(bytes(10**6)), "is not protobuf"),
        (
            content(b"\x08\x03\x12\x13x_iter_3.caffemodel\x1a\x00\x20\x00"),
            "is a solver state, not weights; its weights are in x_iter_3.caffemodel",
        ),
        (content(b"\x08\x03\x1a\x00"), "is a solver state, not weights"),
        (
            hdf5(iter=[3], history__0=[1.0], learned_net=np.bytes_(b"x_iter_3.caffemodel.h5\0")),
            "is a solver state, not weights; its weights are in x_iter_3.caffemodel.h5",
        ),
        (hdf5(iter=[3], history__0=[1.0]), "is a solver state, not weights"),
        (hdf5(data=[[1.0]], label=[2.0]), "is data (data, label), not weights"),
        (content(b"\x0a\x04tiny"), "holds no learned blobs; is it a .caffemodel?"),
        (content(b"\x0c\x01\x02\x03"), "is not protobuf"),
        (content(b"\x0a\x08tiny"), "is truncated: a field of 8 bytes has only 4 left"),
        (content(b"\x0a\x04tiny\xa2"), "is truncated in the middle of a number"),
        (content(b"\xff" * 20), "is not protobuf"),
        (
            one(BlobProto(data=[1, 2, 3], shape={"dim": [2, 3]})),
            'layer "x": is damaged: a blob of shape 2x3 holds 3 numbers',
        ),
        (
            one(BlobProto(shape={"dim": [2, 3]})),
            'layer "x": is damaged: a blob of shape 2x3 holds 0 numbers',
        ),
        (
            one(BlobProto(shape={"dim": [0, -1]})),
            f'layer "x": is damaged: a blob has 2 axes, the largest of size {2**64 - 1}',
        ),
        (
            one(BlobProto(data=[1], shape={"dim": [1] * 33})),
            'layer "x": is damaged: a blob has 33 axes, the largest of size 1',
        ),
        (
            one(raw(2, b"123")),
            'layer "x": is damaged: 3 bytes are no whole number of floats',
        ),
        (
            one(BlobProto(shape={"dim": [0, *[2**31 - 1] * 3]})),
            'layer "x": is damaged: a blob of shape 0x2147483647x2147483647x2147483647 holds 0 '
            "numbers",
        ),
        (content(b"hello\0", "x.h5"), "is damaged, or no .caffemodel.h5"),
        (content(b"\x89HDF\r\n\x1a\n"), "is damaged, or no .caffemodel.h5"),
        (hdf5(blobs__0=1), 'has no group "data"; is it a .caffemodel.h5?'),
        (hdf5(data__conv__weight=[1.0]), "holds no learned blobs; is it a .caffemodel?"),
        (hdf5(data__conv__0=b"text"), 'layer "conv": holds object values; numbers expected'),
    ],
)
def test_messages(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    path = make(tmp_path)
    with pytest.raises(WeightsError) as error:
        read_weights(path)
    assert str(error.value) == f"{path}: {message}"


STATES = [
    content(b"\x08\x03\x1a\x00", "x.solverstate"),
    hdf5(iter=[3], history__0=[1.0]),
    content(b"\x08\x03\x12"),
    content(b"\x89HDF\r\n\x1a\n"),
]


@pytest.mark.parametrize("make", STATES)
def test_what_is_no_weight_file(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    sniff.refuse_weights(make(tmp_path))


@pytest.mark.parametrize("name", ["x.caffemodel", "x.h5"])
def test_weights_given_for_a_solver_state(net: Net, tmp_path: Path, name: str) -> None:
    write_weights(tmp_path / name, net.shapes, net.arrays())
    old = V1LayerParameter(name="x", blobs=[LEGACY])
    v1 = written(tmp_path, NetParameter(name="tiny", layers=[old]), "v1.caffemodel")
    for path in (tmp_path / name, v1):
        with pytest.raises(WeightsError, match=r"^holds a net's weights, not a solver state; name"):
            sniff.refuse_weights(path)


def test_unknown_raw_type(tmp_path: Path) -> None:
    body = raw(None, b"123").SerializeToString() + protobuf_wire.number(10, 9)
    message = b"\x0a\x01x" + protobuf_wire.header(7, len(body)) + body
    path = written(tmp_path, protobuf_wire.header(100, len(message)) + message)
    with pytest.raises(WeightsError, match='layer "x": has raw_data of unknown type 9'):
        read_weights(path)


def test_a_file_cut_anywhere(tmp_path: Path) -> None:
    layers = [
        layer("conv", blob(np.arange(6).reshape(2, 3)), blob([7])),
        layer("relu", type="ReLU"),
        layer("ip", LEGACY, type="InnerProduct"),
    ]
    net = NetParameter(name="tiny", layer=layers)
    data = net.SerializeToString()
    ends = [len(NetParameter(name="tiny", layer=layers[:n]).SerializeToString()) for n in range(4)]
    assert ends[-1] == len(data)
    for size in range(len(data) + 1):
        path = written(tmp_path, data[:size])
        if size in ends[1:]:
            whole_layers = layers[: ends.index(size)]
            weights = read_weights(path)
            assert list(weights.layers) == [x.name for x in whole_layers]
            for x in whole_layers:
                assert [text(b.array.shape) for b in weights.layers[x.name].values()] == [
                    {"conv": ["2x3", "1"], "ip": ["1x1x2x3"]}[x.name][i]
                    for i in range(len(x.blobs))
                ]
        else:
            with pytest.raises(WeightsError, match=r"is (empty|truncated)|holds no learned"):
                read_weights(path)


# Files that appear whole


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(b"old")

    def fail() -> None:
        with whole(path) as part:
            part.write_bytes(b"half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x"
    with whole(path) as part:
        part.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_weights_that_cannot_be_written_leave_the_old_ones(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(b"old")
    missing = {key: array for key, array in net.arrays().items() if key.layer != "ip"}
    with pytest.raises(KeyError):
        write_weights(path, net.shapes, missing)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
