"""The pycaffe face: memory that is seen on both sides, passes in part, and calls on the way."""

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netspec import caffe
from netspec.errors import LayerError
from netspec.runtime.compile_cache import Compiles

NET = """
force_backward: true
layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer {
  name: "first" type: "InnerProduct" bottom: "x" top: "h"
  inner_product_param { num_output: 5 weight_filler { type: "gaussian" } }
}
layer { name: "square" type: "Power" bottom: "h" top: "s" power_param { power: 2 } }
layer { name: "fork" type: "Power" bottom: "h" top: "f" power_param { scale: 3 } }
layer { name: "sum" type: "Eltwise" bottom: "s" bottom: "f" top: "y" }
"""
X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    return tmp_path


@pytest.fixture
def net() -> caffe.Net:
    made = caffe.Net("net.prototxt", caffe.TEST)
    made.blobs["x"].data[...] = X
    return made


def made_of(net: caffe.Net) -> np.ndarray:
    """What the net should make of its input, by hand."""
    weight, bias = (blob.data for blob in net.params["first"])
    h = net.blobs["x"].data @ weight.T + bias
    return h * h + 3 * h


def close(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


# Memory


WRITES: dict[str, Callable[[caffe.Net], Any]] = {
    "all": lambda net: net.params["first"][0].data.__setitem__(..., 2),
    "flat": lambda net: setattr(net.params["first"][0].data, "flat", np.arange(15)),
    "row": lambda net: net.params["first"][0].data[1].__setitem__(slice(1, 3), [7, 8]),
    "bias": lambda net: net.params["first"][1].data.fill(-1),
    "layer": lambda net: net.layers[1].blobs[0].data.__imul__(2),
    "input": lambda net: net.blobs["x"].data[0].__iadd__(9),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("ran", [False, True])
def test_the_next_forward_sees_a_write(
    net: caffe.Net, write: Callable[[caffe.Net], Any], ran: bool
) -> None:
    if ran:
        net.forward()
    write(net)
    close(net.forward()["y"], made_of(net))
    # And another one, though nobody has touched anything since.
    close(net.forward()["y"], made_of(net))


VIEWS: dict[str, Callable[[np.ndarray], Any]] = {
    "itself": lambda data: data,
    "whole": lambda data: data[...],
    "part of a part": lambda data: data[:1][:, 1:],
    "turned": lambda data: data.T,
    "flat": lambda data: data.flat,
    "flattened": lambda data: data.reshape(-1),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_that_is_held_is_the_memory(
    net: caffe.Net, view: Callable[[np.ndarray], Any]
) -> None:
    weight, made = view(net.params["first"][0].data), view(net.blobs["y"].data)
    for value in (2, 5):
        weight[:] = value
        net.forward()
        close(np.array(made), np.array(view(made_of(net))))
    net.copy_from(saved(net, 3))
    assert np.unique(np.array(weight)).tolist() == [3]


def saved(net: caffe.Net, value: float) -> str:
    """A weight file of one value throughout."""
    other = caffe.Net("net.prototxt", caffe.TEST)
    for blob in other.params["first"]:
        blob.data[...] = value
    other.save("other.caffemodel")
    return "other.caffemodel"


def test_nothing_crosses_over_that_nobody_holds(net: caffe.Net) -> None:
    mirror = net.params["first"][0].data_mirror
    mirror.host[...] = 1
    net.forward()
    before = mirror.device
    net.forward()
    assert mirror.device is before
    held = mirror.host
    net.forward()
    assert mirror.device is not before
    before = mirror.device
    del held
    gc.collect()
    _ = mirror.device
    before = mirror.device
    net.forward()
    assert mirror.device is before


def test_forward_reads_nothing_that_nobody_asks_for(net: caffe.Net) -> None:
    made = net.forward()
    mirror = net.blobs["y"].data_mirror
    assert list(made) == ["y"]
    assert not mirror.is_on_host
    held = made["y"]
    assert held is net.blobs["y"].data
    assert mirror.is_on_host


def test_blobs_outlive_their_net(net: caffe.Net) -> None:
    net.forward()
    blobs, params = list(net.blobs.values()), net.params["first"]
    expected = made_of(net)
    del net
    gc.collect()
    close(blobs[-1].data, expected)
    assert params[0].diff.sum() == 0


def test_a_learned_blob_keeps_its_shape(net: caffe.Net) -> None:
    with pytest.raises(ValueError, match="this is a learned blob of 5x3, as its layer has it"):
        net.params["first"][0].reshape(5, 4)


# Passes


def test_middle_blobs_may_be_edited(net: caffe.Net) -> None:
    net.forward()
    h = net.blobs["h"]
    h.data[...] = np.arange(10).reshape(2, 5)
    made = net.forward(start="square")["y"]
    close(made, h.data**2 + 3 * h.data)
    # What follows goes back from what stands there, not from what was computed there once.
    net.clear_param_diffs()
    net.backward(y=np.ones((2, 5)))
    dh = 2 * h.data + 3
    close(net.params["first"][0].diff, dh.T @ X)
    close(net.blobs["x"].diff, dh @ net.params["first"][0].data)
    # Reading is no editing: the same program serves.
    net.forward()
    net.backward()
    with Compiles() as compiles:
        _ = net.blobs["h"].data, net.blobs["s"].data
        net.backward()
    assert compiles.count == 0


def test_shapes_that_were_seen_are_not_compiled_again(net: caffe.Net) -> None:
    def run(rows: int) -> None:
        net.blobs["x"].reshape(rows, 3)
        net.forward()

    for rows in (1, 4, 2):
        run(rows)
    with Compiles() as compiles:
        for rows in (4, 2, 1, 4):
            run(rows)
            assert net.blobs["y"].shape == net.blobs["y"].data.shape == (rows, 5)
    assert compiles.count == 0


def test_nets_that_are_alike_have_one_program() -> None:
    def run() -> caffe.Net:
        made = caffe.Net("net.prototxt", caffe.TEST)
        made.forward()
        made.backward()
        return made

    first = run()
    with Compiles() as compiles:
        second = run()
    assert compiles.count == 0
    # Alike is not the same: each has arrays of its own.
    first.params["first"][0].data[...] = 2
    assert (second.params["first"][0].data != 2).all()
    Path("net.prototxt").write_text(NET.replace("scale: 3", "scale: 4"))
    with Compiles() as compiles:
        np.testing.assert_allclose(run().blobs["f"].data, 0)
    assert compiles.count > 0


def test_a_file_that_a_layer_reads_is_read_for_each_net() -> None:
    """Nets of one text may still be of other files."""
    Path("net.prototxt").write_text("""
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 } } }
    layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 } } }
    layer { name: "loss" type: "InfogainLoss" bottom: "x" bottom: "t" top: "loss"
            infogain_loss_param { source: "matrix.binaryproto" } }
    """)
    losses, nets = [], []
    for weight in (1, 3):
        matrix = caffe.io.array_to_blobproto(np.full((1, 1, 2, 2), weight, np.float32))
        Path("matrix.binaryproto").write_bytes(matrix.SerializeToString())
        nets.append(caffe.Net("net.prototxt", caffe.TEST))
        losses.append(float(nets[-1].forward()["loss"]))
    assert losses[1] == pytest.approx(3 * losses[0])


def test_callbacks_are_called_layer_by_layer(net: caffe.Net) -> None:
    net.forward()
    net.backward(y=np.ones((2, 5)))
    whole = {name: (blob.data.copy(), blob.diff.copy()) for name, blob in net.blobs.items()}
    weight = net.params["first"][0].diff.copy()
    net.clear_param_diffs()
    called: list[tuple[str, int]] = []
    for when in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, when)(lambda n, when=when: called.append((when, n)))
    net.forward()
    net.backward()
    ways = [("forward", range(5)), ("backward", range(4, -1, -1))]
    assert called == [
        (f"{when}_{way}", n) for way, order in ways for n in order for when in ("before", "after")
    ]
    for name, (data, diff) in whole.items():
        close(net.blobs[name].data, data)
        close(net.blobs[name].diff, diff)
    close(net.params["first"][0].diff, weight)


def test_a_callback_may_write(net: caffe.Net) -> None:
    def double(n: int) -> None:
        if n == 1:
            net.blobs["h"].data[...] *= 2

    net.after_forward(double)
    weight, bias = (blob.data for blob in net.params["first"])
    h = 2 * (X @ weight.T + bias)
    close(net.forward()["y"], h * h + 3 * h)


ROWS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def test_forward_all_takes_any_number_of_rows(net: caffe.Net) -> None:
    made = net.forward_all(blobs=["h"], x=ROWS)
    weight, bias = (blob.data for blob in net.params["first"])
    h = ROWS @ weight.T + bias
    assert sorted(made) == ["h", "y"]
    close(made["y"], h * h + 3 * h)
    seeds = np.ones((5, 5), np.float32)
    blobs, diffs = net.forward_backward_all(diffs=["h"], x=ROWS, y=seeds)
    close(blobs["y"], h * h + 3 * h)
    close(diffs["h"], 2 * h + 3)
    close(diffs["x"], (2 * h + 3) @ weight)


def test_arrays_must_have_the_net_s_batch_size(net: caffe.Net) -> None:
    with pytest.raises(ValueError, match='"x" is 2x3, and is given 1x3: reshape the blob first'):
        net.forward(x=X[:1])
    with pytest.raises(ValueError, match='no output blob "h"; the net has y'):
        net.backward(h=X)


def test_names(net: caffe.Net) -> None:
    assert list(net.layer_dict) == ["data", "first", "square", "fork", "sum"]
    assert net.layer_dict["first"].type == "InnerProduct"
    assert net.top_names["sum"] == ["y"]
    assert net.bottom_names["sum"] == ["s", "f"]
    assert set(net.blob_loss_weights.values()) == {0}
    assert list(net.blob_loss_weights) == list(net.blobs)
    with pytest.raises(AttributeError, match="a layer of type Power has no attribute 'top'"):
        assert net.layers[2].top


# Sharing


def test_numbers_of_blobs(net: caffe.Net) -> None:
    assert net._blob_names == ["x", "h", "s", "f", "y"]
    assert net._blobs[3] is net.blobs["f"]
    assert (net._inputs, net._outputs) == ([0], [4])
    assert [net._top_ids(n) for n in range(5)] == [[0], [1], [2], [3], [4]]
    assert [net._bottom_ids(n) for n in range(5)] == [[], [0], [1], [1], [2, 3]]


def test_nets_that_share_have_one_memory(net: caffe.Net) -> None:
    other = caffe.Net("net.prototxt", caffe.TEST)
    other.share_with(net)
    held = other.params["first"][0].data
    net.params["first"][0].data[...] = 4
    assert (held == 4).all()
    for each in (net, other):
        close(each.forward(x=X)["y"], made_of(each))
    held[...] = 5
    close(net.forward()["y"], made_of(net))
    assert (net.params["first"][0].data == 5).all()
    other.copy_from(saved(net, 6))
    assert (net.params["first"][0].data == 6).all()
    other.save("x.caffemodel")
    net.backward(y=np.ones((2, 5)))
    assert (other.params["first"][0].diff == 0).all()


def test_nets_of_other_shapes_cannot_share(net: caffe.Net) -> None:
    Path("wide.prototxt").write_text(NET.replace("num_output: 5", "num_output: 7"))
    with pytest.raises(LayerError) as raised:
        caffe.Net("wide.prototxt", caffe.TEST).share_with(net)
    assert str(raised.value) == (
        'wide.prototxt:4: layer "first" (InnerProduct): its weight is 7x3, 5x3 in the net to share '
        "with"
    )


def test_hdf5_whatever_the_name(net: caffe.Net) -> None:
    net.params["first"][0].data[...] = 3
    net.save_hdf5("weights")
    other = caffe.Net("net.prototxt", caffe.TEST)
    other.load_hdf5("weights")
    assert (other.params["first"][0].data == 3).all()


# Python layers


LAYER = """
import caffe

class Times(caffe.Layer):
    def setup(self, bottom, top):
        self.factor = 2
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        if self.factor == 0:
            raise KeyError("no factor")
        top[0].data[...] = self.factor * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = self.factor * top[0].diff

class Count(caffe.Layer):
    def setup(self, bottom, top):
        self.count = 0
    def reshape(self, bottom, top):
        top[0].reshape(1, 3)
    def forward(self, bottom, top):
        self.count += 1
        top[0].data[...] = self.count
    def backward(self, top, propagate_down, bottom):
        pass
"""
USERS = """
layer { name: "count" type: "Python" top: "x" python_param { module: "MODULE" layer: "Count" } }
layer { name: "times" type: "Python" bottom: "x" top: "y"
  python_param { module: "MODULE" layer: "Times" } }
"""


@pytest.fixture
def users(request: pytest.FixtureRequest) -> Iterator[caffe.Net]:
    module = f"users_of_{request.node.name.partition('[')[0]}"
    Path(f"{module}.py").write_text(LAYER)
    Path("users.prototxt").write_text(USERS.replace("MODULE", module))
    yield caffe.Net("users.prototxt", caffe.TEST)
    sys.modules.pop(module, None)


def test_layers_are_the_users_own_objects(users: caffe.Net) -> None:
    count, times = users.layers
    assert (count.type, times.type, times.factor) == ("Python", "Python", 2)
    assert users.forward()["y"].tolist() == [[2, 2, 2]]
    assert count.count >= 1
    times.factor = 5
    assert users.forward()["y"].tolist() == [[10, 10, 10]]


def test_what_a_layer_raises_is_a_runtime_error(users: caffe.Net) -> None:
    users.layers[1].factor = 0
    with pytest.raises(RuntimeError, match=r"layer \"times\" .*Times.forward: KeyError: 'no fac"):
        users.forward()
