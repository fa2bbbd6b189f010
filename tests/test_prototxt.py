import math
from pathlib import Path
from typing import Any

import pytest

from netspec.errors import ParseError
from netspec.frontend.prototxt import is_solver, parse_net, read_net, read_solver, write
from netspec.proto.layers_pb2 import TRAIN, PoolingParameter
from netspec.proto.net_pb2 import NetParameter

NETS = {
    "comments": (
        """
# layer {
layer {  # layer {
  name: "a"
}

layer { name: "b" }  # } layer { name: "c" }
""",
        {"a": 3, "b": 7},
    ),
    "strings": (
        """layer { name: "layer { \\" # {" }
layer { name: 'it says "layer {"'
}
layer {
  name: "\\\\"  # an escaped backslash ends before the quote
}
layer { name: "}" }
""",
        {'layer { " # {': 1, 'it says "layer {"': 2, "\\": 4, "}": 7},
    ),
    "brackets and colons": (
        """layer <
  name: "a"
  relu_param < negative_slope: 0.5 >
>
layer: { name: "b" }
layer

{ name: "c" }
""",
        {"a": 1, "b": 5, "c": 6},
    ),
    "lists": (
        """layer [
  { name: "a" relu_param { } },
  { name: "b" }
]
layer { name: "c" }
""",
        {"a": 1, "b": 3, "c": 5},
    ),
    "the second schema": (
        """name: "old"
layers { name: "a" type: RELU }
layers {
  name: "b" type: CONVOLUTION
  convolution_param { kernel_size: 3 }
}
layers { name: "c" }
""",
        {"a": 2, "b": 3, "c": 7},
    ),
    "other blocks": (
        """input_shape { dim: 1 }
state { phase: TRAIN }
layer { name: "a" include { phase: TEST } param { } param { } }
layer { name: "b" input_param { shape { dim: 2 } shape { dim: 3 } } }
""",
        {"a": 3, "b": 4},
    ),
}


def lines(text: str) -> dict[str, int]:
    """Layer name -> line, as parsed."""
    net = parse_net(text, "net.prototxt")
    layers: list[Any] = [*net.message.layer, *net.message.layers]
    assert {place.file for place in net.places} == {"net.prototxt"}
    return {layer.name: place.line for layer, place in zip(layers, net.places, strict=True)}


@pytest.mark.parametrize(("text", "expected"), NETS.values(), ids=NETS)
def test_each_layer_knows_its_line(text: str, expected: dict[str, int]) -> None:
    assert lines(text) == expected


@pytest.mark.parametrize("ending", ["\r\n", "\r"], ids=["dos", "old-mac"])
@pytest.mark.parametrize(("text", "expected"), NETS.values(), ids=NETS)
def test_other_line_endings(
    tmp_path: Path, text: str, expected: dict[str, int], ending: str
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(text.replace("\n", ending).encode())
    net = read_net(path)
    assert [place.line for place in net.places] == list(expected.values())
    assert net.message == parse_net(text).message
    assert {place.file for place in net.places} == {str(path)} == {net.file}


def test_old_layers_count_once(golden: Path) -> None:
    """V0's ``layers { layer { } }``: the outer block is the layer."""
    net = read_net(golden / "upgrade" / "v0_imagenet.old.prototxt")
    assert [place.line for place in net.places] == list(range(2, 12))


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'\xef\xbb\xbflayer { name: "a" }')
    assert read_net(path).message.layer[0].name == "a"


def test_comments_in_other_encodings_are_read_over(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes('# créé à la main\nname: "n"'.encode("latin-1"))
    assert read_net(path).message.name == "n"


# Caffe reads text with protobuf's own parser: these are its spellings.


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1", 1.0),
        ("-2", -2.0),
        ("5e-1", 0.5),
        ("5E-1f", 0.5),
        ("0.5f", 0.5),
        ("0.5F", 0.5),
        ("inf", math.inf),
        ("-infinity", -math.inf),
    ],
)
def test_float_spellings(written: str, value: float) -> None:
    net = parse_net(f"layer {{ relu_param {{ negative_slope: {written} }} }}")
    assert net.message.layer[0].relu_param.negative_slope == value


def test_nan_is_a_float() -> None:
    net = parse_net("layer { relu_param { negative_slope: nan } }")
    assert math.isnan(net.message.layer[0].relu_param.negative_slope)


@pytest.mark.parametrize(
    ("written", "value"), [("10", 10), ("0x10", 16), ("0X1f", 31), ("010", 8), ("0", 0)]
)
def test_integer_spellings(written: str, value: int) -> None:
    net = parse_net(f"layer {{ convolution_param {{ num_output: {written} }} }}")
    assert net.message.layer[0].convolution_param.num_output == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *((word, True) for word in ("true", "True", "t", "1")),
        *((word, False) for word in ("false", "False", "f", "0")),
    ],
)
def test_bool_spellings(written: str, value: bool) -> None:
    net = parse_net(f"force_backward: {written}")
    assert net.message.HasField("force_backward")
    assert net.message.force_backward is value


def test_string_and_enum_spellings() -> None:
    net = parse_net(
        'layer { name: "a" \'b\' type: "\\x41\\102\\n" include { phase: 0 } '
        "pooling_param { pool: AVE } }"
    )
    layer = net.message.layer[0]
    assert (layer.name, layer.type) == ("ab", "AB\n")
    assert layer.include[0].phase == TRAIN
    assert layer.pooling_param.pool == PoolingParameter.AVE


def test_repeated_fields_separators_and_lists() -> None:
    net = parse_net(
        'layer { name: "a", bottom: ["x", "y"]; top: "z" '
        "convolution_param { kernel_size: [3, 5] stride: 2 stride: 1 } }"
    )
    layer = net.message.layer[0]
    assert (list(layer.bottom), list(layer.top)) == (["x", "y"], ["z"])
    assert list(layer.convolution_param.kernel_size) == [3, 5]
    assert list(layer.convolution_param.stride) == [2, 1]


MISTAKES = [
    ('layer {\n  nam: "a"\n}', '2: unknown field "nam" in LayerParameter; did you mean "name"?'),
    ("layer { relu_parm { } }", '1: unknown field "relu_parm" in LayerParameter; did you mean '
     '"relu_param"?'),
    ("layer { convolution_param {\n\n kernal_size: 3 } }", "3: unknown field \"kernal_size\" in "
     'ConvolutionParameter; did you mean "kernel_size"?'),
    ("quux: 1", '1: unknown field "quux" in NetParameter'),
    ("layer { kernel_size: 3 }", '1: unknown field "kernel_size" in LayerParameter; it belongs in '
     "convolution_param or pooling_param"),
    ("layer { lr_mult: 1 }", '1: unknown field "lr_mult" in LayerParameter; it belongs in param'),
    ('name: "n"\nbase_lr: 1', '2: unknown field "base_lr" in NetParameter; it belongs in a '
     "solver, but this file is read as a net"),
    ('layer {\n name: "a"\nlayer { }', '3: unknown field "layer" in LayerParameter; is a "}" '
     "missing before it?"),
    ('layer { pooling_param { pool: MAX\n bottom: "x" } }', '2: unknown field "bottom" in '
     'PoolingParameter; it belongs in layer: is a "}" missing before it?'),
    ('layer {\n name: "a"\n', '2: a "}" is missing before the end of the file'),
    ('layer { name: "a" } }', '1: a "}" too many'),
    ('layer { name: "a }\n}', "1: string missing ending quote: '\"a }'"),
    ('layer {\n name "a"\n}', '2: expected ":"'),
    ('name: "a"\nname: "b"', '2: "name" is given twice in NetParameter'),
    ("layer { type: ReLU }", '1: a string is needed for type in layer; write it in quotes: '
     '"ReLU"'),
    ("layer { name: }", "1: a string is needed for name in layer, not }"),
    ("layer { pooling_param {\n pool: MEDIAN } }", '2: unknown PoolingParameter.PoolMethod '
     '"MEDIAN" (MAX, AVE, STOCHASTIC)'),
    ("layer { pooling_param { pool: max } }", '1: unknown PoolingParameter.PoolMethod "max"; did '
     'you mean "MAX"? (MAX, AVE, STOCHASTIC)'),
    ("layer { include { phase: 7 } }", '1: unknown Phase "7" (TRAIN, TEST)'),
    ("layers { type: CONVOLUTON }", '1: unknown V1LayerParameter.LayerType "CONVOLUTON"; did you '
     'mean "CONVOLUTION"?'),
    ('layers { type: "RELU" }', "1: V1LayerParameter.LayerType RELU is written without quotes"),
    ("layer { convolution_param { num_output: 1.5 } }", "1: an integer is needed for "
     "num_output in convolution_param, not 1.5"),
    ('layer {\n include { phase: TRAIN }\n convolution_param { pad: [1, # "one"\n "two"] } }', '4: '
     'an integer is needed for pad in convolution_param, not "two"'),
    ("layer { param { lr_mult: 1 } loss_weight: x }", "1: a number is needed for loss_weight in "
     "layer, not x"),
    ("layer { convolution_param { num_output: -1 } }", "1: value out of range for "
     "num_output in convolution_param: -1"),
    ("layer { convolution_param { num_output: 4294967296 } }", "1: value out of range for "
     "num_output in convolution_param: 4294967296"),
    ("layer { relu_param { negative_slope: little } }", "1: a number is needed for "
     "negative_slope in relu_param, not little"),
    ("force_backward: yes", '1: "true" or "false" is needed for force_backward'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[text for text, _ in MISTAKES])
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ParseError) as error:
        parse_net(text, "net.prototxt")
    assert str(error.value) == f"net.prototxt:{message}"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ParseError) as error:
        read_net(tmp_path / "net.prototxt")
    assert str(error.value) == f"{tmp_path}/net.prototxt: no such file"


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ParseError) as error:
        read_net(tmp_path)
    assert str(error.value) == f"{tmp_path}: is a directory"


def test_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(b"\x0a\x01n\xa2\x06\x04\x00\x00\x80\x3f")
    with pytest.raises(ParseError) as error:
        read_net(path)
    assert str(error.value) == (
        f"{path}: not a text file; weights (.caffemodel) are given beside the net, not instead of "
        "it"
    )


SOLVER = """# a solver
base_lr: 0.5
train_net_param {
  name: "train"
  layer { name: "a" }
}
test_net_param {
  layer { name: "b" }
  layer {
    name: "c"
  }
}
test_net_param { name: "empty" }
test_net_param <
  layers { name: "d" }
>
test_iter: 1
"""


def test_nets_inside_a_solver(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER)
    solver = read_solver(path)
    assert solver.message.base_lr == 0.5
    found = {at: (net.message.name, net.places) for at, net in solver.nets.items()}
    assert {
        at: (name, [place.line for place in places]) for at, (name, places) in found.items()
    } == {
        ("train_net_param", 0): ("train", [5]),
        ("test_net_param", 0): ("", [8, 9]),
        ("test_net_param", 1): ("empty", []),
        ("test_net_param", 2): ("", [15]),
    }
    assert {place.file for _, places in found.values() for place in places} == {str(path)}


def test_a_net_where_a_solver_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('# net\nlayer { name: "a" }\n')
    with pytest.raises(ParseError) as error:
        read_solver(path)
    assert str(error.value) == (
        f'{path}:2: unknown field "layer" in SolverParameter; it belongs in a net, but this file '
        "is read as a solver"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('net: "train.prototxt"\nbase_lr: 0.1', True),
        ("solver_type: ADAM", True),
        ('# net: "x"\nname: "n"\nlayer { name: "a" }', False),
        ("name: \"net: 'x' base_lr: 1\"", False),
        ('layer { name: "a" convolution_param { engine: CAFFE } }', False),
        ("", False),
    ],
)
def test_solvers_are_told_from_nets(tmp_path: Path, text: str, expected: bool) -> None:
    path = tmp_path / "some.prototxt"
    path.write_text(text)
    assert is_solver(path) is expected


def again(net: NetParameter) -> NetParameter:
    """A net written and read."""
    return parse_net(write(net)).message


@pytest.mark.parametrize(
    "text",
    [
        'name: "a \\"b\\" it\'s é \\n\\t\\\\ \\001"',
        "layer { convolution_param { kernel_size: [3, 5] bias_term: false } }",
        "layer { pooling_param { } include { phase: TEST } include { } }",
        "layer { loss_weight: [0.1, 1e-30, 3e38, -0, 16777216, 1, inf, -inf] }",
        'layer { type: "Input" input_param { shape { dim: 9223372036854775807 } } }',
        "layer { blobs { shape { dim: 3 } data: [0.1, 2, 3] double_data: 0.1 diff: [] } }",
        'force_backward: true state { phase: TRAIN level: -2 stage: "a" stage: "b" }',
        'layers { layer { name: "a" type: "conv" kernelsize: 3 } bottom: "x" }',
    ],
)
def test_what_is_written_is_read_again(text: str) -> None:
    net = parse_net(text).message
    assert again(net) == net


@pytest.mark.parametrize("kind", ["upgrade", "phase", "layers"])
def test_nets_are_written_without_loss(golden: Path, kind: str) -> None:
    paths = sorted((golden / kind).glob("*.prototxt"))
    assert paths
    for path in paths:
        net = read_net(path).message
        assert again(net) == net, path.name


def test_each_layer_is_written_as_people_write_it() -> None:
    net = parse_net('layer { name: "a" type: "Power" bottom: "x" top: "y" loss_weight: 0.5 '
                    "power_param { power: 2 shift: 0.1 } }")  # fmt: skip
    assert (
        write(net.message)
        == """layer {
  name: "a"
  type: "Power"
  bottom: "x"
  top: "y"
  loss_weight: 0.5
  power_param { power: 2 shift: 0.1 }
}
"""
    )
