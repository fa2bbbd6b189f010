"""Nets of other than two spatial axes, and with channels on other axes, drawn and measured."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from netspec import caffe
from netspec.caffe.coord_map import coord_map_from_to, crop
from netspec.cli import main
from netspec.geometry.coords import Placement, crop_offset, placement
from netspec.geometry.min_padding import Alignment, alignment
from netspec.geometry.receptive_field import ReceptiveField, Span, receptive_field, seen
from netspec.inspect.look import look_at
from netspec.spec import NetSpec
from netspec.spec import layers as L

Shape = tuple[int, ...]


def command(folder: Path, net: str, *arguments: str) -> str:
    path = folder / "net.prototxt"
    path.write_text(net)
    result = CliRunner().invoke(main, [arguments[0], str(path), *arguments[1:]])
    assert result.exit_code == 0, result.output
    return result.output


def one(shape: Shape | None, settings: str, kind: str = "Convolution") -> str:
    dims = "".join(f" dim: {n}" for n in shape or ())
    stated = f"input_param {{ shape {{{dims} }} }}" if shape else ""
    outputs = "" if kind == "Im2col" else "num_output: 2"
    return f"""
        layer {{ name: "in" type: "Input" top: "x" {stated} }}
        layer {{ name: "c" type: "{kind}" bottom: "x" top: "y"
          convolution_param {{ {outputs} {settings} }} }}"""


def drawing_says(path: Path, settings: str) -> bool:
    return any(f"\\n{settings}{end}" in path.read_text() for end in ("\\n", '"'))


VOLUME = "stride: 1 stride: 2 stride: 2"

# What the blob is, the window's settings; what a drawing says, and stride, field and offset.
WINDOWS: list[tuple[Shape, str, str, list[str]]] = [
    ((1, 2, 6, 7, 8), f"kernel_size: 3 {VOLUME}", "3x3x3, stride 1x2x2", ["1x2x2", "3", "1"]),
    ((1, 2, 6, 7, 8), "kernel_size: 3", "3x3x3", ["1", "3", "1"]),
    (
        (1, 2, 6, 7, 8),
        "kernel_size: 3 kernel_size: 1 kernel_size: 3 pad: 1 pad: 0 pad: 0",
        "3x1x3, pad 1x0x0",
        ["1", "3x1x3", "0x0x1"],
    ),
    ((1, 2, 6), "kernel_size: 3 stride: 2 dilation: 2", "3, stride 2, dilation 2", ["2", "5", "2"]),
    (
        (1, 2, 5, 6, 7, 8),
        "kernel_size: 3 pad: 0 pad: 1 pad: 1 pad: 0",
        "3x3x3x3, pad 0x1x1x0",
        ["1", "3", "1x0x0x1"],
    ),
    ((1, 2, 6, 7, 8), "kernel_size: 3 axis: 2", "3x3", ["1", "3", "1"]),
    ((1, 2, 6, 7, 8), "kernel_h: 3 kernel_w: 1 axis: -3", "3x1", ["1", "3x1", "1x0"]),
    ((1, 2, 6, 7), "kernel_size: 3 axis: 2", "3", ["1", "3", "1"]),
    ((2, 6, 7), "kernel_size: 3 kernel_size: 1 stride: 2 axis: 0", "3x1, stride 2", ["2", "3x1"]),
    ((1, 2, 6, 7), "kernel_size: 3 stride: 2", "3x3, stride 2", ["2", "3", "1"]),
]


@pytest.mark.parametrize(("shape", "settings", "drawn", "row"), WINDOWS)
def test_windows_over_any_number_of_axes(
    tmp_path: Path, shape: Shape, settings: str, drawn: str, row: list[str]
) -> None:
    net = one(shape, settings)
    lines = command(tmp_path, net, "rf").splitlines()
    (found,) = [line.split() for line in lines if line.startswith("y ")]
    assert found[1 : 1 + len(row)] == row
    out = tmp_path / "net.dot"
    for kind in ("Convolution", "Im2col", "Deconvolution"):
        command(tmp_path, one(shape, settings, kind), "draw", "-o", str(out))
        assert drawing_says(out, f"{kind} {drawn}")


@pytest.mark.parametrize(
    ("settings", "drawn", "row"),
    [
        (f"kernel_size: 3 {VOLUME}", "3x3x3, stride 1x2x2", "y 1x2x2 3 1"),
        ("kernel_size: [1, 3, 3]", "1x3x3", "y 1 1x3x3 0x1x1"),
        ("kernel_size: [3]", "3x3", "y 1 3 1"),
    ],
)
def test_where_no_shape_is_known_settings_tell_the_axes(
    tmp_path: Path, settings: str, drawn: str, row: str
) -> None:
    net = one(None, settings).replace('"Input"', '"Data"')
    lines = command(tmp_path, net, "rf").splitlines()
    assert row in [" ".join(line.split()) for line in lines]
    out = tmp_path / "net.dot"
    command(tmp_path, net, "draw", "-o", str(out))
    assert drawing_says(out, f"Convolution {drawn}")


def test_a_drawing_says_where_settings_are_wrong(tmp_path: Path) -> None:
    net = one(None, f"kernel_size: 3 kernel_size: 3 {VOLUME}")
    path = tmp_path / "net.prototxt"
    path.write_text(net.replace('"Input"', '"Data"'))
    result = CliRunner().invoke(main, ["draw", str(path), "-o", str(tmp_path / "net.dot")])
    assert result.exit_code == 1
    assert 'net.prototxt:3: layer "c" (Convolution): kernel_size is given 2 times' in result.output


def test_without_spatial_axes_there_is_nothing_to_see(tmp_path: Path) -> None:
    net = one((3, 2), "kernel_size: 1")
    assert command(tmp_path, net, "rf").endswith(
        "\n\ny has no spatial axes\n\nno least pad: nothing is cut to the size of something else\n"
    )
    result = CliRunner().invoke(main, ["rf", str(tmp_path / "net.prototxt"), "y"])
    assert 'net.prototxt: "y" has no spatial axes' in result.output


def test_vectors_are_told_of_as_images_are(tmp_path: Path) -> None:
    net = """
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 } } }
        layer { name: "r" type: "ReLU" bottom: "x" top: "y" }"""
    lines = [" ".join(line.split()) for line in command(tmp_path, net, "rf").splitlines()]
    assert lines[4:6] == ["x 1 1 0", "y 1 1 0"]


def test_a_blob_that_gained_an_axis_is_of_its_own_rank(tmp_path: Path) -> None:
    net = """
        layer { name: "in" type: "Input" top: "x" top: "b"
          input_param { shape { dim: 4 dim: 6 } shape { dim: 1 } } }
        layer { name: "r" type: "Reshape" bottom: "x" top: "r"
          reshape_param { shape { dim: 4 dim: 1 dim: 6 } } }
        layer { name: "s" type: "Bias" bottom: "r" bottom: "b" top: "s" }
        layer { name: "c" type: "Im2col" bottom: "s" top: "c"
          convolution_param { kernel_size: 3 } }"""
    text = command(tmp_path, net, "rf")
    assert ["c", "1", "3", "1"] in [line.split() for line in text.splitlines()]


def test_volumes_made_of_images_have_no_place_on_them(tmp_path: Path) -> None:
    net = (
        one((1, 4, 6, 7), "kernel_size: [1, 3]").replace('"y"', '"y0"')
        + """
        layer { name: "r" type: "Reshape" bottom: "y0" top: "r"
          reshape_param { shape { dim: 1 dim: 1 dim: 2 dim: 6 dim: 5 } } }
        layer { name: "c3" type: "Convolution" bottom: "r" top: "y"
          convolution_param { num_output: 1 kernel_size: [1, 3, 3] } }"""
    )
    text = command(tmp_path, net, "rf")
    assert 'y has no coordinates on "x": layer "r" (Reshape) keeps none' in text
    assert ["y0", "1", "1x3", "0x1"] in [line.split() for line in text.splitlines()]


def upsampled(shape: Shape, axis: int = 1, pad: int = 10) -> NetSpec:
    """A net that pads widely, halves, looks around, doubles again and is cut to its input."""
    where: dict[str, Any] = {"axis": axis, "num_output": 1}
    n = NetSpec()
    n.data = L.Input(shape={"dim": list(shape)})
    n.conv = L.Convolution(n.data, kernel_size=3, pad=pad, **where)
    n.half = L.Convolution(n.conv, kernel_size=2, stride=2, **where)
    n.around = L.Convolution(n.half, kernel_size=3, **where)
    n.up = L.Deconvolution(n.around, kernel_size=4, stride=2, **where)
    n.score = crop(n.up, n.data)
    return n


def looked_at(n: NetSpec, folder: Path) -> Any:
    path = folder / "net.prototxt"
    path.write_text(str(n.to_proto()))
    return look_at(path)


# The shape, the channels' axis, and how many axes grow.
IMAGES = [
    ((1, 1, 20, 20), 1, 2),
    ((1, 1, 20), 1, 1),
    ((1, 1, 20, 20, 20), 1, 3),
    ((1, 3, 2, 20, 20), 2, 2),
    ((1, 3, 2, 20), 2, 1),
]


@pytest.mark.parametrize(("shape", "axis", "axes"), IMAGES)
def test_the_least_pad_is_that_of_two_axes(
    tmp_path: Path, shape: Shape, axis: int, axes: int
) -> None:
    n = upsampled(shape, axis)
    assert list(n.score.fn.spec.crop_param.offset) == [8]
    assert n.score.fn.spec.crop_param.axis == axis + 1
    assert alignment(looked_at(n, tmp_path)) == Alignment(("conv",), 4, 3, 2, axes)
    text = command(tmp_path, str(n.to_proto()), "rf")
    least = "x".join("2" * axes)
    assert text.endswith(f"every input size: 4\nwith sizes from {least} on: 3\n")


@pytest.mark.parametrize(("shape", "axis", "axes"), IMAGES)
def test_pads_below_the_least_fail(tmp_path: Path, shape: Shape, axis: int, axes: int) -> None:
    del axes
    for size in (1, 2, 3):
        sized = shape[: axis + 1] + (size,) * (len(shape) - axis - 1)
        works = []
        for pad in range(6):
            try:
                looked_at(upsampled(sized, axis, pad), tmp_path)
            except RuntimeError:
                continue
            works.append(pad)
        assert works == ([4, 5] if size == 1 else [3, 4, 5])


def test_without_a_batch_axis_pads_are_not_sought(tmp_path: Path) -> None:
    n = upsampled((2, 20, 20), 0)
    assert n.score.fn.spec.crop_param.axis == 1
    assert alignment(looked_at(n, tmp_path)) == (
        "without a batch axis, the first layers' pads are not sought"
    )


def test_pycaffes_coordinates_over_volumes() -> None:
    data = caffe.layers.Input(shape={"dim": [1, 2, 9, 9, 9]})
    conv = caffe.layers.Convolution(data, num_output=1, kernel_size=[1, 3, 5], stride=[1, 1, 2])
    axis, a, b = coord_map_from_to(conv, data)
    assert axis == 1
    assert np.array_equal(a, [1, 1, 2])
    assert np.array_equal(b, [0, 1, 2])


@pytest.mark.parametrize("kernel", [3, [3, 3], [3, 3, 3]])
def test_pycaffes_axis_is_that_of_channels(kernel: Any) -> None:
    data = caffe.layers.Data(source="gone", backend=1)
    conv = caffe.layers.Convolution(data, num_output=1, kernel_size=kernel, pad=3, axis=2)
    assert coord_map_from_to(conv, data) == (2, 1.0, -2.0)
    cut = crop(conv, data)
    assert cut.fn.spec.crop_param.axis == 3
    assert list(cut.fn.spec.crop_param.offset) == [2]


def test_graphs_without_shapes_are_asked_with_a_rank(tmp_path: Path) -> None:
    graph = looked_at(upsampled((1, 3, 2, 20, 20), 2), tmp_path).graph
    one, eight = (Fraction(1),) * 2, (Fraction(-8),) * 2
    assert placement(graph, "up", "data", rank=3) == Placement(one, eight, 3)
    assert crop_offset(graph, "up", "data", rank=3) == (8, 8)
    field = receptive_field(graph, "up", rank=3)
    assert field == ReceptiveField(one, (10, 10), eight)
    assert seen(graph, "conv", (1, 10, 12)) == (Span(0, 2), Span(2, 4))
