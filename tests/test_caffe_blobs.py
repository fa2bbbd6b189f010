"""The pycaffe face of a net: shapes, params, states, data layers and solvers."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from face_net import B1, DRAW, NET, W1, W2, X, backward, close, filled, forward
from face_net import folder as folder
from numpy.typing import NDArray

from netspec import caffe
from netspec.errors import LayerError, WeightsError

# Shapes that change


def test_reshape() -> None:
    net = filled()
    x = DRAW.standard_normal((5, 3)).astype(np.float32)
    net.blobs["x"].reshape(5, 3)
    net.blobs["x"].data[...] = x
    net.reshape()
    assert {name: blob.data.shape[0] for name, blob in net.blobs.items()} == dict.fromkeys(
        net.blobs, 5
    )
    net.forward()
    net.blobs["loss"].diff[...] = 0.5
    net.backward()
    close(net.blobs["loss"].data, forward(x)["loss"])
    close(net.blobs["x"].diff, backward(x=x)["x"])
    # Forward reshapes on its own.
    net.blobs["x"].reshape(1, 3)
    net.blobs["x"].data[...] = X[:1]
    close(net.forward()["loss"], forward(X[:1])["loss"])


def test_a_blob_keeps_what_fits_when_it_is_reshaped() -> None:
    blob = caffe.Blob((2, 3))
    blob.data[...] = np.arange(6).reshape(2, 3)
    blob.reshape(4, 2)
    assert blob.data.tolist() == [[0, 1], [2, 3], [4, 5], [0, 0]]
    blob.reshape(2)
    assert blob.data.tolist() == [0, 1]


def test_a_shape_that_cannot_be() -> None:
    net = filled()
    net.blobs["x"].reshape(2, 4)
    with pytest.raises(LayerError) as raised:
        net.reshape()
    assert str(raised.value) == (
        'net.prototxt:4: layer "first" (InnerProduct): its weight is 5x3, but this input needs '
        "5x4; the layer cannot work at this size"
    )
    net.blobs["x"].reshape(2, 3)
    net.reshape()
    net.forward()


# Params

TWINS = """
layer { name: "data" type: "Input" top: "x" top: "z" input_param { shape { dim: 2 dim: 3 } } }
layer {
  name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
  inner_product_param { num_output: 5 bias_term: false }
}
layer {
  name: "b" type: "InnerProduct" bottom: "z" top: "b" param { name: "w" }
  inner_product_param { num_output: 5 bias_term: false }
}
"""


def test_shared_params_are_one_blob() -> None:
    Path("twins.prototxt").write_text("force_backward: true" + TWINS)
    net = caffe.Net("twins.prototxt", caffe.TEST)
    assert net.params["a"][0] is net.params["b"][0]
    net.params["b"][0].data[...] = W1
    z = X[::-1] * 2
    net.forward(x=X, z=z)
    close(net.blobs["a"].data, X @ W1.T)
    close(net.blobs["b"].data, z @ W1.T)
    ones = np.ones((2, 5), np.float32)
    net.backward(a=ones, b=2 * ones)
    close(net.params["a"][0].diff, ones.T @ X + 2 * ones.T @ z)


def test_a_permissive_sharer_has_its_own_shape_over_the_same_numbers() -> None:
    text = TWINS.replace("dim: 2 dim: 3 }", "dim: 2 dim: 3 } shape { dim: 2 dim: 5 }")
    before, last = text.rsplit("num_output: 5", 1)
    text = (
        before.rsplit('name: "w"', 1)[0]
        + 'name: "w" share_mode: PERMISSIVE'
        + (before.rsplit('name: "w"', 1)[1] + "num_output: 3" + last)
    )
    Path("twins.prototxt").write_text("force_backward: true" + text)
    net = caffe.Net("twins.prototxt", caffe.TEST)
    (mine,), (theirs,) = net.params["a"], net.params["b"]
    assert (mine.shape, theirs.shape, theirs.data.shape) == ((5, 3), (3, 5), (3, 5))
    assert (theirs.num, theirs.channels, theirs.count) == (3, 5, 15)
    assert list(net.layers[2].blobs) == [theirs]
    theirs.data[...] = W1.reshape(3, 5)
    assert np.array_equal(mine.data, W1)
    view = theirs.data
    mine.data[0, 0] = 7
    assert view[0, 0] == 7
    view[0, 0] = W1[0, 0]
    z = np.arange(10, dtype=np.float32).reshape(2, 5)
    net.forward(x=X, z=z)
    close(net.blobs["a"].data, X @ W1.T)
    close(net.blobs["b"].data, z @ W1.reshape(3, 5).T)
    net.backward(a=np.ones((2, 5), np.float32), b=np.ones((2, 3), np.float32))
    total = np.ones((5, 2)) @ X + (np.ones((3, 2)) @ z).reshape(5, 3)
    close(mine.diff, total)
    close(theirs.diff, total.reshape(3, 5))
    theirs.diff[...] = 0
    assert not mine.diff.any()
    theirs.reshape(3, 5)
    with pytest.raises(ValueError, match="this is a learned blob of 3x5"):
        theirs.reshape(5, 3)


def test_weights_go_in_and_out() -> None:
    net = filled()
    net.save("x.caffemodel")
    net.save("x.caffemodel.h5")
    for name in ("x.caffemodel", "x.caffemodel.h5"):
        other = caffe.Net("net.prototxt", caffe.TEST)
        before = other.params["first"][0].data
        other.copy_from(name)
        assert np.array_equal(other.params["first"][0].data, W1)
        assert other.params["first"][0].data is before
        assert np.array_equal(other.params["first"][1].data, B1)
    with pytest.raises(WeightsError, match=r"^no\.caffemodel: cannot read: no such file$"):
        net.copy_from("no.caffemodel")


# Memory

LSTM = """
force_backward: true
layer { name: "in" type: "Input" top: "x" top: "cont"
  input_param { shape { dim: 2 dim: 3 dim: 5 } shape { dim: 2 dim: 3 } } }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
  recurrent_param { num_output: 7 weight_filler { type: "xavier" } } }
"""


@pytest.mark.slow
def test_states_go_from_forward_to_forward() -> None:
    Path("lstm.prototxt").write_text(LSTM)
    net = caffe.Net("lstm.prototxt", caffe.TEST)
    assert [blob.shape for blob in net.params["lstm"]] == [(28, 5), (28,), (28, 7)]
    assert len(net.layers[1].blobs) == 3
    steps = DRAW.standard_normal((4, 3, 5)).astype(np.float32)
    seed = DRAW.standard_normal((4, 3, 7)).astype(np.float32)
    ones = np.ones((2, 3), np.float32)
    parts = []
    for part in (slice(2), slice(2, 4)):
        net.blobs["h"].diff[...] = seed[part]
        net.forward(x=steps[part], cont=ones)
        net.backward()
        parts.append([net.blobs["h"].data.copy(), net.blobs["x"].diff.copy()])
    net.save("lstm.caffemodel")
    whole = caffe.Net("lstm.prototxt", "lstm.caffemodel", caffe.TEST)
    whole.blobs["x"].reshape(4, 3, 5)
    whole.blobs["cont"].reshape(4, 3)
    whole.reshape()
    # What comes back from the second part does not reach the first.
    whole.blobs["h"].diff[2:] = seed[2:]
    whole.forward(x=steps, cont=np.ones((4, 3), np.float32))
    whole.backward()
    close(np.concatenate([parts[0][0], parts[1][0]]), whole.blobs["h"].data)
    close(parts[1][1], whole.blobs["x"].diff[2:])
    whole.blobs["h"].diff[:2], whole.blobs["h"].diff[2:] = seed[:2], 0
    whole.forward(x=steps, cont=np.concatenate([0 * ones[:1], ones, ones[:1]]))
    whole.backward()
    close(parts[0][1], whole.blobs["x"].diff[:2])
    # Other streams have left nothing.
    whole.blobs["x"].reshape(4, 2, 5)
    whole.blobs["cont"].reshape(4, 2)
    whole.reshape()
    whole.backward()
    assert whole.blobs["x"].diff.shape == (4, 2, 5)


# Data layers

DATA = """
layer {
  name: "data" type: "HDF5Data" top: "x" hdf5_data_param { source: "rows.txt" batch_size: 2 }
}
"""


def write_rows() -> NDArray[np.float32]:
    rows = DRAW.standard_normal((5, 3)).astype(np.float32)
    with h5py.File("rows.h5", "w") as file:
        file["x"] = rows
    Path("rows.txt").write_text("rows.h5\n")
    return rows


def trained(data: str = DATA) -> str:
    """The net on a data layer instead of its Input layer."""
    return data + NET.replace("FROZEN", "")[NET.index('layer {\n  name: "first"') :]


def test_data_layers_feed_each_forward() -> None:
    rows = write_rows()
    Path("data.prototxt").write_text(trained())
    net = filled("data.prototxt")
    assert net.inputs == []
    for batch in ([0, 1], [2, 3], [4, 0]):
        net.forward()
        assert np.array_equal(net.blobs["x"].data, rows[batch])
        close(net.blobs["loss"].data, forward(rows[batch])["loss"])
    # Layers behind the data do not take a batch.
    net.forward(start="first")
    assert np.array_equal(net.blobs["x"].data, rows[[4, 0]])


class Growing:
    """A feed whose batches grow."""

    def __init__(self) -> None:
        self.sizes = iter((1, 4, 2))

    def next(self, shapes: object) -> dict[str, NDArray[np.float32]]:
        return {"x": np.ones((next(self.sizes), 3), np.float32)}


def test_data_of_changing_size_reshapes_every_blob() -> None:
    net: Any = filled()
    net.feed = Growing()
    for size in (1, 4, 2):
        net.forward()
        for blob in net.blobs.values():
            assert blob.data.shape[0] == blob.diff.shape[0] == size
        close(net.blobs["loss"].data, forward(np.ones((size, 3), np.float32))["loss"])


# Solvers


def solver(net: str, more: str = "") -> caffe.Solver:
    Path("train.prototxt").write_text(net)
    Path("solver.prototxt").write_text(
        'net: "train.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3 ' + more
    )
    return caffe.get_solver("solver.prototxt")


def test_a_solver_trains_the_net_that_it_shows() -> None:
    rows = write_rows()
    run = solver(trained(), "test_iter: 1 test_interval: 10")
    run.net.params["first"][0].data[...] = W1
    run.net.params["first"][1].data[...] = B1
    run.net.params["second"][0].data[...] = W2
    run.step(1)
    expected = backward(x=rows[:2])
    close(run.net.params["first"][0].data, W1 - 0.1 * expected["W1"])
    close(run.net.params["first"][1].data, B1 - 0.1 * expected["B1"])
    close(run.net.params["second"][0].data, W2 - 0.1 * expected["W2"])
    # Its blobs are those of the pass before the update.
    for name, array in forward(rows[:2]).items():
        close(run.net.blobs[name].data, array)
    assert (run.iter, run.param.max_iter) == (1, 3)
    # The train net and the loop draw from one stream of data.
    run.net.forward()
    assert np.array_equal(run.net.blobs["x"].data, rows[2:4])
    run.step(1)
    assert np.array_equal(run.net.blobs["x"].data, rows[[4, 0]])


def test_test_nets_see_the_trained_arrays() -> None:
    write_rows()
    run = solver(trained(), "test_iter: 1 test_interval: 10")
    (test,) = run.test_nets
    for _ in range(2):
        run.step(1)
        assert np.array_equal(test.params["first"][0].data, run.net.params["first"][0].data)
        test.forward()


def test_a_solver_takes_input_blobs_as_they_stand() -> None:
    run = solver(NET.replace("FROZEN", ""))
    for layer, *arrays in (("first", W1, B1), ("second", W2)):
        for blob, array in zip(run.net.params[layer], arrays, strict=True):
            blob.data[...] = array
    run.net.blobs["x"].data[...] = X
    run.step(1)
    close(run.net.params["second"][0].data, W2 - 0.1 * backward()["W2"])


def test_solve_snapshot_and_restore() -> None:
    write_rows()
    run = solver(trained())
    run.solve()
    assert run.iter == 3
    trained_weight = run.net.params["first"][0].data.copy()
    run.net.params["first"][0].data[0, 0] = 9
    run.snapshot()
    other = caffe.get_solver("solver.prototxt")
    other.solve("solver_iter_3.solverstate")
    assert other.iter == 3
    assert other.net.params["first"][0].data[0, 0] == 9
    assert np.array_equal(other.net.params["first"][0].data[1:], trained_weight[1:])
