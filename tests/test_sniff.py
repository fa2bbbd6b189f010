"""Files that are no weights are told for what they are."""

import bz2
import gzip
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from weight_files import LEGACY, NET, NUMBERS, blob, layer, raw, written
from weight_files import net as net

from netspec.errors import WeightsError
from netspec.formats import protobuf_wire, sniff
from netspec.layers.base import text
from netspec.proto.layers_pb2 import BlobProto
from netspec.proto.legacy_pb2 import V1LayerParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.runtime.module import Net
from netspec.weights.caffemodel import read_weights, write_weights


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
