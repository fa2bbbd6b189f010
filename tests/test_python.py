import re
import sys
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from click.testing import CliRunner

import netspec
from netspec import caffe
from netspec.cli import main
from netspec.errors import LayerError

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
    return netspec.load("net.prototxt", phase=phase)


X = np.arange(6, dtype=np.float32).reshape(2, 3)
T = np.array([[1, 1, -1], [0, 2, 5]], np.float32)


def test_it_computes_inside_the_program() -> None:
    net = load(python("Times", param="2.5"))
    assert net(x=X, t=T)["y"].tolist() == (2.5 * X).tolist()
    assert jax.jit(lambda x: net(x=x, t=T)["y"])(X).tolist() == (2.5 * X).tolist()
    assert net(x=X[:1], t=T)["y"].shape == (1, 3)
    assert "caffe" not in sys.modules or sys.modules["caffe"].__name__ != "caffe"


def test_gradients() -> None:
    Path("net.prototxt").write_text(
        INPUTS
        + python("Times", param="2.5").replace('top: "y"', 'top: "z"').replace('"p"', '"q"')
        + python("HalfSquare", "z t", extra="loss_weight: 3")
    )
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.blobs["x"].data[...], net.blobs["t"].data[...] = X, T
    net.forward()
    net.backward()
    difference = 2.5 * X - T
    np.testing.assert_allclose(net.blobs["y"].data, [np.sum(difference**2) / 4])
    np.testing.assert_allclose(net.blobs["x"].diff, 3 * 2.5 * difference / 2)
    np.testing.assert_allclose(net.blobs["t"].diff, -3 * difference / 2)


@pytest.mark.parametrize(("phase", "value"), [("train", 0), ("test", 1)])
def test_it_knows_its_phase(phase: str, value: int) -> None:
    assert load(python("Phase"), phase)(x=X, t=T)["y"].tolist() == value


@pytest.mark.parametrize("step", ["setup", "reshape"])
def test_errors_while_the_net_is_built(step: str) -> None:
    message = (
        rf'net\.prototxt:4: layer "p" \(Python\): my_layers\.Broken\.{step}: ValueError: seven '
    )
    with pytest.raises(LayerError, match=message + r"is no colour \(.*my_layers\.py:\d+\)$"):
        load(python("Broken", param=step))


def test_errors_while_the_net_runs() -> None:
    net = load(python("Broken", param="forward"))
    for _ in range(2):
        with pytest.raises(
            LayerError, match=r'"p" \(Python\): my_layers\.Broken\.forward: ValueErr'
        ):
            net(x=X, t=T)


def test_errors_on_the_way_back(caplog: pytest.LogCaptureFixture) -> None:
    Path("net.prototxt").write_text(INPUTS + python("Broken", param="backward"))
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.forward()
    with pytest.raises(
        LayerError, match=r"my_layers\.Broken\.backward: ValueError: seven is no co"
    ):
        net.backward()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "my_layers",
            "her_layers",
            'no module "her_layers" in the current folder or on PYTHONPATH',
        ),
        ('"Times"', '"Tines"', 'module "my_layers" has no class "Tines"; did you mean "Times"?'),
    ],
)
def test_classes_that_are_not_there(before: str, after: str, message: str) -> None:
    with pytest.raises(LayerError, match=re.escape(message)):
        load(python("Times", param="2").replace(before, after))


def test_training_through_a_python_loss() -> None:
    with h5py.File("rows.h5", "w") as file:
        file.update({"x": X, "t": T})
    Path("rows.txt").write_text("rows.h5\n")
    Path("net.prototxt").write_text(
        """
        layer { name: "in" type: "HDF5Data" top: "x" top: "t"
          hdf5_data_param { source: "rows.txt" batch_size: 2 } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "h"
          inner_product_param { num_output: 3 bias_term: false } }
        """
        + python("HalfSquare", "h t", extra="loss_weight: 1")
    )
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "s"'
    )
    result = CliRunner().invoke(main, ["solve", "solver.prototxt"])
    assert result.exit_code == 0, result.output
    trained = caffe.Net("net.prototxt", "s_iter_1.caffemodel", caffe.TEST)
    np.testing.assert_allclose(trained.params["ip"][0].data, 0.1 * T.T @ X / 2, rtol=1e-6)
