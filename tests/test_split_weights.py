"""What loss weights come to where a top is read on: numbers of Caffe 1.0."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from netspec import caffe
from netspec.errors import LayerError
from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.split_weights import LossTerm

X = [[1.0, -2.0, 3.0], [0.5, 0.0, -1.0]]
FEED = """layer { name: "in" type: "Input" top: "x" top: "t" input_param {
    shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 } } }
"""
LOSS = 'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "t" top: "l" %s }\n'
POWER = 'layer { name: "p" type: "Power" bottom: "l" top: "m" %s power_param { scale: 2 } }\n'
SILENCE = 'layer { name: "s" type: "Silence" bottom: "l" }\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def opened(text: str, phase: int = caffe.TRAIN) -> caffe.Net:
    Path("net.prototxt").write_text(text)
    return caffe.Net("net.prototxt", phase)


def ran(text: str, **diffs: float) -> caffe.Net:
    """A net after a forward and a backward pass."""
    net = opened(text)
    net.blobs["x"].data[...] = X
    net.forward()
    for name, diff in diffs.items():
        net.blobs[name].diff[...] = diff
    net.backward()
    return net


def terms(text: str) -> Sequence[LossTerm]:
    return connect(parse_net(text)).loss_terms


# The gradient of the loss alone, of weight 1.
ALONE = np.asarray(X) / 2


@pytest.mark.parametrize(
    ("weight", "reader", "times"),
    [
        # What comes back overwrites the weight that is not written.
        ("", POWER % "", 2 * 0.75),
        ("", POWER % "loss_weight: 1", 2),
        # A written one is added to it, and the loss's own is overwritten.
        ("loss_weight: 3", POWER % "", 3 + 2 * 0.75),
        ("loss_weight: 3", POWER % "loss_weight: 1", 3 + 2),
        ("loss_weight: 0", POWER % "", 2 * 0.75),
        # Where gradients are forced, a layer that swallows the loss sends back zeros.
        ("", SILENCE, 0),
        ("loss_weight: 3", SILENCE, 3),
    ],
)
def test_gradients_of_a_loss_that_is_read_on(weight: str, reader: str, times: float) -> None:
    seeds = {"m": 0.75} if "Power" in reader and "loss_weight" not in reader else {}
    net = ran("force_backward: true " + FEED + LOSS % weight + reader, **seeds)
    np.testing.assert_allclose(net.blobs["x"].diff, times * ALONE, rtol=1e-6)
    np.testing.assert_allclose(net.blobs["t"].diff, -times * ALONE, rtol=1e-6)


def test_a_loss_read_as_a_label_keeps_its_weight() -> None:
    """A forced backward pass does not reach labels, so nothing overwrites the weight."""
    label = """layer { name: "r" type: "Reshape" bottom: "x" top: "z"
        reshape_param { shape { dim: 6 } } }
        layer { name: "h" type: "HingeLoss" bottom: "z" bottom: "l" top: "g" loss_weight: 0 }"""
    graph = connect(parse_net("force_backward: true " + FEED + LOSS % "" + label))
    assert [term.has_gradient for term in graph.loss_terms] == [True]


LEARNED = """layer { name: "in" type: "Input" top: "d" top: "t" input_param {
    shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "d" top: "x" inner_product_param { num_output: 3
    weight_filler { type: "constant" value: 0.5 } } }
"""


@pytest.mark.parametrize(
    ("weight", "reader", "times", "reported"),
    [
        ("", "", 1, 1),
        ("", POWER % "loss_weight: 1", 2, 1 + 2),
        ("loss_weight: 3", POWER % "loss_weight: 1", 3 + 2, 1 + 3 + 2),
        # Caffe trains nothing by a loss that only layers without a loss read.
        ("", POWER % "", 0, 1),
        ("", SILENCE, 0, 1),
        ("loss_weight: 3", SILENCE, 3, 1 + 3),
    ],
)
def test_training_by_a_loss_that_is_read_on(
    weight: str, reader: str, times: float, reported: float
) -> None:
    """The same by a solver's step; what is reported has the implicit weight as well."""
    loss, update = trained(LEARNED + LOSS % "")
    made, moved = trained(LEARNED + LOSS % weight + reader)
    np.testing.assert_allclose(made, reported * loss, rtol=1e-6)
    np.testing.assert_allclose(moved, times * update, rtol=1e-5, atol=1e-7)


def trained(text: str) -> tuple[float, np.ndarray]:
    """The loss that a pass reports, and what an update adds to the weight."""
    Path("net.prototxt").write_text(text)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 solver_mode: CPU'
    )
    solver = caffe.SGDSolver("solver.prototxt")
    solver.net.blobs["d"].data[...] = X
    loss = solver.net._forward(0, len(solver.net.layers) - 1)
    before = solver.net.params["ip"][0].data.copy()
    solver.step(1)
    return loss, solver.net.params["ip"][0].data - before


@pytest.mark.differs("loss-read-on-later")
def test_a_loss_that_is_read_on_reports_the_same_in_each_pass() -> None:
    """In Caffe the gradient that came back stands in the loss's diff, and is its weight then."""
    net = opened("force_backward: true " + FEED + LOSS % "" + POWER % "")
    net.blobs["x"].data[...] = X
    last = len(net.layers) - 1
    first = net._forward(0, last)
    assert first == pytest.approx(float(net.blobs["l"].data))
    net.blobs["m"].diff[...] = 5
    net.backward()
    assert net.blobs["l"].diff == 10
    assert net._forward(0, last) == first


SLICE = """layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b"
    loss_weight: 3 loss_weight: 5 slice_param { slice_point: 1 } }
"""


def test_a_weight_that_moves_takes_those_of_the_other_tops_away() -> None:
    """Caffe's split has the one weight, and the layer none of those that were written."""
    read = 'layer { name: "q" type: "Power" bottom: "b" top: "c" }'
    net = ran("force_backward: true " + FEED + SLICE + read, c=7)
    assert net.blob_loss_weights == {"x": 0, "t": 0, "a": 0, "b": 0, "c": 0}
    assert net.blobs["x"].diff.tolist() == [[0, 12, 12]] * 2
    assert not net.blobs["a"].diff.any()
    assert net._forward(0, 2) == pytest.approx(5 * np.asarray(X)[:, 1:].sum())


def test_weights_stay_where_no_top_is_read_on() -> None:
    net = ran("force_backward: true " + FEED + SLICE)
    assert net.blob_loss_weights == {"x": 0, "t": 0, "a": 3, "b": 5}
    assert net.blobs["x"].diff.tolist() == [[3, 5, 5]] * 2


def test_a_loss_has_its_own_weight_beside_a_written_one_that_moved() -> None:
    net = opened(FEED + LOSS % "loss_weight: 3" + POWER % "")
    assert net.blob_loss_weights == {"x": 0, "t": 0, "l": 1, "m": 0}
    assert terms(FEED + LOSS % "loss_weight: 3" + POWER % "") == (
        LossTerm(2, 1, has_gradient=False, is_own=True),
        LossTerm(2, 3, has_gradient=True, is_own=False),
    )


def test_a_layer_in_place_has_the_last_word_on_a_blobs_weight() -> None:
    text = FEED + 'layer { name: "p" type: "Power" bottom: "x" top: "x" loss_weight: 2 }'
    assert opened(text).blob_loss_weights == {"x": 2, "t": 0}
    net = opened(FEED + LOSS % "" + 'layer { name: "p" type: "Power" bottom: "l" top: "l" }')
    assert net.blob_loss_weights == {"x": 0, "t": 0, "l": 0}


@pytest.mark.differs("loss-weight-count")
def test_a_wrong_number_of_weights_is_refused_even_where_they_move() -> None:
    read = 'layer { name: "q" type: "Power" bottom: "b" top: "c" }'
    with pytest.raises(LayerError, match="3 loss_weight for 2 tops"):
        connect(parse_net(FEED + SLICE.replace("3 loss", "3 loss_weight: 1 loss") + read))


# The automatic top


def test_automatic_tops_are_shown() -> None:
    text = FEED + (LOSS % "").replace('top: "l"', "")
    net = opened(text)
    net.blobs["x"].data[...] = X
    assert net.forward() == {}
    assert list(net.blobs) == ["x", "t", "(automatic)"]
    assert net.blobs["(automatic)"].data == pytest.approx(np.square(X).sum() / 4)
    assert net.blob_loss_weights == {"x": 0, "t": 0, "(automatic)": 1}
    assert net.top_names == {"in": ["x", "t"], "loss": ["(automatic)"]}
    assert net._top_ids(1) == [2]
    assert net.outputs == []
    net.blobs["(automatic)"].diff[...] = 3
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, 3 * ALONE, rtol=1e-6)


def test_of_two_automatic_tops_the_last_is_shown() -> None:
    first = (LOSS % "").replace('top: "l"', "")
    second = first.replace('"loss"', '"second"').replace("{", "{ loss_weight: 2", 1)
    net = ran("force_backward: true " + FEED + first + second)
    assert list(net.blobs) == ["x", "t", "(automatic)"]
    assert net.blob_loss_weights["(automatic)"] == 2
    assert net.blobs["(automatic)"].diff == 2
    np.testing.assert_allclose(net.blobs["x"].diff, 3 * ALONE, rtol=1e-6)
    net.blobs["(automatic)"].diff[...] = 5
    net.backward()
    np.testing.assert_allclose(net.blobs["x"].diff, 6 * ALONE, rtol=1e-6)


def test_a_step_shows_the_automatic_top() -> None:
    Path("net.prototxt").write_text(LEARNED + (LOSS % "").replace('top: "l"', ""))
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 solver_mode: CPU'
    )
    solver = caffe.SGDSolver("solver.prototxt")
    solver.net.blobs["d"].data[...] = X
    solver.step(1)
    scores = solver.net.blobs["x"].data
    assert solver.net.blobs["(automatic)"].data == pytest.approx(np.square(scores).sum() / 4)
