import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from netspec import build, wire
from netspec.errors import WeightsError
from netspec.files import whole
from netspec.layers.base import text
from netspec.module import Net
from netspec.phase import state_of
from netspec.proto.layers_pb2 import TEST, BlobProto, LayerParameter
from netspec.proto.legacy_pb2 import V0LayerParameter, V1LayerParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.prototxt import parse_net
from netspec.shapes import ParamKey
from netspec.weights import Weights, copy_into, read_weights, write_weights

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


def compiled(prototxt: str, seed: int = 0) -> Net:
    net = parse_net(prototxt, "net.prototxt")
    return build.compile_net(build.graph_of(net, state_of(net, TEST)), seed=seed)


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


def only_blob(weights: Weights) -> wire.StoredBlob:
    ((found,),) = [list(blobs.values()) for blobs in weights.layers.values()]
    return found


# What we write


def test_a_written_file_is_caffes_message(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    write_weights(path, net.shapes, net.arrays())
    message = parsed(path)
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
    head = layer("x").SerializeToString() + wire.header(7, len(body))
    message = head + body
    path = written(tmp_path, wire.header(100, len(message)) + message)
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
        wire.number(147, 3),  # an enum in NVCaffe, swish_param here
        wire.header(147, 2) + b"\x08\x02",  # upsample_param in ENet
        wire.header(150, 5) + b"hello",
        bytes([147 << 3 & 0x7F | 0x80 | 5, 147 >> 4]) + struct.pack("<f", 0.5),
        wire.header(117, 3) + b"\x92\x01\x63",  # a transform_param that breaks off
    ],
    ids=["enum", "message", "text", "float", "broken"],
)
def test_fields_of_forks_are_passed_over(tmp_path: Path, field: bytes) -> None:
    message = field + layer("x", blob(NUMBERS)).SerializeToString() + field
    data = wire.header(100, len(message)) + message + field
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
        f"1 layers from {tmp_path}/x.caffemodel; not in the file, left as they are: block/1x1, "
        "again, ip; in the file only: gone"
    )
    after = arrays(other)
    assert after.pop(ParamKey("conv", "weight")).tolist() == np.ones((3, 2, 3, 3)).tolist()
    assert after.pop(ParamKey("conv", "bias")).tolist() == [1, 2, 3]
    assert same(after, before)


def test_a_shared_blob_may_be_left_to_its_owner(other: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["data/again/1"] = np.array([5, 6, 7], np.float64)
    weight = arrays(other)[ParamKey("block/1x1", "weight")]
    assert copy_into(other, read_weights(path)).layers == ("again",)
    assert arrays(other)[ParamKey("again", "bias")].tolist() == [5, 6, 7]
    assert np.array_equal(arrays(other)[ParamKey("block/1x1", "weight")], weight)


GOOD_CONV = layer("conv", blob(np.ones((3, 2, 3, 3))), blob([1, 2, 3]))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [layer("ip", blob(np.ones((2, 45))))],
            'layer "ip" (InnerProduct): the file has 1 blobs, the net 2 (weight, bias)',
        ),
        (
            [layer("ip")],
            'layer "ip" (InnerProduct): the file has 0 blobs, the net 2 (weight, bias)',
        ),
        (
            [layer("block/1x1", blob(np.ones((3, 3, 1, 1))), blob([1, 2, 3]))],
            'layer "block/1x1" (Convolution): the file has 2 blobs, the net 1 (weight)',
        ),
        (
            [layer("relu", blob([0.25]), type="PReLU")],
            'layer "relu" (ReLU): the file has 1 blobs, the net 0',
        ),
        (
            [layer("ip", blob(np.ones((5, 45))), blob([1, 2]))],
            'layer "ip" (InnerProduct): weight is 5x45 in the file, 2x45 in the net; to learn the '
            "layer anew, rename it",
        ),
        (
            [layer("ip", blob(np.ones((2, 45))), blob([[1, 2]]))],
            'layer "ip" (InnerProduct): bias is 1x2 in the file, 2 in the net; to learn the layer '
            "anew, rename it",
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


def one(message: BlobProto) -> Callable[[Path], Path]:
    return lambda folder: written(folder, NetParameter(layer=[layer("x", message)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (content(b""), "is empty"),
        (lambda folder: folder / "no.caffemodel", "cannot read: no such file"),
        (lambda folder: folder / "no.h5", "cannot read: no such file"),
        (lambda folder: folder, "cannot read: is a directory"),
        (content(NET.encode()), "is prototxt text, not weights; weights are a .caffemodel"),
        (
            content(b'# A net.\r\n\tinput: "data" layer { }\n'),
            "is prototxt text, not weights; weights are a .caffemodel",
        ),
        (content(b"\x0a\x04tiny"), "holds no learned blobs; is it a .caffemodel?"),
        (content(b"\x0c\x01\x02\x03"), "is not protobuf"),
        (content(b"\x0a\x09tiny"), "is truncated: a field of 9 bytes has only 4 left"),
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
        (content(b"hello", "x.h5"), "is damaged, or no HDF5 file"),
        (hdf5(blobs=1), 'has no group "data"; is it a .caffemodel.h5?'),
        (hdf5(data=1), 'has no group "data"; is it a .caffemodel.h5?'),
        (hdf5(data__conv__weight=[1.0]), "holds no learned blobs"),
        (hdf5(data__conv__0=b"text"), 'layer "conv" holds object values; numbers expected'),
    ],
)
def test_messages(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    path = make(tmp_path)
    with pytest.raises(WeightsError) as error:
        read_weights(path)
    assert str(error.value) == f"{path}: {message}"


def test_unknown_raw_type(tmp_path: Path) -> None:
    body = raw(None, b"123").SerializeToString() + wire.number(10, 9)
    message = b"\x0a\x01x" + wire.header(7, len(body)) + body
    path = written(tmp_path, wire.header(100, len(message)) + message)
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


def flipped(data: bytes, count: int) -> list[bytes]:
    """``data`` with one bit flipped at ``count`` places, always the same ones."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(count):
        damaged = bytearray(data)
        damaged[draw.integers(len(data))] ^= 1 << draw.integers(8)
        found.append(bytes(damaged))
    return found


@pytest.mark.parametrize(("name", "places"), [("x.caffemodel", 200), ("x.h5", 100)])
def test_a_damaged_file_is_an_error_or_other_numbers(
    net: Net, other: Net, tmp_path: Path, name: str, places: int
) -> None:
    write_weights(tmp_path / name, net.shapes, net.arrays())
    refused = 0
    for data in flipped((tmp_path / name).read_bytes(), places):
        try:
            copied = copy_into(other, read_weights(written(tmp_path, data, f"damaged-{name}")))
        except WeightsError:
            refused += 1
        else:
            assert copied.layers
    assert 0 < refused < places


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
