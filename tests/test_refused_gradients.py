"""Backward passes that Caffe aborts are refused, when it would."""

from pathlib import Path

import pytest

from netspec import caffe
from netspec.errors import LayerError
from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.refused_gradients import check_backward
from netspec.frontend.shapes import infer

# d is data, x is learned, t are labels.
HEAD = """layer { name: "in" type: "Input" top: "d" top: "t" input_param {
    shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "d" top: "x" inner_product_param { num_output: 3 } }
"""
LOSS = 'layer { name: "l" type: "EuclideanLoss" bottom: "m" bottom: "m" top: "l" %s }\n'
# One learned number for each item.
ONE = """layer { name: "one" type: "InnerProduct" bottom: "d" top: "i" inner_product_param {
    num_output: 1 } }
layer { name: "flat" type: "Reshape" bottom: "i" top: "j" reshape_param { shape { dim: 2 } } }
"""


def message(text: str) -> str:
    """What is said of a net's backward pass, without the place."""
    shapes = infer(connect(parse_net(text)))
    try:
        check_backward(shapes)
    except LayerError as error:
        return str(error).split(": ", 1)[1]
    return ""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


THROUGH = (
    "but the backward pass wants one; write propagate_down: false for its top in the layers that "
    "read it"
)


@pytest.mark.parametrize("layer", ["ArgMax", "Threshold"])
def test_no_gradient_goes_through_these(layer: str) -> None:
    net = HEAD + f'layer {{ name: "a" type: "{layer}" bottom: "x" top: "m" %s }}\n'
    said = f'layer "a" ({layer}): no gradient goes to its bottom "x", {THROUGH}'
    assert message(net % "" + LOSS % "") == said
    # As in Caffe that does not keep its own backward pass from being called, but this does.
    stopped = f'layer "a" ({layer}): no gradient goes through it, {THROUGH}'
    assert message(net % "propagate_down: false" + LOSS % "") == stopped
    assert message(net % "" + LOSS % "propagate_down: false propagate_down: false") == ""
    # Beside the loss it is not asked.
    beside = 'layer { name: "e" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "e" }\n'
    assert message(net % "" + beside) == ""
    assert message(net % "") == ""


@pytest.mark.parametrize(
    "layer",
    [
        'type: "SoftmaxWithLoss" bottom: "x" bottom: "j" top: "l"',
        'type: "HingeLoss" bottom: "x" bottom: "j" top: "l"',
        'type: "MultinomialLogisticLoss" bottom: "x" bottom: "j" top: "l"',
        'type: "BatchReindex" bottom: "x" bottom: "j" top: "l" loss_weight: 1',
        'type: "Filter" bottom: "x" bottom: "j" top: "l" loss_weight: 1',
    ],
)
def test_no_gradient_goes_to_labels_and_indices(layer: str) -> None:
    kind = layer.split('"')[1]
    assert message(HEAD + ONE + f'layer {{ name: "a" {layer} }}') == (
        f'layer "a" ({kind}): no gradient goes to its bottom "j", but the backward pass wants one; '
        "write propagate_down: true propagate_down: false in this layer"
    )
    down = "propagate_down: true propagate_down: false"
    assert message(HEAD + ONE + f'layer {{ name: "a" {layer} {down} }}') == ""
    asked = layer.replace('"j"', '"t"') + " propagate_down: true propagate_down: true"
    assert 'no gradient goes to its bottom "t"' in message(HEAD + f'layer {{ name: "a" {asked} }}')


def test_no_gradient_goes_to_targets_of_sigmoids() -> None:
    net = HEAD + 'layer { name: "a" type: "SigmoidCrossEntropyLoss" bottom: "d" bottom: "x" }'
    assert 'no gradient goes to its bottom "x"' in message(net)


def test_no_gradient_goes_to_embedded_indices_and_sequence_marks() -> None:
    embed = """layer { name: "e" type: "Embed" bottom: "%s" top: "l" loss_weight: 1
        embed_param { num_output: 2 input_dim: 3 } }"""
    assert 'no gradient goes to its bottom "x"' in message(HEAD + embed % "x")
    assert message(HEAD + embed % "d") == ""
    marks = """layer { name: "r" type: "Reshape" bottom: "d" top: "s"
        reshape_param { shape { dim: 2 dim: 1 dim: 3 } } }
    layer { name: "m" type: "Reshape" bottom: "i" top: "c" reshape_param { shape { dim: 2 dim: 1 } }
    } layer { name: "n" type: "RNN" bottom: "s" bottom: "c" top: "l" loss_weight: 1
        recurrent_param { num_output: 2 } }"""
    assert 'no gradient goes to its bottom "c"' in message(HEAD + ONE + marks)


def test_no_gradient_goes_through_an_accuracy_that_is_a_loss() -> None:
    net = (
        HEAD
        + """layer { name: "a" type: "Accuracy" bottom: "x" bottom: "t" top: "a"
        loss_weight: 1 %s }"""
    )
    assert message(net % "") == (
        'layer "a" (Accuracy): no gradient goes to its bottom "x", but the backward pass wants '
        "one; write propagate_down: false propagate_down: false in this layer"
    )
    assert message(net % "propagate_down: false propagate_down: false") == ""


FORCED = "leave out force_backward: true, or begin the backward pass below this layer"


@pytest.mark.parametrize(
    ("layer", "refused"),
    [
        ('"ArgMax" bottom: "x"', True),
        ('"Accuracy" bottom: "x" bottom: "t"', True),
        ('"BatchReindex" bottom: "x" bottom: "t"', True),
        ('"Embed" bottom: "t" embed_param { num_output: 2 input_dim: 3 }', True),
        # Caffe's losses are not forced to have gradients of labels.
        ('"SoftmaxWithLoss" bottom: "x" bottom: "t"', False),
    ],
)
def test_force_backward_reaches_indices_but_no_labels(layer: str, refused: bool) -> None:
    said = message(f'force_backward: true {HEAD} layer {{ name: "a" type: {layer} top: "y" }}')
    assert said.endswith(FORCED) if refused else not said


ARGMAX = HEAD + 'layer { name: "a" type: "ArgMax" bottom: "x" top: "m" }\n' + LOSS % ""


def test_pycaffe_refuses_at_backward() -> None:
    Path("net.prototxt").write_text(ARGMAX)
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.forward()
    with pytest.raises(LayerError, match=r'^net\.prototxt:4: layer "a" \(ArgMax\): no gradient'):
        net.backward()
    with pytest.raises(LayerError, match="no gradient"):
        net.backward(start="a", end="a")
    # Below and above it there are gradients.
    net.backward(start="ip")
    net.backward(end="l")


def test_a_solver_refuses_before_training() -> None:
    Path("net.prototxt").write_text(ARGMAX)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 solver_mode: CPU'
    )
    solver = caffe.SGDSolver("solver.prototxt")
    for train in (solver.solve, lambda: solver.step(1)):
        with pytest.raises(LayerError, match=r'net\.prototxt:4: layer "a" \(ArgMax\)'):
            train()
    assert solver.iter == 0
