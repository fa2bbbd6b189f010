"""Layers in Python: arrays that they learn, and the training of them."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from flax import nnx
from user_layers import INPUTS, IP, LOSS, T, X, load, python
from user_layers import folder as folder

import netspec
from netspec import caffe
from netspec.cli import main

# Learned blobs

WEIGHT = np.array([[1, 2, 4]], np.float32)


def test_blobs_that_setup_adds_are_learned_arrays() -> None:
    net = load(python("Weigh"))
    weight, bias = net.params["p"]
    assert isinstance(weight, nnx.Param)
    assert net(x=X, t=T)["y"].tolist() == (WEIGHT * X).tolist()
    bias.set_value(np.float32([5]))
    assert net(x=X, t=T)["y"].tolist() == (WEIGHT * X + 5).tolist()
    for _ in range(2):
        found = nnx.grad(lambda net: (net(x=X, t=T)["y"] * T).sum())(net)
        gradients = found["params"]["_layers"]["p"]
        assert gradients["blob0"][...].tolist() == (X * T).sum(0, keepdims=True).tolist()
        assert gradients["blob1"][...].tolist() == [T.sum()]
    # Another net of the same file starts where setup did.
    assert (
        netspec.load("net.prototxt", run_python=True)(x=X, t=T)["y"].tolist()
        == (WEIGHT * X).tolist()
    )


def test_blobs_in_pycaffes_face() -> None:
    Path("net.prototxt").write_text(INPUTS + python("Parameter"))
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.forward()
    net.backward()
    layer = net.layers[list(net._layer_names).index("p")]
    assert layer.blobs[0] is net.params["p"][0]
    assert (layer.blobs[0].data[0], layer.blobs[0].diff[0]) == (0, 1)
    layer.blobs[0].data[0] += layer.blobs[0].diff[0]
    net.save("saved")
    layer.blobs[0].data[0] = -1
    net.copy_from("saved")
    assert layer.blobs[0].data[0] == 1


def test_stated_blobs_come_before_those_of_setup() -> None:
    stated = "".join(
        f"blobs {{ shape {{ {dims} }} {data} }}"
        for dims, data in (("dim: 1 dim: 3", "data: [7, 7, 7]"), ("dim: 1", "data: 1"))
    )
    assert load(python("Weigh", extra=stated))(x=X, t=T)["y"].tolist() == (7 * X + 1).tolist()


def test_blobs_are_shared_by_name() -> None:
    one = python("Weigh", extra='param { name: "w" } param { name: "b" }')
    two = one.replace('"p"', '"q"').replace('bottom: "x"', 'bottom: "t"').replace('"y"', '"z"')
    net = load(one + two)
    assert net.params["p"][0] is net.params["q"][0]
    net.params["q"][0].set_value(np.float32([[1, 0, 0]]))
    blobs = net(x=X, t=T)
    assert [blobs[name][:, 0].tolist() for name in "yz"] == [X[:, 0].tolist(), T[:, 0].tolist()]


@pytest.mark.parametrize(("rate", "counts"), [(0, [1, 2, 3]), (1, [1, 1, 1])])
def test_what_forward_writes_is_kept_where_nothing_learns(rate: int, counts: list[int]) -> None:
    """differs("python-writes-learned")."""
    net = load(python("Count", extra=f"param {{ lr_mult: {rate} }}"))
    assert [net(x=X, t=T)["y"].tolist() for _ in counts] == [(n * X).tolist() for n in counts]
    face = caffe.Net("net.prototxt", caffe.TEST)
    face.blobs["x"].data[...], face.blobs["y"].diff[...] = X, T
    # As in Caffe, memory that is written stays so.
    for count in (1, 2, 3):
        face.forward()
        face.backward()
        assert face.blobs["x"].diff.tolist() == (count * T).tolist()
        assert face.params["p"][0].data[0] == count


def test_layers_that_share_what_they_write_go_on_from_each_other() -> None:
    one = python("Count", extra='param { name: "n" lr_mult: 0 }')
    net = load(one + one.replace('"p"', '"q"').replace('"y"', '"z"'))
    for count in (1, 3):
        blobs = net(x=X, t=T)
        assert blobs["y"].tolist() == (count * X).tolist()
        assert blobs["z"].tolist() == ((count + 1) * X).tolist()


# Training


def solved(text: str, settings: str = "") -> caffe.Net:
    """The net on rows of x and t after one update by SGD."""
    with h5py.File("rows.h5", "w") as file:
        file.update({"x": X, "t": T})
    Path("rows.txt").write_text("rows.h5\n")
    source = """layer { name: "in" type: "HDF5Data" top: "x" top: "t"
      hdf5_data_param { source: "rows.txt" batch_size: 2 } }"""
    Path("net.prototxt").write_text(source + text)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 snapshot_prefix: "s"'
        + settings
    )
    result = CliRunner().invoke(main, ["solve", "solver.prototxt"])
    assert result.exit_code == 0, result.output
    return caffe.Net("net.prototxt", "s_iter_1.caffemodel", caffe.TEST)


def test_blobs_are_trained_and_kept() -> None:
    text = (
        python("Count", extra="param { lr_mult: 0 }").replace('"p"', '"c"').replace('"y"', '"n"')
        + python("Weigh", "n", extra="param { lr_mult: 3 }").replace('"y"', '"h"')
        + LOSS
    )
    trained = solved(text, "momentum: 0.9")
    difference = WEIGHT * X - T
    weight, bias = (blob.data for blob in trained.params["p"])
    np.testing.assert_allclose(weight, WEIGHT - 0.3 * np.sum(difference * X / 2, 0), rtol=1e-6)
    np.testing.assert_allclose(bias, [-0.1 * difference.sum() / 2], rtol=1e-6)
    assert trained.params["c"][0].data.tolist() == [1]
    # The solver's history goes on, too.
    solver = caffe.get_solver("solver.prototxt")
    solver.restore("s_iter_1.solverstate")
    solver.step(1)
    assert solver.net.params["c"][0].data.tolist() == [2]
    step = weight - solver.net.params["p"][0].data
    difference = 2 * X * weight + bias - T
    momentum = 0.9 * (WEIGHT - weight)
    np.testing.assert_allclose(step, momentum + 0.3 * np.sum(difference * 2 * X / 2, 0), rtol=1e-4)


def test_training_through_a_python_loss() -> None:
    trained = solved(IP.replace("RATE", "").replace("value: 1", "") + LOSS)
    np.testing.assert_allclose(trained.params["ip"][0].data, 0.1 * T.T @ X / 2, rtol=1e-6)
