"""Layers in place: what Caffe computes from an overwritten bottom, and what netspec does."""

from pathlib import Path

import numpy as np
import pytest

import netspec
from netspec import caffe
from netspec.errors import LayerError

SHAPE = (2, 3, 2, 2)
FEED = """force_backward: true
layer { name: "in" type: "Input" top: "d" top: "e" input_param {
    shape { dim: 2 dim: 3 dim: 2 dim: 2 } } }
layer { name: "n" type: "Power" bottom: "d" top: "x" power_param { scale: 2 } }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ran(text: str, start: float = 0.25) -> dict[str, np.ndarray]:
    """Values by name, and gradients as ``d name``, of a net that is fed positive numbers."""
    Path("net.prototxt").write_text(text)
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    rng = np.random.default_rng(7)
    for name in net.inputs:
        net.blobs[name].data[...] = rng.uniform(start, 2, net.blobs[name].shape)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = rng.uniform(0.5, 1, blob.shape)
    net.forward()
    for name in (name for name in net.outputs if not net.blob_loss_weights[name]):
        net.blobs[name].diff[...] = rng.standard_normal(net.blobs[name].shape)
    net.backward()
    found = {name: blob.data.copy() for name, blob in net.blobs.items()}
    found |= {f"d {name}": blob.diff.copy() for name, blob in net.blobs.items()}
    for name, blobs in net.params.items():
        found |= {f"d {name} {i}": blob.diff.copy() for i, blob in enumerate(blobs)}
    return found


def same(first: str, second: str, pairs: dict[str, str]) -> None:
    """Hold the values and gradients of two nets to be the same, by name in both."""
    here, there = ran(FEED + first), ran(FEED + second)
    for mine, theirs in pairs.items():
        np.testing.assert_allclose(here[mine], there[theirs], rtol=1e-6, err_msg=mine)


READS_BOTTOM = {
    "BNLL": "",
    "Power": "power_param { power: 2 shift: 1 }",
    "Log": "log_param { shift: 1 }",
    "Clip": "clip_param { min: 0.5 max: 2 }",
    "MVN": "",
    "LRN": "lrn_param { local_size: 3 }",
    "Swish": "",
    "Pooling": "pooling_param { kernel_size: 1 pool: AVE }",
}


@pytest.mark.differs("in-place-bottom")
@pytest.mark.parametrize("kind", READS_BOTTOM)
def test_a_layer_in_place_has_the_gradient_that_it_has_elsewhere(kind: str) -> None:
    layer = f'layer {{ name: "a" type: "{kind}" bottom: "x" top: "%s" {READS_BOTTOM[kind]} }}'
    same(layer % "x", layer % "y", {"x": "y", "d d": "d d"})


@pytest.mark.differs("in-place-eltwise")
@pytest.mark.parametrize("operation", ["SUM", "MAX", "PROD"])
def test_eltwise_in_place_reads_its_first_bottom(operation: str) -> None:
    layer = """layer { name: "a" type: "Eltwise" bottom: "x" bottom: "e" top: "%s"
        eltwise_param { operation: %s } }"""
    pairs = {"x": "y", "d d": "d d", "d e": "d e"}
    same(layer % ("x", operation), layer % ("y", operation), pairs)


@pytest.mark.differs("in-place-shape")
@pytest.mark.parametrize(
    "layer",
    [
        'type: "InnerProduct" bottom: "x" top: "%s" inner_product_param { num_output: 3 }',
        'type: "Convolution" bottom: "x" top: "%s" convolution_param { num_output: 3 '
        "kernel_size: 1 }",
        'type: "Concat" bottom: "x" bottom: "e" top: "%s"',
        'type: "Tile" bottom: "x" top: "%s" tile_param { tiles: 2 }',
        'type: "Pooling" bottom: "x" top: "%s" pooling_param { kernel_size: 2 }',
        'type: "Reduction" bottom: "x" top: "%s"',
    ],
)
def test_a_layer_in_place_reads_its_whole_bottom(layer: str) -> None:
    """Whatever the shape of its top."""
    text = 'layer { name: "a" ' + layer + " }"
    same(text % "x", text % "y", {"x": "y", "d d": "d d"})


def test_what_lies_overwritten_is_made_anew_before_it_is_read_again() -> None:
    """As in Caffe, where InnerProduct then finds another number of inputs."""
    layer = 'type: "InnerProduct" bottom: "x" top: "x" inner_product_param { num_output: 3 }'
    Path("net.prototxt").write_text(f'{FEED}layer {{ name: "a" {layer} }}')
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.forward()
    with pytest.raises(LayerError) as error:
        net.forward(start="a")
    assert str(error.value) == (
        'net.prototxt:5: layer "a" (InnerProduct): its bottom "x" is 2x3 now, but it reads '
        "2x3x2x2; run the layers below it first"
    )
    net.forward(end="n")
    assert net.forward(start="a")["x"].shape == (2, 3)


@pytest.mark.differs("in-place-resized-input")
@pytest.mark.parametrize("before", ["", 'layer { name: "r" type: "ReLU" bottom: "d" top: "d" }'])
@pytest.mark.parametrize(
    "layer",
    [
        'type: "InnerProduct" bottom: "d" top: "d" inner_product_param { num_output: 4 }',
        'type: "Tile" bottom: "d" top: "d" tile_param { tiles: 2 }',
        'type: "Concat" bottom: "d" bottom: "e" top: "d"',
        # A second pass would have the shape of the first one's end, but fewer numbers go in.
        'type: "Pooling" bottom: "d" top: "d" pooling_param { global_pooling: true }',
        'type: "SPP" bottom: "d" top: "d" spp_param { pyramid_height: 1 }',
        'type: "ArgMax" bottom: "d" top: "d"',
    ],
)
def test_what_is_fed_keeps_its_shape(layer: str, before: str) -> None:
    Path("net.prototxt").write_text(
        f'{FEED[: FEED.index("layer {", 30)]}{before}\nlayer {{ name: "a" {layer} }}'
    )
    with pytest.raises(LayerError, match=r'works in place and makes "d", which is fed as 2x3x2x2'):
        caffe.Net("net.prototxt", caffe.TRAIN)


def test_what_is_fed_may_have_the_axis_already_that_a_layer_in_place_adds() -> None:
    Path("net.prototxt").write_text(
        'input: "d" input_shape { dim: 2 dim: 3 dim: 4 }\n'
        'layer { name: "a" type: "MVN" bottom: "d" top: "d" }'
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    net = netspec.load("net.prototxt")
    whole = net(d=x)["d"]
    assert whole.shape == (2, 3, 4, 1)
    np.testing.assert_array_equal(net(d=x[..., None])["d"], whole)


@pytest.mark.differs("in-place-after")
@pytest.mark.parametrize(
    "layer",
    [
        'type: "LRN" lrn_param { local_size: 3 }',
        'type: "Softmax"',
        'type: "Sigmoid"',
        'type: "TanH"',
        'type: "ELU"',
        'type: "Exp"',
    ],
)
def test_a_layer_whose_top_is_overwritten_keeps_its_gradient(layer: str) -> None:
    text = f"""layer {{ name: "a" bottom: "x" top: "y" {layer} }}
        layer {{ name: "r" type: "Power" bottom: "y" top: "%s" power_param {{ scale: 3 }} }}"""
    same(text % "y", text % "z", {"y": "z", "d d": "d d"})


SHARES = {
    "Split": 'type: "Split" bottom: "x" top: "a" top: "%s"',
    "Reshape": 'type: "Reshape" bottom: "x" top: "%s" reshape_param { shape { dim: 0 dim: -1 } }',
    "Flatten": 'type: "Flatten" bottom: "x" top: "%s"',
    "Concat": 'type: "Concat" bottom: "x" top: "%s"',
    "Slice": 'type: "Slice" bottom: "x" top: "%s"',
}


@pytest.mark.differs("shared-memory")
@pytest.mark.parametrize("kind", SHARES)
def test_a_layer_that_copies_nothing_in_caffe_keeps_its_bottom(kind: str) -> None:
    share = f'layer {{ name: "s" {SHARES[kind] % "b"} }}'
    after = 'layer { name: "r" type: "Power" bottom: "b" top: "%s" power_param { scale: 3 } }'
    same(share + after % "b", share + after % "c", {"x": "x", "b": "c", "d d": "d d"})


@pytest.mark.differs("shared-diff")
def test_gradients_of_shared_memory_add_up() -> None:
    """In Caffe, Flatten and a Concat of one bottom point two blobs to one diff."""
    net = """layer { name: "c" type: "Concat" bottom: "x" top: "y" }
        layer { name: "f" type: "Flatten" bottom: "y" top: "w" }
        layer { name: "p" type: "Power" bottom: "x" top: "z" }"""
    made = ran(FEED + net)
    total = 2 * (made["d w"].reshape(SHAPE) + made["d z"])
    np.testing.assert_allclose(made["d d"], total, rtol=1e-6)


@pytest.mark.differs("parameter-diff")
def test_a_parameter_has_its_gradient() -> None:
    """In Caffe its top's diff is its own, and Flatten points it elsewhere; weights are lost."""
    layer = 'layer { name: "p" type: "Parameter" top: "y" %s parameter_param { shape { dim: 2 } } }'
    weighted = ran("force_backward: true " + layer % "loss_weight: 3")
    assert weighted["d p 0"].tolist() == [3, 3]
    shape = (layer % "").replace("dim: 2", "dim: 2 dim: 2")
    flat = shape + 'layer { name: "f" type: "Flatten" bottom: "y" top: "z" }'
    made = ran("force_backward: true " + flat)
    assert made["d p 0"].any()
    assert np.array_equal(made["d p 0"], made["d z"])


@pytest.mark.differs("in-place-loss")
@pytest.mark.parametrize("kind", ["HingeLoss", "MultinomialLogisticLoss"])
def test_no_loss_works_in_place(kind: str) -> None:
    Path("net.prototxt").write_text(
        """layer { name: "in" type: "Input" top: "x" top: "t" input_param {
            shape { dim: 2 dim: 3 } shape { dim: 2 } } }
        """
        f'layer {{ name: "l" type: "{kind}" bottom: "x" bottom: "t" top: "x" }}'
    )
    with pytest.raises(LayerError, match="cannot work in place; give the top a name of its own"):
        caffe.Net("net.prototxt", caffe.TRAIN)


@pytest.mark.differs("in-place-fed-again")
def test_each_update_starts_from_what_was_fed() -> None:
    """In Caffe a layer in place on an Input's blob works on its own result in each pass."""
    Path("net.prototxt").write_text(
        """layer { name: "in" type: "Input" top: "d" input_param { shape { dim: 1 dim: 2 } } }
        layer { name: "a" type: "Power" bottom: "d" top: "d" power_param { scale: 0.5 } }
        layer { name: "p" type: "InnerProduct" bottom: "d" top: "y" loss_weight: 1
            inner_product_param { num_output: 1 bias_term: false } }"""
    )
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 9 solver_mode: CPU'
    )
    solver = caffe.SGDSolver("solver.prototxt")
    solver.net.blobs["d"].data[...] = [4, 8]
    before = solver.net.params["p"][0].data.copy()
    solver.step(3)
    moved = solver.net.params["p"][0].data - before
    np.testing.assert_allclose(moved, [[-6, -12]], rtol=1e-6)
