"""The pycaffe face of a net: opening, forward, backward."""

from pathlib import Path

import numpy as np
import pytest
from face_net import W2, X, backward, close, filled, forward
from face_net import folder as folder

from netspec import caffe
from netspec.errors import GraphError, NetSpecError

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


@pytest.mark.differs("all-diffs")
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


def test_force_backward_overrides_propagate_down() -> None:
    text = """force_backward: %s layer { name: "d" type: "Input" top: "x" top: "t" input_param {
        shape { dim: 2 dim: 3 } shape { dim: 2 } } }
    layer { name: "p" type: "Power" bottom: "x" top: "y" propagate_down: false }
    layer { name: "l" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "l"
        propagate_down: true propagate_down: false }"""
    for forced in ("true", "false"):
        Path("stopped.prototxt").write_text(text % forced)
        net = caffe.Net("stopped.prototxt", caffe.TEST)
        net.forward()
        net.backward()
        assert net.blobs["y"].diff.any()
        assert np.array_equal(net.blobs["x"].diff, net.blobs["y"].diff) == (forced == "true")
        assert not net.blobs["t"].diff.any()


def test_backward_draws_what_forward_drew() -> None:
    Path("drop.prototxt").write_text("force_backward: true" + DROP)
    net = caffe.Net("drop.prototxt", caffe.TRAIN)
    net.blobs["x"].data[...] = 1
    first = net.forward()["y"].copy()
    net.backward(y=np.ones((1, 100)))
    assert 20 < (first == 0).sum() < 80
    assert np.array_equal(net.blobs["x"].diff, first)
    assert not np.array_equal(net.forward()["y"], first)
