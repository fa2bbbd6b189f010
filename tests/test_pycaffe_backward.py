"""pycaffe's backward: each layer's gradient, from arrays as they are now and as they were."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backward_rows import IN_PLACE, ROWS, Arrays, Row

from netspec import caffe
from netspec.runtime.compile_cache import Compiles


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def input_text(row: Row) -> str:
    """The bottoms of a row's layer: x0, x1, ..."""
    return "".join(
        f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ '
        + " ".join(f"dim: {n}" for n in shape)
        + " } } }\n"
        for i, shape in enumerate(row.shapes)
    )


# Layers with a bottom whose gradient ``force_backward`` wants in vain, and what they say instead.
NOT_FORCED = {
    "Embed": "propagate_down: false loss_weight: 1",
    "BatchReindex": "propagate_down: true propagate_down: false loss_weight: 1",
    "InfogainLoss": "propagate_down: true propagate_down: false propagate_down: false",
}


def layer_net(row: Row, tops: Sequence[str]) -> caffe.Net:
    """A net of a row's layer."""
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(len(row.shapes)))
    names = " ".join(f'top: "{name}"' for name in tops)
    more = NOT_FORCED.get(row.name, "")
    text = (
        f'layer {{ name: "l" type: "{row.name.split()[0]}" {bottoms} {names} {row.layer} {more} }}'
    )
    forced = "" if row.name in NOT_FORCED else "force_backward: true\n"
    Path("net.prototxt").write_text(f"{forced}{input_text(row)}{text}")
    return caffe.Net("net.prototxt", caffe.TRAIN if row.phase == "TRAIN" else caffe.TEST)


def filled(row: Row, i: int, draw: np.random.Generator) -> np.ndarray:
    """What a bottom holds."""
    fill = row.fills[i] if row.fills else "normal"
    if isinstance(fill, int):
        return draw.integers(0, fill, row.shapes[i]).astype(np.float32)
    array = draw.standard_normal(row.shapes[i]).astype(np.float32)
    return np.abs(array) + 0.1 if fill == "positive" else array


def moment(net: caffe.Net, row: Row, tops: Sequence[str]) -> Arrays:
    """What a net's blobs hold."""

    def wide(blob: caffe.Blob) -> Any:
        return np.array(blob.data, np.float64)

    weights = [wide(blob) for blob in net.params["l"]] if "l" in net.params else []
    bottoms = [wide(net.blobs[f"x{i}"]) for i in range(len(row.shapes))]
    return Arrays(bottoms, [wide(net.blobs[name]) for name in tops], weights)


def check(net: caffe.Net, row: Row, tops: Sequence[str]) -> None:
    """Run forward, edit all that there is, and compare what comes back with the row's rule."""
    draw = np.random.default_rng(0)
    before = [filled(row, i, draw) for i in range(len(row.shapes))]
    for i, array in enumerate(before):
        net.blobs[f"x{i}"].data[...] = array
    for blob in net.params.get("l", ()):
        blob.data[...] = draw.uniform(0.5, 1.5, blob.shape)
    given = moment(net, row, [])
    net.forward()
    then = moment(net, row, tops)
    then = Arrays([np.float64(array) for array in before], then.y, given.w)
    for i in range(len(row.shapes)):
        net.blobs[f"x{i}"].data[...] = filled(row, i, draw)
    for name in tops:
        net.blobs[name].data[...] = draw.standard_normal(net.blobs[name].shape)
    for blob in net.params.get("l", ()):
        blob.data[...] = draw.uniform(0.5, 1.5, blob.shape)
    now = moment(net, row, tops)
    diff = net.blobs[tops[0]].diff
    diff[...] = draw.standard_normal(diff.shape)
    want = row.rule(then, now, np.array(diff, np.float64))
    net.backward()
    got = [net.blobs[f"x{i}"].diff for i in range(len(row.shapes))]
    got += [blob.diff for blob in net.params.get("l", ())]
    for i, expected in enumerate(want):
        if expected is not None:
            np.testing.assert_allclose(got[i], expected, rtol=1e-4, atol=1e-5, err_msg=str(i))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_it_reads_what_caffe_reads(row: Row, folder: Path) -> None:
    tops = ("c", "h") if row.name == "LSTMUnit" else ("y",)
    check(layer_net(row, tops), row, tops)


@pytest.mark.parametrize("row", IN_PLACE, ids=lambda row: row.name)
def test_it_reads_what_caffe_reads_in_place(row: Row, folder: Path) -> None:
    """differs("in-place-bottom"): where Caffe would take the top for the bottom."""
    check(layer_net(row, ["x0"]), row, ["x0"])


CHAIN = """
force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "bn" type: "BatchNorm" bottom: "x" top: "x" }
layer { name: "scale" type: "Scale" bottom: "x" top: "x" scale_param { bias_term: true } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
        inner_product_param { num_output: 5 weight_filler { type: "gaussian" } } }
layer { name: "bnll" type: "BNLL" bottom: "y" top: "y" }
layer { name: "drop" type: "Dropout" bottom: "y" top: "y" }
layer { name: "tanh" type: "TanH" bottom: "y" top: "y" }
layer { name: "sum" type: "Reduction" bottom: "y" top: "loss" loss_weight: 2
        reduction_param { operation: SUMSQ } }
"""
X = np.random.default_rng(5).standard_normal((4, 3)).astype(np.float32)


@pytest.fixture
def chain(folder: Path) -> caffe.Net:
    """A net of layers in place, one of them random, two on what it is fed."""
    Path("net.prototxt").write_text(CHAIN)
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    draw = np.random.default_rng(1)
    for blobs in list(net.params.values())[1:]:
        for blob in blobs:
            blob.data[...] = draw.standard_normal(blob.shape)
    net.blobs["x"].data[...] = X
    return net


def chain_gradients(net: caffe.Net) -> dict[str, np.ndarray]:
    """What `backward` should give after a whole forward, in float64."""
    (scale, bias), (weight, offset) = (
        [np.float64(blob.data) for blob in net.params[name]] for name in ("scale", "ip")
    )
    x, deviation = np.float64(X), np.sqrt(np.float64(X).var(0) + 1e-5)
    normal = (x - x.mean(0)) / deviation
    inner = (normal * scale + bias) @ weight.T + offset
    y = np.float64(net.blobs["y"].data)
    dropped = np.where(y == 0, 0.0, 2.0)
    d = 4 * y * (1 - y * y) * dropped / (1 + np.exp(-inner))
    back = d @ weight
    dn = back * scale
    dx = (dn - dn.mean(0) - normal * (dn * normal).mean(0)) / deviation
    return {
        "x": dx,
        "scale": (back * normal).sum(0),
        "bias": back.sum(0),
        "weight": d.T @ (normal * scale + bias),
        "offset": d.sum(0),
    }


def chain_found(net: caffe.Net) -> dict[str, np.ndarray]:
    """What `backward` gave."""
    names = ("scale", "bias", "weight", "offset")
    blobs = [*net.params["scale"], *net.params["ip"]]
    found = {name: blob.diff.copy() for name, blob in zip(names, blobs, strict=True)}
    return {"x": net.blobs["x"].diff.copy(), **found}


def same(got: dict[str, np.ndarray], want: dict[str, np.ndarray], times: int = 1) -> None:
    """Assert that gradients are these; learned ones so many times, as they add up."""
    for name, array in want.items():
        factor = 1 if name == "x" else times
        np.testing.assert_allclose(got[name], factor * array, rtol=2e-4, atol=1e-5, err_msg=name)


def test_layers_in_place_are_not_applied_twice(chain: caffe.Net) -> None:
    """differs("in-place-after"): Dropout overwrites what BNLL made."""
    chain.forward()
    want = chain_gradients(chain)
    for times in (1, 2):
        chain.backward()
        same(chain_found(chain), want, times)


def test_the_next_batch_may_be_written_before_backward(chain: caffe.Net) -> None:
    """As x is in place, the weight's gradient reads what is written; what lies below does not."""
    chain.forward()
    want = chain_gradients(chain)
    chain.blobs["x"].data[...] = 7
    chain.backward()
    want["weight"] = want["offset"][:, None] * np.full(3, 7.0)
    same(chain_found(chain), want)


def test_layers_one_by_one_are_the_net(chain: caffe.Net) -> None:
    names = list(chain._layer_names)
    for start, end in ((0, 0), (1, 2), (3, 5), (6, 7)):
        chain.forward(start=names[start], end=names[end])
    want = chain_gradients(chain)
    for start, end in ((7, 7), (6, 4), (3, 1)):
        chain.backward(start=names[start], end=names[end])
    same(chain_found(chain), want)
    chain.clear_param_diffs()
    chain.backward()
    same(chain_found(chain), want)


def test_callbacks_change_nothing(chain: caffe.Net) -> None:
    called: list[int] = []
    chain.after_forward(called.append)
    chain.before_backward(called.append)
    chain.forward()
    want = chain_gradients(chain)
    chain.backward()
    assert called == [*range(8), *reversed(range(8))]
    same(chain_found(chain), want)


def test_a_part_of_the_net_that_ran_again(chain: caffe.Net) -> None:
    """Dropout's mask is that of its own last forward."""
    chain.forward()
    y = chain.blobs["y"].data.copy()
    chain.forward(start="ip")
    assert ((y == 0) != (chain.blobs["y"].data == 0)).any()
    want = chain_gradients(chain)
    chain.backward()
    same(chain_found(chain), want)


def test_one_program_whatever_is_edited(chain: caffe.Net) -> None:
    chain.forward()
    for _ in range(2):  # The second adds to the diffs of the first.
        chain.backward()
    chain.params["ip"][0].data[...] = 1
    chain.blobs["x"].data[...] = 1
    chain.blobs["y"].data[...] = 0.5
    chain.blobs["loss"].diff[...] = 3
    with Compiles() as compiles:
        chain.backward()
    assert compiles.count == 0


def test_the_diff_of_a_loss_counts(chain: caffe.Net) -> None:
    chain.forward()
    want = chain_gradients(chain)
    chain.blobs["loss"].diff[...] = 6
    chain.backward()
    same(chain_found(chain), {name: 3 * array for name, array in want.items()})


FORK = """
force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 } } }
layer { name: "double" type: "Power" bottom: "x" top: "h" power_param { scale: 2 } }
layer { name: "left" type: "Power" bottom: "h" top: "l" power_param { scale: 3 } }
layer { name: "right" type: "Power" bottom: "h" top: "r" power_param { scale: 5 } }
layer { name: "sum" type: "Eltwise" bottom: "l" bottom: "r" top: "y" }
"""


@pytest.mark.parametrize("ends", [["sum"], ["left", "sum"], ["double", "left", "right", "sum"]])
def test_what_comes_back_from_several_forwards_adds_up(folder: Path, ends: list[str]) -> None:
    Path("net.prototxt").write_text(FORK)
    net = caffe.Net("net.prototxt", caffe.TEST)
    names = ["x", "double", "left", "right", "sum"]
    start = 0
    for end in ends:
        net.forward(start=names[start], end=end)
        start = names.index(end) + 1
    net.backward(y=np.array([1, 2, 3]))
    assert net.blobs["h"].diff.tolist() == [8, 16, 24]
    assert net.blobs["x"].diff.tolist() == [16, 32, 48]


USER = """
import caffe
import numpy as np

class Mask(caffe.Layer):
    def setup(self, bottom, top):
        self.calls = []
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        self.calls.append("forward")
        self.mask = np.random.rand(*bottom[0].data.shape) > 0.5
        top[0].data[...] = bottom[0].data * self.mask
    def backward(self, top, propagate_down, bottom):
        self.calls.append("backward")
        self.seen = top[0].data.copy(), bottom[0].data.copy()
        bottom[0].diff[...] = top[0].diff * self.mask
"""
MASKED = """
force_backward: true
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 20 } } }
layer { name: "mask" type: "Python" bottom: "x" top: "y"
        python_param { module: "MODULE" layer: "Mask" } }
layer { name: "plus" type: "Power" bottom: "y" top: "y" power_param { shift: 1 power: 2 } }
layer { name: "sum" type: "Reduction" bottom: "y" top: "sum" loss_weight: 1 }
"""


@pytest.fixture
def masked(folder: Path) -> Iterator[caffe.Net]:
    """A net with a layer in Python whose top the next layer overwrites."""
    module = f"masks_of_{folder.name}"
    Path(f"{module}.py").write_text(USER)
    Path("masked.prototxt").write_text(MASKED.replace("MODULE", module))
    net = caffe.Net("masked.prototxt", caffe.TRAIN)
    net.blobs["x"].data[...] = 2
    yield net
    sys.modules.pop(module, None)


def test_forward_of_a_layer_in_python_is_called_once(masked: caffe.Net) -> None:
    masked.forward()
    layer = masked.layers[1]
    want = 2 * (1 + 2 * layer.mask) * layer.mask
    for times in (1, 2):
        masked.backward()
        assert layer.calls == ["forward"] + ["backward"] * times
        np.testing.assert_allclose(masked.blobs["x"].diff, want)
    top, bottom = layer.seen
    assert (bottom == 2).all()
    np.testing.assert_allclose(top, 2 * layer.mask)
    masked.blobs["x"].data[...] = 9
    masked.backward(start="mask")
    assert (layer.seen[1] == 9).all()


def test_layers_that_share_their_tops_memory_read_it(folder: Path) -> None:
    """A mask, or probabilities, that Caffe's layer keeps in its second top."""
    Path("net.prototxt").write_text("""
    force_backward: true
    layer { name: "in" type: "Input" top: "x" top: "t"
            input_param { shape { dim: 1 dim: 1 dim: 2 dim: 2 } shape { dim: 1 dim: 2 dim: 2 } } }
    layer { name: "pool" type: "Pooling" bottom: "x" top: "y" top: "mask"
            pooling_param { kernel_size: 2 } }
    layer { name: "w" type: "Input" top: "s" input_param { shape { dim: 1 dim: 3 dim: 2 dim: 2 } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "t" top: "loss" top: "p"
            loss_weight: 1 loss_weight: 0 }
    """)
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.blobs["x"].data[...] = [[1, 2], [4, 3]]
    net.forward()
    assert net.blobs["mask"].data.ravel().tolist() == [2]
    net.blobs["mask"].data[...] = 1
    net.blobs["y"].diff[...] = 5
    net.blobs["p"].data[...] = 0.25
    net.backward()
    assert net.blobs["x"].diff.ravel().tolist() == [0, 5, 0, 0]
    np.testing.assert_allclose(net.blobs["s"].diff[0, 0], np.full((2, 2), -0.75 / 4))
    np.testing.assert_allclose(net.blobs["s"].diff[0, 1:], np.full((2, 2, 2), 0.25 / 4))


def test_a_selector_counts_as_it_was(folder: Path) -> None:
    Path("net.prototxt").write_text("""
    layer { name: "in" type: "Input" top: "x" top: "s"
            input_param { shape { dim: 4 dim: 2 } shape { dim: 4 } } }
    layer { name: "f" type: "Filter" bottom: "x" bottom: "s" top: "y" loss_weight: 1
            propagate_down: true propagate_down: false }
    """)
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.blobs["s"].data[...] = [0, 1, 0, 1]
    net.forward()
    net.blobs["s"].data[...] = 1
    net.blobs["y"].diff[...] = [[1, 2], [3, 4]]
    net.backward()
    assert net.blobs["x"].diff.tolist() == [[0, 0], [1, 2], [0, 0], [3, 4]]


def test_an_axis_that_mvn_adds_in_place(folder: Path) -> None:
    Path("net.prototxt").write_text("""
    force_backward: true
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 } } }
    layer { name: "m" type: "MVN" bottom: "x" top: "x" }
    """)
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    draw = np.random.default_rng(2)
    assert net.blobs["x"].shape == (2, 3, 4, 1)
    x, d = draw.standard_normal((2, 2, 3, 4, 1))
    net.blobs["x"].data[...] = x
    net.forward()
    net.blobs["x"].diff[...] = d
    net.backward()
    deviation = x.std((2, 3), keepdims=True)
    y = (x - x.mean((2, 3), keepdims=True)) / deviation
    want = d - d.mean((2, 3), keepdims=True) - y * (d * y).mean((2, 3), keepdims=True)
    np.testing.assert_allclose(net.blobs["x"].diff, want / deviation, rtol=1e-4, atol=1e-5)


def test_backward_after_a_step_takes_the_step_s_pass(chain: caffe.Net) -> None:
    """What Dropout dropped, and what it was fed; nothing was learned, as the rate is zero."""
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" max_iter: 10 type: "SGD"'
    )
    solver = caffe.get_solver("solver.prototxt")
    for mine, theirs in zip(solver.net.params.values(), chain.params.values(), strict=True):
        for blob, other in zip(mine, theirs, strict=True):
            blob.data[...] = other.data
    solver.net.blobs["x"].data[...] = X
    solver.step(1)
    want = chain_gradients(solver.net)
    solver.net.clear_param_diffs()
    solver.net.backward()
    same(chain_found(solver.net), want)
    solver.net.clear_param_diffs()
    solver.net.forward(x=X)
    want = chain_gradients(solver.net)
    solver.net.backward()
    solver.apply_update()
    solver.net.clear_param_diffs()
    solver.net.backward()
    same(chain_found(solver.net), want)


def small(text: str, dims: str, phase: int = caffe.TRAIN) -> caffe.Net:
    """A net on an input x."""
    Path("net.prototxt").write_text(
        'force_backward: true layer { name: "x" type: "Input" top: "x" input_param { shape { '
        f"{dims} }} }} }} {text}"
    )
    return caffe.Net("net.prototxt", phase)


@pytest.mark.differs("hinge-again")
def test_hinge_loss_may_go_back_again(folder: Path) -> None:
    net = small(
        """layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 1 } } }
        layer { name: "l" type: "HingeLoss" bottom: "x" bottom: "t" top: "l" }""",
        "dim: 1 dim: 3",
    )
    net.blobs["x"].data[...] = [0.5, 2, -3]
    net.forward()
    for _ in range(2):
        net.backward()
        assert net.blobs["x"].diff.tolist() == [[-1, 1, 0]]
        net.blobs["x"].diff[...] = 7


@pytest.mark.differs("power-at-zero")
def test_power_at_zero(folder: Path) -> None:
    text = 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { power: 3 } }'
    net = small(text, "dim: 2")
    net.blobs["x"].data[...] = [0, 2]
    net.forward()
    net.backward(y=np.ones(2))
    assert net.blobs["x"].diff.tolist() == [0, 12]


@pytest.mark.differs("diff-of-nothing")
def test_nothing_comes_back(folder: Path) -> None:
    Path("net.prototxt").write_text(FORK.replace("force_backward: true", ""))
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.forward()
    net.blobs["h"].diff[...] = 4
    net.backward()
    assert net.blobs["h"].diff.tolist() == [0, 0, 0]


@pytest.mark.differs("diff-of-a-range")
def test_a_range_starts_from_its_own_seeds(folder: Path) -> None:
    Path("net.prototxt").write_text(FORK)
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.forward()
    net.backward(y=np.ones(3))
    net.backward(start="left")
    assert net.blobs["h"].diff.tolist() == [3, 3, 3]
    assert net.blobs["x"].diff.tolist() == [6, 6, 6]


@pytest.mark.differs("backward-after-step")
def test_what_was_overwritten_is_made_of_the_new_weights(folder: Path) -> None:
    small(
        """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
                inner_product_param { num_output: 1 bias_term: false
                                      weight_filler { value: 0.5 } } }
        layer { name: "b" type: "BNLL" bottom: "y" top: "y" }
        layer { name: "l" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }""",
        "dim: 1 dim: 1",
    )
    Path("solver.prototxt").write_text('net: "net.prototxt" base_lr: 1 lr_policy: "fixed"')
    solver = caffe.get_solver("solver.prototxt")
    solver.net.blobs["x"].data[...] = 2
    solver.step(1)
    before = 1 / (1 + np.exp(-1))
    after = 1 / (1 + np.exp(-2 * (0.5 - 2 * before)))
    np.testing.assert_allclose(solver.net.params["ip"][0].diff, 2 * before, rtol=1e-5)
    solver.net.clear_param_diffs()
    solver.net.backward()
    np.testing.assert_allclose(solver.net.params["ip"][0].diff, 2 * after, rtol=1e-5)
