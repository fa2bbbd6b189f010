"""A tiny net, and weight files for it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import ParamKey
from netspec.layers.base import Shape
from netspec.proto.layers_pb2 import TEST, BlobProto, LayerParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.runtime.module import Net
from netspec.sources.fed_net import compile_net

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
    return compile_net(graph_of(net, state_of(net, TEST)), shapes, seed)


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


NUMBERS = (np.arange(1, 7).reshape(2, 3) / 8).astype(np.float32)


def raw(kind: int | None, data: bytes) -> BlobProto:
    message = BlobProto(raw_data=data)
    if kind is not None:
        message.raw_data_type = kind  # type: ignore[assignment]
    message.shape.dim.extend(NUMBERS.shape)
    return message


LEGACY = BlobProto(data=NUMBERS.ravel(), num=1, channels=1, height=2, width=3)
