"""A net behind the pycaffe face."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from netspec import caffe

NET = """
name: "face"
layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer {
  name: "first" type: "InnerProduct" bottom: "x" top: "h"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } }
}
layer { name: "relu" type: "ReLU" bottom: "h" top: "h" }
layer {
  name: "second" type: "InnerProduct" bottom: "h" top: "y" param { FROZEN }
  inner_product_param { num_output: 7 bias_term: false weight_filler { type: "xavier" } }
}
layer {
  name: "square" type: "Power" bottom: "y" top: "loss" loss_weight: 0.5 power_param { power: 2 }
}
layer { name: "side" type: "Power" bottom: "h" top: "side" power_param { scale: 3 } }
"""
DRAW = np.random.default_rng(0)
X, W1, B1, W2 = (
    DRAW.standard_normal(shape).astype(np.float32) for shape in ((2, 3), (5, 3), (5,), (7, 5))
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET.replace("FROZEN", ""))
    Path("frozen.prototxt").write_text(NET.replace("FROZEN", "lr_mult: 0"))
    return tmp_path


def filled(file: str = "net.prototxt", phase: int = caffe.TEST) -> caffe.Net:
    """The net, its numbers written into the views that it shows."""
    net = caffe.Net(file, phase)
    net.blobs["x"].data[...] = X
    for layer, *arrays in (("first", W1, B1), ("second", W2)):
        for blob, array in zip(net.params[layer], arrays, strict=True):
            blob.data[...] = array
    return net


def close(got: ArrayLike, want: ArrayLike) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def forward(x: NDArray[np.float32] = X) -> dict[str, NDArray[np.float32]]:
    """What the net makes of x, by hand."""
    h = np.maximum(x @ W1.T + B1, 0)
    y = h @ W2.T
    return {"x": x, "h": h, "y": y, "loss": y * y, "side": 3 * h}


def backward(dside: ArrayLike = 0.0, x: NDArray[np.float32] = X) -> dict[str, NDArray[np.float32]]:
    """The gradients of 0.5 sum(loss) + sum(dside * side), by hand."""
    made = forward(x)
    dy = made["y"]
    dh = (dy @ W2 + 3 * np.asarray(dside)) * (made["h"] > 0)
    params = {"W1": dh.T @ x, "B1": dh.sum(0), "W2": dy.T @ made["h"]}
    return {"x": dh @ W1, "h": dh, "y": dy, **params}
