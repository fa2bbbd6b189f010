from netspec.graph import connect
from netspec.inspect.summary import Row, summarise, table
from netspec.layers.unknown import create_or_stand_in
from netspec.prototxt import parse_net
from netspec.shapes import Shapes, infer, infer_known

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


def test_rows() -> None:
    rows = {row.name: row for row in summarise(shapes(TEXT)).rows}
    assert rows["data"] == Row("data", "Input", ((2, 3, 5, 7),), 0, 0, (), False)
    assert rows["conv"] == Row("conv", "Convolution", ((2, 5, 3, 5),), 140, 140, (), False)
    assert rows["up"] == Row("up", "Deconvolution", ((2, 5, 4, 6),), 100, 0, (), True)
    assert rows["half"] == Row("half", "Convolution", ((2, 11, 4, 6),), 66, 11, (), False)


def test_totals() -> None:
    summary = summarise(shapes(TEXT))
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
    summary = summarise(infer_known(net, {}))
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
    assert "15 parameters, 15 of them learned, as far as shapes are known" in table(summary)


def test_what_is_all_known() -> None:
    """As far as shapes are known is all of a net, where they are."""
    net = connect(parse_net(TEXT, "net.prototxt"), create_or_stand_in)
    assert summarise(infer_known(net, {})) == summarise(infer(net))


def test_table() -> None:
    assert table(summarise(shapes(TEXT))) == (
        "layer  type           top       learned\n"
        "-----  -------------  --------  -------\n"
        "data   Input          2x3x5x7\n"
        "conv   Convolution    2x5x3x5       140\n"
        "relu   ReLU           2x5x3x5\n"
        "up     Deconvolution  2x5x4x6    frozen\n"
        "half   Convolution    2x11x4x6       11\n"
        "\n"
        "306 parameters, 151 of them learned\n"
        "parameters       0.0 MiB\n"
        "momentum         0.0 MiB\n"
        "activations      0.0 MiB\n"
        "training, about  0.0 MiB"
    )


def test_table_of_shared_arrays() -> None:
    lines = table(summarise(shapes(SHARED))).splitlines()
    assert lines[4] == "two    Convolution  2x3x5x7  shares one"
