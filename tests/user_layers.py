"""Layers in Python as users write them."""

import sys
from pathlib import Path

import numpy as np
import pytest

import netspec

MODULE = """
import caffe
import numpy as np


class Times(caffe.Layer):
    def setup(self, bottom, top):
        self.factor = float(self.param_str)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * top[0].diff


class HalfSquare(caffe.Layer):
    # Keeps what forward found for backward, as pycaffe's example of a loss does.
    def setup(self, bottom, top):
        assert len(bottom) == 2

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.difference = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference**2) / bottom[0].num / 2

    def backward(self, top, propagate_down, bottom):
        for i, sign in enumerate((1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * self.difference * top[0].diff / bottom[i].num


class Phase(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape()

    def forward(self, bottom, top):
        top[0].data[()] = self.phase


class Square(caffe.Layer):
    # Reshapes once and for all; forward imports what backward needs.
    def setup(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        import caffe

        self.phases = caffe.TRAIN, caffe.TEST
        top[0].data[...] = top[0].data**2 if self.param_str == "in place" else bottom[0].data**2

    def backward(self, top, propagate_down, bottom):
        assert self.phase in self.phases
        root = np.sqrt(bottom[0].data) if self.param_str == "in place" else bottom[0].data
        bottom[0].diff[...] = 2 * root * top[0].diff


class Log(caffe.Layer):
    lines = []

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        for blob in top:
            blob.reshape(1)

    def forward(self, bottom, top):
        self.lines.append(bottom[0].data.sum())

    def backward(self, top, propagate_down, bottom):
        pass


class Told(HalfSquare):
    told = []

    def backward(self, top, propagate_down, bottom):
        self.told.append(list(propagate_down))
        for blob in bottom:
            blob.diff[...] = 9
        HalfSquare.backward(self, top, propagate_down, bottom)


class Weigh(Times):
    def setup(self, bottom, top):
        self.blobs.add_blob(1, 3)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = [[1, 2, 4]]

    def forward(self, bottom, top):
        weight, bias = (blob.data for blob in self.blobs)
        top[0].data[...] = weight * bottom[0].data + bias

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] = np.sum(top[0].diff * bottom[0].data, 0)
        for row in top[0].diff:
            self.blobs[1].diff[0] += row.sum()
        bottom[0].diff[...] = self.blobs[0].data * top[0].diff


class Count(Times):
    # As often as it ran: what it learned of its data.
    def setup(self, bottom, top):
        self.blobs.add_blob(1)

    def forward(self, bottom, top):
        self.blobs[0].data[0] += 1
        top[0].data[...] = self.blobs[0].data[0] * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.blobs[0].data[0] * top[0].diff


class Parameter(Times):
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 0

    def forward(self, bottom, top):
        pass

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] = 1


class Careless(Times):
    def setup(self, bottom, top):
        self.runs = 0

    def reshape(self, bottom, top):
        if self.param_str != "shapeless":
            Times.reshape(self, bottom, top)

    def forward(self, bottom, top):
        self.runs += 1
        if self.param_str == "grows":
            top[0].reshape(2, int(bottom[0].data.max()))
        elif self.param_str == "adds":
            self.blobs.add_blob(3)
        elif self.param_str == "replaces":
            top[0].data = bottom[0].data
        elif self.param_str == "second" and self.runs == 2:
            raise RuntimeError


class Broken(Times):
    def setup(self, bottom, top):
        self.factor = 1
        self.at("setup")

    def reshape(self, bottom, top):
        Times.reshape(self, bottom, top)
        self.at("reshape")

    def forward(self, bottom, top):
        self.at("forward")

    def backward(self, top, propagate_down, bottom):
        self.at("backward")

    def at(self, step):
        if self.param_str == step:
            raise ValueError("seven is no colour")
"""
INPUTS = """
force_backward: true
layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } } }
"""


def python(layer: str, bottoms: str = "x", param: str = "", extra: str = "") -> str:
    reads = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    return (
        f'layer {{ name: "p" type: "Python" {reads} top: "y" {extra}\n'
        f'  python_param {{ module: "my_layers" layer: "{layer}" param_str: "{param}" }} }}'
    )


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with my_layers.py in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_layers", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("my_layers.py").write_text(MODULE)
    return tmp_path


def load(text: str, phase: str = "test") -> netspec.Net:
    Path("net.prototxt").write_text(INPUTS + text)
    return netspec.load("net.prototxt", phase=phase, run_python=True)


X = np.arange(6, dtype=np.float32).reshape(2, 3)
T = np.array([[1, 1, -1], [0, 2, 5]], np.float32)


IP = """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "h" RATE
  inner_product_param { num_output: 3 bias_term: false weight_filler { value: 1 } } }
"""


LOSS = python("Told", "h t", extra="loss_weight: 1").replace('"p"', '"loss"')
