import itertools
from pathlib import Path

import pytest

from netspec.frontend.graph import connect
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import Shapes, infer
from netspec.inspect.summary import Row, Total, summarise
from netspec.layers.base import Shape
from netspec.layers.placeholder import create_or_stand_in

ROOT = Path(__file__).resolve().parents[1]
TEXT = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 5, 7] } } }
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 }
}
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer {
  name: "up" type: "Deconvolution" bottom: "conv" top: "up" param { lr_mult: 0 }
  convolution_param { num_output: 5 kernel_size: 2 bias_term: false }
}
layer {
  name: "half" type: "Convolution" bottom: "up" top: "half" param { lr_mult: 0 }
  convolution_param { num_output: 11 kernel_size: 1 }
}
"""
SHARED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 5, 7] } } }
layer {
  name: "one" type: "Convolution" bottom: "data" top: "one"
  param { name: "w" } param { name: "b" } convolution_param { num_output: 3 kernel_size: 1 }
}
layer {
  name: "two" type: "Convolution" bottom: "one" top: "two"
  param { name: "w" } convolution_param { num_output: 3 kernel_size: 1 }
}
"""


def shapes(text: str) -> Shapes:
    return infer(connect(parse_net(text, "net.prototxt")))


def row(
    name: str,
    kind: str,
    top: Shape,
    params: int = 0,
    learned: int = 0,
    frozen: bool = False,
    **more: int,
) -> Row:
    return Row(name, kind, (top,), params, learned, (), frozen, **more)


def test_rows() -> None:
    rows = {row.name: row for row in summarise(shapes(TEXT)).rows}
    assert rows["data"] == row("data", "Input", (2, 3, 5, 7), activation_bytes=840)
    assert rows["conv"] == row(
        "conv", "Convolution", (2, 5, 3, 5), 140, 140, multiply_adds=4050, activation_bytes=600
    )
    assert rows["relu"] == row("relu", "ReLU", (2, 5, 3, 5))
    assert rows["up"] == row(
        "up", "Deconvolution", (2, 5, 4, 6), 100, 0, True, multiply_adds=3000, activation_bytes=960
    )
    assert rows["half"] == row(
        "half", "Convolution", (2, 11, 4, 6), 66, 11, multiply_adds=2640, activation_bytes=2112
    )


def test_totals() -> None:
    summary = summarise(shapes(TEXT))
    assert summary.total == Total(5, 306, 151, 4050 + 3000 + 2640, 840 + 600 + 960 + 2112)
    assert summary.by_type == {
        "Input": Total(1, 0, 0, 0, 840),
        "Convolution": Total(2, 206, 151, 4050 + 2640, 600 + 2112),
        "ReLU": Total(1, 0, 0, 0, 0),
        "Deconvolution": Total(1, 100, 0, 3000, 960),
    }
    assert summary.params == 140 + 100 + 66
    assert summary.learned == 140 + 11
    assert summary.param_bytes == 4 * 306
    assert summary.momentum_bytes == 4 * 151
    assert summary.activation_bytes == 4 * 2 * (3 * 5 * 7 + 5 * 3 * 5 + 5 * 4 * 6 + 11 * 4 * 6)
    assert summary.training_bytes == summary.activation_bytes + 4 * (306 + 2 * 151)


def test_shared_arrays_count_once() -> None:
    summary = summarise(shapes(SHARED))
    assert summary.params == summary.learned == 12 + 3
    assert summary.rows[2].shares == ("one",)
    assert summary.rows[2].params == 3


def test_sharing_a_frozen_array() -> None:
    frozen = SHARED.replace('param { name: "w" }', 'param { name: "w" lr_mult: 0 }').replace(
        "kernel_size: 1", "kernel_size: 1 bias_term: false"
    )
    summary = summarise(shapes(frozen.replace('param { name: "b" }', "")))
    assert [row.frozen for row in summary.rows] == [False, True, True]
    assert (summary.params, summary.learned) == (9, 0)


UNKNOWN = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 5, 7] } } }
layer { name: "in" type: "Interp" bottom: "data" top: "in" }
layer {
  name: "conv" type: "Convolution" bottom: "in" top: "conv" param { name: "w" }
  convolution_param { num_output: 3 kernel_size: 1 bias_term: false }
}
layer { name: "relu" type: "ReLU" bottom: "conv" top: "relu" }
layer {
  name: "same" type: "Convolution" bottom: "data" top: "same" param { name: "w" }
  convolution_param { num_output: 3 kernel_size: 1 bias_term: false }
}
layer {
  name: "own" type: "Convolution" bottom: "data" top: "own"
  convolution_param { num_output: 5 kernel_size: 1 bias_term: false }
}
"""


def test_what_is_not_known_is_not_counted() -> None:
    """Nor is an array that is shared with a layer whose arrays are not known."""
    net = connect(parse_net(UNKNOWN, "net.prototxt"), create_or_stand_in)
    summary = summarise(infer(net, {}, "known"))
    assert [(row.name, row.tops, row.known) for row in summary.rows] == [
        ("data", ((2, 3, 5, 7),), True),
        ("in", (None,), False),
        ("conv", (None,), False),
        ("relu", (None,), True),
        ("same", ((2, 3, 5, 7),), False),
        ("own", ((2, 5, 5, 7),), True),
    ]
    assert (summary.params, summary.learned, summary.known) == (15, 15, False)
    assert summary.activation_bytes == 4 * 2 * (3 + 3 + 5) * 5 * 7
    assert summary.multiply_adds == 15 * 2 * 5 * 7
    assert summary.numbers == "15 parameters, 15 of them learned, as far as shapes are known"


def test_what_is_all_known() -> None:
    """As far as shapes are known is all of a net, where they are."""
    net = connect(parse_net(TEXT, "net.prototxt"), create_or_stand_in)
    assert summarise(infer(net, {}, "known")) == summarise(infer(net))


# What one item of the first bottom costs, counted by hand: layer, bottoms, multiply-adds.
COSTS = [
    ("Convolution", "convolution_param { num_output: 6 kernel_size: 3 group: 2 stride: 2 pad: 1 }",
     [(4, 7, 5)], 4 * 3 * 6 * 2 * 9),
    ("Convolution", "convolution_param { num_output: 6 kernel_size: [3, 1] dilation: 2 }",
     [(4, 7, 5)], 3 * 5 * 6 * 4 * 3),
    ("Convolution", "convolution_param { num_output: 2 kernel_size: 2 bias_term: false }",
     [(3, 4, 5, 6)], 3 * 4 * 5 * 2 * 3 * 8),
    ("Convolution", "convolution_param { num_output: 3 kernel_size: 2 axis: 2 }",
     [(5, 2, 4, 5)], 5 * 3 * 4 * 3 * 2 * 4),
    ("Deconvolution", "convolution_param { num_output: 6 kernel_size: 4 group: 2 stride: 2 }",
     [(4, 7, 5)], 7 * 5 * 4 * 3 * 16),
    ("InnerProduct", "inner_product_param { num_output: 6 }", [(4, 7, 5)], 6 * 140),
    ("InnerProduct", "inner_product_param { num_output: 6 axis: 2 transpose: true }",
     [(4, 7, 5)], 4 * 6 * 35),
    ("Pooling", "pooling_param { kernel_size: 2 }", [(4, 7, 5)], 0),
    ("Scale", "", [(4, 7, 5)], 0),
    ("Eltwise", "", [(4, 7, 5), (4, 7, 5)], 0),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings", "bottoms", "cost"), COSTS)
def test_multiply_adds(kind: str, settings: str, bottoms: list[Shape], cost: int) -> None:
    names = [f"in{i}" for i in range(len(bottoms))]
    read = " ".join(f'bottom: "{name}"' for name in names)
    for items in (1, 3):
        inputs = "".join(
            f'layer {{ name: "{name}" type: "Input" top: "{name}" '
            f"input_param {{ shape {{ dim: {[items, *bottom]} }} }} }}\n"
            for name, bottom in zip(names, bottoms, strict=True)
        )
        text = f'{inputs}layer {{ name: "it" type: "{kind}" {read} top: "it" {settings} }}'
        assert summarise(shapes(text)).multiply_adds == items * cost


def test_multiply_adds_of_several_bottoms() -> None:
    text = """
layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: [2, 3, 5, 7] } } }
layer {
  name: "it" type: "Convolution" bottom: "a" bottom: "b" top: "c" top: "d"
  convolution_param { num_output: 5 kernel_size: 3 }
}"""
    assert summarise(shapes(text)).multiply_adds == 2 * 4050


@pytest.mark.parametrize(("kind", "products"), [("LSTM", 4 * 4 * (6 + 4)), ("RNN", 4 * (6 + 8))])
def test_multiply_adds_of_recurrent_layers(kind: str, products: int) -> None:
    text = f'''
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: [5, 3, 2, 3] }} }} }}
layer {{ name: "cont" type: "Input" top: "cont" input_param {{ shape {{ dim: [5, 3] }} }} }}
layer {{ name: "s" type: "Input" top: "s" input_param {{ shape {{ dim: [3, 7] }} }} }}
layer {{ name: "it" type: "{kind}" bottom: "x" bottom: "cont" top: "h"
  recurrent_param {{ num_output: 4 }} }}'''
    static = 7 * 4 * (4 if kind == "LSTM" else 1)
    assert summarise(shapes(text)).multiply_adds == 5 * 3 * products
    fed = text.replace('bottom: "cont" top', 'bottom: "cont" bottom: "s" top')
    assert summarise(shapes(fed)).multiply_adds == 5 * 3 * products + 3 * static


@pytest.mark.parametrize(
    ("name", "learned", "params"),
    [
        ("voc-fcn-alexnet", 56_954_261, 58_704_590),
        ("voc-fcn32s", 134_346_581, 136_152_917),
        ("voc-fcn32s-googlenet", 5_995_077, 7_745_406),
        ("voc-fcn8s", 134_362_751, 134_489_759),
    ],
)
def test_parameters_of_the_paper(name: str, learned: int, params: int) -> None:
    """57, 134 and 6 million that learn; what upsamples is frozen."""
    summary = summarise(infer(read_graph(ROOT / "nets" / name / "deploy.prototxt")))
    assert (summary.learned, summary.params) == (learned, params)
    assert [row.type for row in summary.rows if row.frozen] == ["Deconvolution"] * (
        summary.by_type["Deconvolution"].layers
    )


def test_fcn8s_at_500x500() -> None:
    """As a program of nested sums would count it, over sizes taken from the paper's figure."""
    summary = summarise(infer(read_graph(ROOT / "nets" / "voc-fcn8s" / "deploy.prototxt")))
    widths = {1: (3, 64, 64), 2: (64, 128, 128), 3: (128, *[256] * 3), 4: (256, *[512] * 3)}
    widths[5] = (512,) * 4
    size, total = 698, 0
    for stage in range(1, 6):
        pairs = itertools.pairwise(widths[stage])
        total += sum(9 * inputs * outputs * size**2 for inputs, outputs in pairs)
        size = -(-size // 2)
    size -= 6
    total += size**2 * 4096 * (512 * 49 + 4096 + 21)
    total += 21 * (44**2 * 512 + 88**2 * 256)
    assert summary.by_type["Convolution"].multiply_adds == total
    upsampling = 21**2 * (16**2 * 16 + 34**2 * 16 + 70**2 * 256)
    assert summary.multiply_adds == total + upsampling == 181_529_034_048
