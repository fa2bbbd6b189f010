from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from netspec import caffe
from netspec.errors import GraphError, LayerError, NetSpecError, WeightsError

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


# What a net shows


def test_names_and_shapes() -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    assert [(name, blob.data.shape) for name, blob in net.blobs.items()] == [
        ("x", (2, 3)),
        ("h", (2, 5)),
        ("y", (2, 7)),
        ("loss", (2, 7)),
        ("side", (2, 5)),
    ]
    assert all(blob.diff.shape == blob.shape == blob.data.shape for blob in net.blobs.values())
    assert {name: [b.data.shape for b in blobs] for name, blobs in net.params.items()} == {
        "first": [(5, 3), (5,)],
        "second": [(7, 5)],
    }
    assert (net.inputs, net.outputs) == (["x"], ["loss", "side"])
    assert net._layer_names == ["data", "first", "relu", "second", "square", "side"]
    assert [layer.type for layer in net.layers][:3] == ["Input", "InnerProduct", "ReLU"]
    assert net.layers[1].blobs == net.params["first"]


def test_legacy_axes() -> None:
    blob = caffe.Blob((2, 3, 5))
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 3, 5, 1, 30)
    with pytest.raises(ValueError, match="speak of 4 axes; this has 5"):
        assert caffe.Blob((1, 2, 3, 5, 7)).num


def test_ways_to_open_a_net() -> None:
    filled().save("x.caffemodel")
    for net in (
        caffe.Net("net.prototxt", "x.caffemodel", caffe.TEST),
        caffe.Net("net.prototxt", caffe.TEST, weights="x.caffemodel"),
        caffe.Net("net.prototxt", phase=caffe.TEST, weights="x.caffemodel"),
    ):
        assert np.array_equal(net.params["second"][0].data, W2)
    with pytest.raises(TypeError, match=r"needs a phase: caffe\.TRAIN or caffe\.TEST"):
        caffe.Net("net.prototxt")
    with pytest.raises(TypeError, match=r"needs a phase: caffe\.TRAIN or caffe\.TEST"):
        caffe.Net("net.prototxt", 7)
    with pytest.raises(NetSpecError, match=r"^no\.prototxt: no such file$"):
        caffe.Net("no.prototxt", caffe.TEST)


def test_phase_level_and_stages_choose_layers() -> None:
    rules = ("phase: TRAIN", "min_level: 2", 'stage: "deploy"', 'not_stage: "deploy"')
    Path("rules.prototxt").write_text(
        "".join(
            f'layer {{ name: "{i}" type: "Input" top: "{i}" include {{ {rule} }}'
            " input_param { shape { dim: 1 } } }\n"
            for i, rule in enumerate(rules)
        )
    )
    assert list(caffe.Net("rules.prototxt", caffe.TRAIN).blobs) == ["0", "3"]
    assert list(caffe.Net("rules.prototxt", caffe.TEST, level=2).blobs) == ["1", "3"]
    assert list(caffe.Net("rules.prototxt", caffe.TEST, stages=["deploy"]).blobs) == ["2"]


# Forward


def test_forward_sees_what_is_written() -> None:
    net = filled()
    made = net.forward()
    assert sorted(made) == ["loss", "side"]
    for name, array in forward().items():
        close(net.blobs[name].data, array)
        assert name not in made or np.array_equal(made[name], net.blobs[name].data)
    # A view stays good: writing to it later is seen as well.
    view = net.blobs["x"].data
    for factor in (2, -1):
        view[...] = factor * X
        net.forward()
        close(net.blobs["loss"].data, forward(factor * X)["loss"])
    net.params["second"][0].data[0] = 0
    net.forward()
    assert (net.blobs["y"].data[:, 0] == 0).all()


def test_forward_takes_inputs_and_gives_blobs() -> None:
    net = filled()
    made = net.forward(blobs=["h"], x=-X)
    assert sorted(made) == ["h", "loss", "side"]
    close(made["h"], forward(-X)["h"])
    with pytest.raises(ValueError, match='no input blob "z"; the net has x'):
        net.forward(z=X)


def test_forward_of_some_layers() -> None:
    net = filled()
    made = net.forward(end="second")
    assert list(made) == ["y"]
    close(made["y"], forward()["y"])
    assert (net.blobs["loss"].data == 0).all()
    # From the middle on, what stands in the blobs counts.
    net.blobs["y"].data[...] = 2
    assert sorted(net.forward(start="square")) == ["loss", "side"]
    assert (net.blobs["loss"].data == 4).all()
    close(net.blobs["side"].data, forward()["side"])
    for wrong in ({"start": "sceond"}, {"end": "sceond"}):
        with pytest.raises(GraphError, match='no layer "sceond"; did you mean "second"'):
            net.forward(**wrong)


# Backward


def test_backward_is_the_gradient_of_the_weighted_losses() -> None:
    net = filled()
    assert (net.blobs["loss"].diff == 0.5).all()
    assert (net.blobs["side"].diff == 0).all()
    net.forward()
    assert list(net.backward()) == ["x"]
    expected = backward()
    for name in ("x", "y", "h"):
        close(net.blobs[name].diff, expected[name])
    blobs = [*net.params["first"], *net.params["second"]]
    for blob, name in zip(blobs, ("W1", "B1", "W2"), strict=True):
        close(blob.diff, expected[name])


def test_backward_starts_from_the_diffs_of_outputs() -> None:
    Path("forced.prototxt").write_text("force_backward: true " + Path("net.prototxt").read_text())
    net = filled("forced.prototxt")
    net.forward()
    dside = np.arange(10, dtype=np.float32).reshape(2, 5)
    made = net.backward(diffs=["h"], side=dside)
    assert sorted(made) == ["h", "x"]
    close(made["x"], backward(dside)["x"])
    assert np.array_equal(net.blobs["side"].diff, dside)
    net.blobs["loss"].diff[...] = 0
    net.blobs["side"].diff[...] = 0
    assert (net.backward()["x"] == 0).all()


def test_what_no_loss_depends_on_has_no_gradient_unless_forced() -> None:
    net = filled()
    net.forward()
    made = net.backward(side=np.ones((2, 5), np.float32))
    close(made["x"], backward()["x"])
    close(net.params["first"][0].diff, backward()["W1"])
    assert (net.blobs["side"].diff == 1).all()


def test_the_diff_of_an_in_place_blob_is_that_before_the_layer() -> None:
    net = filled()
    net.forward()
    net.backward()
    assert (net.blobs["h"].data == 0).any()
    assert (net.blobs["h"].diff[net.blobs["h"].data == 0] == 0).all()


def test_diffs_of_params_add_up() -> None:
    net = filled()
    net.forward()
    net.backward()
    net.backward()
    blob = net.params["first"][0]
    close(blob.diff, 2 * backward()["W1"])
    blob.diff[...] = 1
    net.backward()
    close(blob.diff, 1 + backward()["W1"])
    close(net.blobs["x"].diff, backward()["x"])


def test_backward_of_some_layers() -> None:
    net = filled()
    net.forward()
    dy = np.ones((2, 7), np.float32)
    net.blobs["y"].diff[...] = dy
    made = net.backward(start="second", end="second")
    assert list(made) == ["h"]
    close(made["h"], dy @ W2)
    close(net.params["second"][0].diff, dy.T @ forward()["h"])
    assert (net.params["first"][0].diff == 0).all()
    assert (net.blobs["x"].diff == 0).all()


def test_frozen_params_have_no_diff_unless_forced() -> None:
    net = filled("frozen.prototxt")
    net.forward()
    net.backward()
    assert (net.params["second"][0].diff == 0).all()
    close(net.params["first"][0].diff, backward()["W1"])
    forced = "force_backward: true " + Path("frozen.prototxt").read_text()
    Path("forced.prototxt").write_text(forced)
    net = filled("forced.prototxt")
    net.forward()
    net.backward()
    close(net.params["second"][0].diff, backward()["W2"])


DROP = """
layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 1 dim: 100 } } }
layer { name: "drop" type: "Dropout" bottom: "x" top: "y" }
"""


def test_backward_draws_what_forward_drew() -> None:
    Path("drop.prototxt").write_text("force_backward: true" + DROP)
    net = caffe.Net("drop.prototxt", caffe.TRAIN)
    net.blobs["x"].data[...] = 1
    first = net.forward()["y"].copy()
    net.backward(y=np.ones((1, 100)))
    assert 20 < (first == 0).sum() < 80
    assert np.array_equal(net.blobs["x"].diff, first)
    assert not np.array_equal(net.forward()["y"], first)


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
