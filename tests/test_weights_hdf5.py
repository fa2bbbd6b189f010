"""Weights in HDF5: shapes are compared before arrays are read, and nothing outside is."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from netspec.errors import WeightsError
from netspec.formats import hdf5
from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST
from netspec.runtime.module import Net
from netspec.solving.snapshots.solverstate import read_state
from netspec.sources.fed_net import compile_net
from netspec.weights.caffemodel import copy_into, read_weights

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 } } }
layer { name: "a/b" type: "InnerProduct" bottom: "data" top: "c"
  inner_product_param { num_output: 3 bias_term: false } }
"""


def net() -> Net:
    parsed = parse_net(NET, "net.prototxt")
    return compile_net(graph_of(parsed, state_of(parsed, TEST)))


def packed(path: Path, array: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data/a/b/0", data=array, chunks=array.shape, compression="gzip")


def test_packed_arrays_are_read_once_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.caffemodel.h5"
    packed(path, np.arange(6, dtype=np.float32).reshape(3, 2))
    mine = net()
    copy_into(mine, read_weights(path))
    assert np.asarray(mine.params["a/b"]["weight"]).tolist() == [[0, 1], [2, 3], [4, 5]]
    packed(path, np.zeros((2000, 1000), np.float32))
    monkeypatch.setattr(hdf5, "array", None)
    weights = read_weights(path)
    with pytest.raises(WeightsError, match="weight is 2000x1000 in the file, 3x2 in the net"):
        copy_into(mine, weights)


def refused(path: Path, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_weights(path)


def test_what_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "a.caffemodel.h5", tmp_path / "b.h5"
    packed(other, np.ones((3, 2), np.float32))
    with h5py.File(path, "w") as file:
        file["data/a"] = h5py.ExternalLink(str(other), "/data/a")
    refused(path, f'"a" leads to another file, {other}, which is not read')
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink(str(other), "/data")
    refused(path, '"data" leads to another file')
    with h5py.File(path, "w") as file:
        file.create_dataset("data/a/b/0", (3, 2), np.float32, external=[(str(other), 0, 24)])
    refused(path, r'layer "a/b": keeps numbers in other files \(external storage\), which are not')
    layout = h5py.VirtualLayout((3, 2), np.float32)
    layout[:] = h5py.VirtualSource(str(other), "data/a/b/0", (3, 2))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data/a/b/0", layout)
    refused(path, r'layer "a/b": is made of other data \(a virtual dataset\), which is not read')


def test_a_state_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.solverstate.h5"
    with h5py.File(path, "w") as file:
        file["iter"], file["current_step"] = [3], [0]
        file["history"] = h5py.ExternalLink("b.h5", "/history")
    with pytest.raises(WeightsError, match='"history" leads to another file, b'):
        read_state(path)
    with h5py.File(path, "w") as file:
        file["iter"], file["current_step"], file["history"] = [3], [0], [1.0]
    with pytest.raises(WeightsError, match="is damaged: it holds no history"):
        read_state(path)


@pytest.mark.differs("hdf5-deep")
def test_groups_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel.h5"
    with h5py.File(path, "w") as file:
        file["/".join(["data", *"x" * 40, "0"])] = np.ones((3, 2))
    refused(path, "is damaged: more than 30 groups within each other")
    with h5py.File(path, "w") as file:
        group = file.create_group("data/a")
        group["again"] = group
    refused(path, "is damaged: more than 30 groups within each other")
    # Each group leads twice to the next: a billion paths.
    with h5py.File(path, "w") as file:
        group = file.create_group("data")
        for _ in range(28):
            below = group.create_group("0")
            group["1"] = below
            group = below
    refused(path, "is damaged: it has no end of groups")


def test_links_within_the_file_are_followed_as_caffe_does(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel.h5"
    with h5py.File(path, "w") as file:
        file["kept/0"] = np.ones((3, 2), np.float32)
        file["data/a/b"] = h5py.SoftLink("/kept")
    mine = net()
    copy_into(mine, read_weights(path))
    assert np.asarray(mine.params["a/b"]["weight"]).tolist() == [[1, 1]] * 3
