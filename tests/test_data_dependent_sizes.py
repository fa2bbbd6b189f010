"""Layers above a Filter: sizes that data chose are checked as stated ones are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netspec
from netspec import caffe
from netspec.errors import LayerError

HEAD = """
layer { name: "in" type: "Input" top: "x" top: "keep" top: "t" input_param {
  shape { dim: 4 dim: 2 dim: 6 dim: 5 } shape { dim: 4 } shape { dim: 4 dim: 1 dim: 6 dim: 5 } } }
layer { name: "f" type: "Filter" bottom: "x" bottom: "keep" top: "y" }
"""
RESHAPED = """layer { name: "r" type: "Reshape" bottom: "y" top: "r"
  reshape_param { shape { dim: 1 dim: 1 dim: -1 dim: 10 } } }"""


def written(folder: Path, layers: str) -> Path:
    path = folder / "net.prototxt"
    path.write_text(HEAD + layers)
    return path


def feeds(*keep: float) -> dict[str, Any]:
    x = np.random.default_rng(0).normal(size=(4, 2, 6, 5)).astype(np.float32)
    return {"x": x, "keep": np.array(keep, np.float32), "t": np.zeros((4, 1, 6, 5), np.float32)}


MISFITS = [
    (
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "l" }',
        (1, 0, 1, 1),
        r'net.prototxt:5: layer "l" \(SoftmaxWithLoss\): scores 3x2x6x5 need 90 labels, one for '
        "each position off axis 1, but labels are 4x1x6x5$",
    ),
    (
        'layer { name: "l" type: "Eltwise" bottom: "x" bottom: "y" top: "l" }',
        (0, 0, 0, 0),
        r'net.prototxt:5: layer "l" \(Eltwise\): bottoms must have one shape: bottom 0 is 4x2x6x5, '
        "bottom 1 is 0x2x6x5$",
    ),
    (
        'layer { name: "l" type: "InnerProduct" bottom: "y" top: "l" '
        "inner_product_param { num_output: 7 axis: 0 } }",
        (0, 1, 1, 0),
        r'net.prototxt:5: layer "l" \(InnerProduct\): its weight is 7x240, but bottoms of 2x2x6x5 '
        "need 7x120: their size depends on data$",
    ),
    (
        'layer { name: "l" type: "Scale" bottom: "y" top: "l" scale_param { axis: 0 } }',
        (0, 1, 1, 1),
        r'net.prototxt:5: layer "l" \(Scale\): its scale is 4, but bottoms of 3x2x6x5 need 3: ',
    ),
    (
        RESHAPED + '\nlayer { name: "l" type: "SPP" bottom: "r" top: "l" '
        "spp_param { pyramid_height: 2 } }",
        (0, 0, 0, 0),
        r'net.prototxt:7: layer "l" \(SPP\): level 0: 1 bins along spatial axis 0 of size 0: ',
    ),
    (
        'layer { name: "l" type: "BatchReindex" bottom: "y" bottom: "keep" top: "l" }',
        (0, 0, 0, 0),
        r'net.prototxt:5: layer "l" \(BatchReindex\): 0x2x6x5 has no items to pick$',
    ),
]


@pytest.mark.parametrize(("layers", "keep", "message"), MISFITS)
def test_what_does_not_fit_is_said(
    tmp_path: Path, layers: str, keep: tuple[float, ...], message: str
) -> None:
    net = netspec.load(written(tmp_path, layers), phase="test")
    with pytest.raises(LayerError, match=message):
        net(**feeds(*keep))


def test_pycaffe_says_it_too(tmp_path: Path) -> None:
    layers, keep, message = MISFITS[0]
    net = caffe.Net(str(written(tmp_path, layers)), caffe.TEST)
    for name, array in feeds(*keep).items():
        net.blobs[name].data[...] = array
    with pytest.raises(LayerError, match=message):
        net.forward()


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ('type: "SPP" spp_param { pyramid_height: 1 }', (0, 2, 1, 1)),
        ('type: "SPP" spp_param { pyramid_height: 2 pool: AVE }', (0, 10)),
        ('type: "Pooling" pooling_param { global_pooling: true }', (0, 2, 1, 1)),
        ('type: "Pooling" pooling_param { kernel_size: 6 pool: AVE pad: 2 }', (0, 2, 5, 4)),
        ('type: "Convolution" convolution_param { num_output: 3 kernel_size: 2 }', (0, 3, 5, 4)),
        ('type: "Softmax"', (0, 2, 6, 5)),
        ('type: "MVN"', (0, 2, 6, 5)),
    ],
)
def test_of_nothing_kept_tops_are_empty(
    tmp_path: Path, settings: str, shape: tuple[int, ...]
) -> None:
    layer = f'layer {{ name: "l" bottom: "y" top: "l" {settings} }}'
    net = netspec.load(written(tmp_path, layer), phase="test")
    assert net(**feeds(0, 0, 0, 0))["l"].shape == shape


@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
def test_a_recurrent_layer_of_no_steps_makes_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(f"""
        layer {{ name: "in" type: "Input" top: "x" top: "cont" top: "keep"
          input_param {{ shape {{ dim: 3 dim: 2 dim: 5 }} shape {{ dim: 3 dim: 2 }}
            shape {{ dim: 3 }} }} }}
        layer {{ name: "f" type: "Filter" bottom: "x" bottom: "cont" bottom: "keep"
          top: "x2" top: "cont2" }}
        layer {{ name: "l" type: "{kind}" bottom: "x2" bottom: "cont2" top: "l"
          recurrent_param {{ num_output: 4 }} }}""")
    arrays = {"x": np.ones((3, 2, 5)), "cont": np.ones((3, 2)), "keep": np.zeros(3)}
    fed = {name: array.astype(np.float32) for name, array in arrays.items()}
    assert netspec.load(path, phase="test")(**fed)["l"].shape == (0, 2, 4)
