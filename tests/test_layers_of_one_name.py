"""Several layers of one name that learn: each learns blobs of its own."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from netspec import caffe
from netspec.errors import WeightsError
from netspec.weights.caffemodel import copy_into, read_weights

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
LAYER = """layer { name: "p" type: "InnerProduct" bottom: "%s" top: "%s" inner_product_param {
  num_output: 3 weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }"""
TWO = INPUT + LAYER % ("x", "y") + LAYER % ("y", "z")
ONE = INPUT + LAYER % ("x", "y")


@pytest.fixture
def net(tmp_path: Path) -> caffe.Net:
    return in_pycaffe(tmp_path, "force_backward: true " + TWO)


def in_pycaffe(folder: Path, text: str) -> caffe.Net:
    path = folder / "net.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), caffe.TEST)


def arrays(net: caffe.Net, layer: int) -> list[np.ndarray]:
    return [blob.data.copy() for blob in net.layers[layer].blobs]


def test_each_learns_its_own(net: caffe.Net) -> None:
    (w, b), (v, c) = arrays(net, 1), arrays(net, 2)
    assert (w != v).any()
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    top = net.forward(x=x)["z"]
    np.testing.assert_allclose(top, (x @ w.T + b) @ v.T + c, rtol=1e-4)
    net.blobs["z"].diff[...] = 1
    net.backward()
    np.testing.assert_allclose(net.layers[2].blobs[1].diff, [2, 2, 2])
    np.testing.assert_allclose(net.layers[1].blobs[1].diff, 2 * v.sum(0), rtol=1e-4)


def test_pycaffe_shows_the_last_and_netspec_all(net: caffe.Net) -> None:
    assert list(net.params) == ["p"]
    np.testing.assert_array_equal(net.params["p"][0].data, arrays(net, 2)[0])
    assert list(net.module.params) == ["p", "p (2)"]
    for name, layer in (("p", 1), ("p (2)", 2)):
        np.testing.assert_array_equal(net.module.params[name][0][...], arrays(net, layer)[0])


@pytest.mark.differs("layers-of-one-name")
def test_a_file_has_both_and_gives_each_its_own(net: caffe.Net, tmp_path: Path) -> None:
    file = tmp_path / "w.caffemodel"
    net.save(str(file))
    assert [len(blobs) for blobs in read_weights(file).repeated["p"]] == [2, 2]
    other = in_pycaffe(tmp_path, TWO)
    other.params["p"][0].data[...] = 7
    other.copy_from(str(file))
    for layer in (1, 2):
        for mine, theirs in zip(arrays(net, layer), arrays(other, layer), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    shared = in_pycaffe(tmp_path, TWO)
    shared.share_with(net)
    for layer in (1, 2):
        np.testing.assert_array_equal(arrays(shared, layer)[0], arrays(net, layer)[0])


def test_a_net_with_one_takes_the_last_as_in_caffe(net: caffe.Net, tmp_path: Path) -> None:
    file = tmp_path / "w.caffemodel"
    net.save(str(file))
    one = in_pycaffe(tmp_path, ONE)
    one.copy_from(str(file))
    np.testing.assert_array_equal(arrays(one, 1)[0], arrays(net, 2)[0])


def test_a_file_with_one_is_for_the_first(tmp_path: Path) -> None:
    file = tmp_path / "w.caffemodel"
    one = in_pycaffe(tmp_path, ONE)
    one.save(str(file))
    two = in_pycaffe(tmp_path, TWO)
    before = arrays(two, 2)
    copied = copy_into(two.module, read_weights(file))
    assert copied.missing == ("p (2)",)
    np.testing.assert_array_equal(arrays(two, 1)[0], arrays(one, 1)[0])
    np.testing.assert_array_equal(arrays(two, 2)[0], before[0])


def test_hdf5_cannot_keep_both(net: caffe.Net, tmp_path: Path) -> None:
    message = r'net.prototxt:2: layer "p" \(InnerProduct\): HDF5 cannot keep two layers of one name'
    with pytest.raises(WeightsError, match=message):
        net.save_hdf5(str(tmp_path / "w.h5"))


def test_a_number_that_is_a_name_already_is_passed_over(tmp_path: Path) -> None:
    third = LAYER.replace('"p"', '"p (2)"') % ("z", "w")
    net = in_pycaffe(tmp_path, TWO + third)
    assert list(net.module.params) == ["p", "p (3)", "p (2)"]
    assert list(net.params) == ["p", "p (2)"]


def test_layers_that_learn_nothing_share_a_name_freely(tmp_path: Path) -> None:
    relu = 'layer { name: "p" type: "ReLU" bottom: "z" top: "z" }'
    net = in_pycaffe(tmp_path, INPUT + relu.replace('"z"', '"x"') + TWO[len(INPUT) :] + relu)
    assert list(net.module.params) == ["p", "p (2)"]


def test_training_changes_both(tmp_path: Path) -> None:
    loss = 'layer { name: "l" type: "Reduction" bottom: "z" top: "l" loss_weight: 1 }'
    data = """layer { name: "d" type: "DummyData" top: "x" dummy_data_param {
      shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } } }"""
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f'base_lr: 0.1 lr_policy: "fixed" max_iter: 3 test_iter: 1 test_interval: 2 '
        f'snapshot_prefix: "{tmp_path}/s" net_param {{ {data} {TWO[len(INPUT) :]} {loss} }}'
    )
    solver = caffe.get_solver(str(path))
    before = [arrays(solver.net, n) for n in (1, 2)]
    solver.solve()
    after = [arrays(solver.net, n) for n in (1, 2)]
    for was, now in zip(before, after, strict=True):
        assert (was[0] != now[0]).any()
    state = tmp_path / "s_iter_3.solverstate"
    again = caffe.get_solver(str(path))
    again.restore(str(state))
    for n, now in zip((1, 2), after, strict=True):
        for mine, array in zip(arrays(again.net, n), now, strict=True):
            np.testing.assert_array_equal(mine, array)
    again.test_nets[0].share_with(again.net)
    x = jnp.ones((2, 3))
    assert again.test_nets[0].module(x=x)["z"].shape == (2, 3)


@pytest.mark.differs("automatic-splits")
def test_nothing_is_split(tmp_path: Path) -> None:
    net = in_pycaffe(
        tmp_path,
        "force_backward: true "
        + INPUT
        + """layer { name: "a" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }
        layer { name: "b" type: "Power" bottom: "x" top: "z" power_param { scale: 3 } }""",
    )
    assert list(net.blobs) == ["x", "y", "z"]
    assert list(net._layer_names) == ["in", "a", "b"]
    net.forward(x=np.ones((2, 3), np.float32))
    for name in ("y", "z"):
        net.blobs[name].diff[...] = 1
    net.backward()
    np.testing.assert_array_equal(net.blobs["x"].diff, np.full((2, 3), 5))
