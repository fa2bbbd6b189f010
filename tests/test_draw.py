import io
import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from sweeps import first_of_each

from netspec.errors import NetSpecError
from netspec.frontend.graph import Graph, connect
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import KnownShapes, Shapes, infer
from netspec.inspect import canvas
from netspec.inspect.canvas import Box, Line, Point, Scene, Size, text_width
from netspec.inspect.draw import dot, draw, png, scene, svg
from netspec.inspect.net_diagram import Entry, Kind, diagram, short
from netspec.layers.placeholder import create_or_stand_in

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = sorted((ROOT.parent / "shared" / "golden" / "nets").glob("*.prototxt"))
SVG = "{http://www.w3.org/2000/svg}"

SMALL = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 20, 24] } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: [2, 1, 20, 24] } } }
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 5 kernel_size: 3 pad: 1 }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "drop1" type: "Dropout" bottom: "conv1" top: "conv1" }
layer {
  name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { kernel_size: 2 stride: 2 }
}
layer {
  name: "up" type: "Deconvolution" bottom: "pool1" top: "up" param { lr_mult: 0 }
  convolution_param { num_output: 5 kernel_size: 4 stride: 2 bias_term: false }
}
layer { name: "crop" type: "Crop" bottom: "up" bottom: "data" top: "crop" crop_param { offset: 1 } }
layer { name: "fuse" type: "Eltwise" bottom: "crop" bottom: "conv1" top: "fuse" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fuse" bottom: "label" top: "loss" }
"""


def graph(text: str) -> Graph:
    return connect(parse_net(text, "net.prototxt"))


def small() -> Shapes:
    return infer(graph(SMALL))


def entries(net: Graph | KnownShapes) -> dict[str, Entry]:
    return {entry.name: entry for entry in diagram(net).entries}


def stacks(net: Graph | KnownShapes) -> list[list[str]]:
    return [[entry.name for entry in stack] for stack in diagram(net).stacks]


def residual(blocks: int) -> str:
    """A chain of blocks with a shortcut around each, and a label from first to last."""
    lines = [
        'layer { name: "in" type: "Input" top: "b0" top: "label"'
        " input_param { shape { dim: [1, 4, 8, 8] } shape { dim: [1, 1, 8, 8] } } }"
    ]
    for i in range(blocks):
        lines.append(
            f'layer {{ name: "conv{i}" type: "Convolution" bottom: "b{i}" top: "c{i}"'
            " convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }"
            f'layer {{ name: "sum{i}" type: "Eltwise" bottom: "b{i}" bottom: "c{i}"'
            f' top: "b{i + 1}" }}'
        )
    lines.append(
        f'layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "b{blocks}" bottom: "label"'
        ' top: "loss" }'
    )
    return "\n".join(lines)


UNKNOWN = """
layer { name: "data" type: "AnnotatedData" top: "data" top: "label" }
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 5 kernel_size: 3 pad: 1 }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "grow" type: "Interp" bottom: "conv1" top: "conv1" }
layer { name: "relu2" type: "ReLU" bottom: "conv1" top: "conv1" }
layer {
  name: "score" type: "Convolution" bottom: "conv1" top: "score" param { lr_mult: 0 }
  convolution_param { num_output: 5 kernel_size: 1 bias_term: false }
}
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { kernel_size: 4 } }
layer { name: "prior" type: "PriorBox" bottom: "pool" bottom: "score" top: "prior" loss_weight: 1 }
"""


def unknown(**given: tuple[int, ...]) -> KnownShapes:
    net = parse_net(UNKNOWN, "net.prototxt")
    return infer(connect(net, create_or_stand_in), given, "known")


def drawings() -> Iterator[tuple[str, Graph | KnownShapes]]:
    yield "small", small()
    yield "graph alone", graph(SMALL)
    yield "unknown layers", unknown(data=(2, 3, 20, 24))
    yield "residual", infer(graph(residual(40)))
    for path in sorted(ROOT.glob("nets/*/*.prototxt")):
        yield f"{path.parent.name} {path.stem}", read_graph(path)
    for path in PUBLISHED:
        yield path.stem, infer(read_graph(path))


DRAWINGS = dict(drawings())


def family(name: str) -> str:
    """Nets of one word in front are drawn much alike."""
    return name.split("-")[0]


@pytest.mark.parametrize("name", first_of_each(DRAWINGS, family))
def test_every_layer_is_in_the_svg(name: str) -> None:
    net = DRAWINGS[name]
    nodes = net.graph.nodes if isinstance(net, KnownShapes) else net.nodes
    words = " ".join(element.text or "" for element in ET.fromstring(svg(net)).iter())
    for node in nodes:
        assert node.name in words


@pytest.mark.parametrize("name", first_of_each(DRAWINGS, family))
def test_boxes_do_not_overlap_and_lines_go_around_them(name: str) -> None:
    picture = scene(DRAWINGS[name])
    assert len(picture.boxes) > 1
    assert picture.lines
    for a, b in itertools.combinations(picture.boxes, 2):
        assert (
            a.far.x <= b.corner.x
            or b.far.x <= a.corner.x
            or a.far.y <= b.corner.y
            or b.far.y <= a.corner.y
        )
    points = list(itertools.chain.from_iterable(map(samples, picture.lines)))
    for box in picture.boxes:
        assert not [p for p in points if is_inside(p, box)]
        assert 0 <= box.corner.x <= box.far.x <= picture.size.width
        assert 0 <= box.corner.y <= box.far.y <= picture.size.height


def samples(line: Line) -> Iterator[Point]:
    for start, end in itertools.pairwise(canvas.trace(line)):
        steps = int(max(abs(end.x - start.x), abs(end.y - start.y)) / 3) + 1
        for i in range(steps + 1):
            t = i / steps
            yield Point(start.x + t * (end.x - start.x), start.y + t * (end.y - start.y))


def is_inside(p: Point, box: Box) -> bool:
    return box.corner.x + 1 < p.x < box.far.x - 1 and box.corner.y + 0.5 < p.y < box.far.y - 0.5


@pytest.mark.parametrize("name", first_of_each(DRAWINGS, family))
def test_texts_fit_their_boxes_and_do_not_touch(name: str) -> None:
    picture = scene(DRAWINGS[name])
    places = []
    for text in picture.texts:
        width = text_width(text.text, text.size)
        left = text.at.x - {"start": 0, "middle": width / 2, "end": width}[text.anchor]
        places.append((text.at.y, left, left + width))
    inside = 0
    for box in picture.boxes:
        mine = [
            (y, left, right)
            for y, left, right in places
            if box.corner.y < y < box.far.y and box.corner.x < left < box.far.x
        ]
        inside += len(mine)
        assert all(right < box.far.x for _, _, right in mine)
        for one, other in itertools.pairwise(sorted(mine)):
            assert one[0] != other[0] or one[2] < other[1]
    assert inside >= len(picture.boxes)


def test_in_place_layers_stand_with_their_host() -> None:
    found = entries(small())
    assert set(found) == {"data", "label", "conv1", "pool1", "up", "crop", "fuse", "loss"}
    assert found["conv1"].nodes == (2, 3, 4)
    settings = found["conv1"].settings
    assert settings.startswith("Convolution 3x3")
    assert settings.index("+ ReLU") < settings.index("+ Dropout")
    for words in ("relu1 (ReLU)", "drop1 (Dropout)", "weight 5x3x3x3", "bias 5", "net.prototxt:5"):
        assert words in found["conv1"].tip


def test_chains_are_stacked() -> None:
    assert stacks(small()) == [
        ["data"],
        ["label"],
        ["conv1"],
        ["pool1", "up"],
        ["crop"],
        ["fuse"],
        ["loss"],
    ]


def test_shapes_arrays_and_frozen_layers() -> None:
    found = entries(small())
    assert found["conv1"].shape == "2x5x20x24"
    assert found["conv1"].arrays == "140"
    assert found["up"].arrays == "400"
    assert [name for name, entry in found.items() if entry.frozen] == ["up"]
    assert found["loss"].shape == "scalar"


def test_without_shapes() -> None:
    found = entries(graph(SMALL))
    assert {entry.shape + entry.arrays for entry in found.values()} == {""}
    assert [name for name, entry in found.items() if entry.frozen] == ["up"]


def test_kinds() -> None:
    kinds = {name: entry.kind for name, entry in entries(graph(SMALL)).items()}
    assert kinds == {
        "data": Kind.SOURCE,
        "label": Kind.SOURCE,
        "conv1": Kind.LEARNED,
        "pool1": Kind.POOLING,
        "up": Kind.LEARNED,
        "crop": Kind.JOIN,
        "fuse": Kind.JOIN,
        "loss": Kind.LOSS,
    }


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        ('type: "Accuracy" bottom: "x" bottom: "y"', Kind.LOSS),
        ('type: "HingeLoss" bottom: "x" bottom: "y" loss_weight: 0', Kind.LOSS),
        ('type: "MultinomialLogisticLoss" bottom: "x" bottom: "y" loss_weight: 0', Kind.LOSS),
        ('type: "SPP" bottom: "x" spp_param { pyramid_height: 1 }', Kind.POOLING),
        ('type: "Im2col" bottom: "x" convolution_param { kernel_size: 3 }', Kind.OTHER),
    ],
)
def test_layers_say_what_kind_they_are(layer: str, kind: Kind) -> None:
    inputs = 'layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape {} } }'
    net = graph(f'{inputs} layer {{ name: "a" top: "a" {layer} }}')
    assert entries(net)["a"].kind is kind


def test_labels_and_sizes_are_beside_the_stream() -> None:
    net = graph(SMALL)
    shown = diagram(net)
    faint = {
        (net.values[value].name, entry.name)
        for entry in shown.entries
        for value in shown.reads(entry)
        if shown.is_faint(entry, value)
    }
    assert faint == {("data", "crop"), ("label", "loss")}


def test_several_tops_are_labelled() -> None:
    found = entries(infer(graph(residual(1))))["in"]
    assert found.labels == ("b0 1x4x8x8", "label 1x1x8x8")
    assert found.shape == ""


def test_unknown_layers() -> None:
    found = entries(unknown(data=(2, 3, 20, 24)))
    assert {name: entry.kind for name, entry in found.items()} == {
        "data": Kind.UNKNOWN,
        "conv1": Kind.LEARNED,
        "grow": Kind.UNKNOWN,
        "score": Kind.LEARNED,
        "pool": Kind.POOLING,
        "prior": Kind.UNKNOWN,
    }
    assert found["data"].labels == ("data 2x3x20x24", "label ?")
    assert found["grow"].settings == "Interp + ReLU"
    assert {
        name: (found[name].shape, found[name].arrays) for name in ("conv1", "grow", "score")
    } == {
        "conv1": ("2x5x20x24", "140"),
        "grow": ("?", ""),
        "score": ("?", ""),
    }
    assert [name for name, entry in found.items() if entry.frozen] == ["score"]
    assert [name for name, entry in found.items() if entry.dashed] == [
        "data", "grow", "score", "prior",
    ]  # fmt: skip
    assert "bottom conv1 2x5x20x24\ntop conv1 ?" in found["grow"].tip


def test_unknown_layers_are_in_the_legend() -> None:
    picture = scene(unknown(data=(2, 3, 20, 24)))
    assert "unknown" in {text.text for text in picture.texts}
    assert picture.texts[1].text.endswith(
        "140 parameters, 140 of them learned, as far as shapes are known"
    )
    assert "unknown" not in {text.text for text in scene(small()).texts}
    assert 'label="conv1 ?"' in dot(unknown()).decode()


def test_shared_arrays_name_their_owner() -> None:
    shared = (
        'param { name: "w" } convolution_param { num_output: 3 kernel_size: 1 bias_term: false }'
    )
    net = infer(
        graph(
            'layer { name: "in" type: "Input" top: "a"'
            " input_param { shape { dim: [1, 3, 5, 7] } } }"
            f'layer {{ name: "one" type: "Convolution" bottom: "a" top: "b" {shared} }}'
            f'layer {{ name: "two" type: "Convolution" bottom: "b" top: "c" {shared} }}'
        )
    )
    assert entries(net)["one"].arrays == "9"
    assert entries(net)["two"].arrays == "as one"
    assert "9 parameters" in " ".join(text.text for text in scene(net).texts)


def test_names_are_escaped() -> None:
    name = r"a<b>&\"c\" 'd'"
    net = graph(SMALL.replace('name: "conv1"', f'name: "{name}"').replace("pool1", r"p\001\n1"))
    names = [element.text for element in ET.fromstring(svg(net, "1 < 2")).iter(f"{SVG}text")]
    assert "a<b>&\"c\" 'd'" in names
    assert "p??1" in names
    assert "1 < 2" in names
    assert r"a<b>&\"c\" 'd'" in dot(net).decode()
    assert png(net).startswith(b"\x89PNG")


def test_svg_texts_have_the_width_that_was_measured() -> None:
    texts = list(ET.fromstring(svg(small())).iter(f"{SVG}text"))
    assert len(texts) == len(scene(small()).texts) > 0
    for element in texts:
        measured = text_width(element.text or "", float(element.attrib["font-size"]))
        assert float(element.attrib["textLength"]) == pytest.approx(measured, abs=0.06)


def test_png_has_twice_the_size() -> None:
    picture = scene(small())
    image = Image.open(io.BytesIO(png(small())))
    assert image.size[0] == pytest.approx(2 * picture.size.width, abs=1)
    assert image.size[1] == pytest.approx(2 * picture.size.height, abs=1)
    box = picture.boxes[-1]
    assert image.getpixel((int(2 * box.corner.x + 8), int(2 * box.corner.y + 8))) == (246, 213, 211)


def test_huge_png_is_scaled_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "MOST_PIXELS", 60_000)
    image = Image.open(io.BytesIO(canvas.png(Scene(Size(300, 2000), (), (), ()))))
    assert image.size == (95, 633)


def test_title() -> None:
    words = [text.text for text in scene(small()).texts]
    assert words[:2] == [
        "small",
        "phase TEST, 10 layers, 540 parameters, 140 of them learned",
    ]
    assert scene(small(), "Other").texts[0].text == "Other"
    nameless = graph(SMALL.replace('name: "small"', ""))
    assert scene(nameless).texts[0].text == "net"
    assert scene(nameless).texts[1].text == "phase TEST, 10 layers"


def test_legend_has_what_the_drawing_has() -> None:
    words = {text.text for text in scene(small()).texts}
    assert {"learned", "frozen (lr_mult: 0)", "no gradient", "joins streams"} <= words
    assert "other" not in words


def test_dot() -> None:
    text = dot(small()).decode()
    assert text.startswith('digraph "small" {')
    assert text.count(" -> ") == 9
    assert '[label="conv1 2x5x20x24"]' in text
    assert r'label="conv1\nConvolution 3x3' in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("ending", ["svg", "png", "dot", "SVG"])
def test_the_ending_chooses_the_format(tmp_path: Path, ending: str) -> None:
    draw(small(), tmp_path / f"net.{ending}")
    start = {"svg": b"<svg", "png": b"\x89PNG", "dot": b"digraph"}[ending.lower()]
    assert (tmp_path / f"net.{ending}").read_bytes().startswith(start)


@pytest.mark.parametrize(("name", "ending"), [("net.jpg", ".jpg"), ("net", "net")])
def test_other_endings(tmp_path: Path, name: str, ending: str) -> None:
    with pytest.raises(NetSpecError) as error:
        draw(small(), tmp_path / name)
    assert str(error.value) == (
        f'{tmp_path / name}: cannot draw "{ending}"; '
        "the name of a drawing ends in .svg, .png or .dot"
    )


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NetSpecError, match=r"file/net\.svg: "):
        draw(small(), tmp_path / "file" / "net.svg")


def test_a_net_without_layers() -> None:
    empty = graph('name: "empty"')
    assert ET.fromstring(svg(empty)).tag == f"{SVG}svg"
    assert png(empty).startswith(b"\x89PNG")
    assert dot(empty).startswith(b"digraph")


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0"),
        (999, "999"),
        (1792, "1.79k"),
        (999_999, "1M"),
        (102_764_544, "103M"),
        (2**31, "2.15G"),
    ],
)
def test_short(number: int, expected: str) -> None:
    assert short(number) == expected


def test_the_three_streams_of_fcn8s_meet() -> None:
    """pool3, pool4 and fc7 go side by side, and join one after the other."""
    net = read_graph(ROOT / "nets" / "voc-fcn8s" / "train.prototxt")
    picture = scene(net)
    at = {text.text: text.at for text in picture.texts}
    assert at["score_pool4"].x > at["fc7"].x
    assert at["score_pool3"].x > at["conv4_1"].x
    order = ["pool3", "pool4", "fc7", "score_pool4c", "fuse_pool4", "score_pool3c", "fuse_pool3"]
    assert [at[name].y for name in order] == sorted(at[name].y for name in order)
    assert picture.size.width < 1300
    assert picture.size.height < 1800
