"""What pycaffe's ``caffe.draw`` makes of layers for Graphviz."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import text_format

from netspec.caffe import draw
from netspec.proto.layers_pb2 import TEST, TRAIN, LayerParameter
from netspec.proto.net_pb2 import NetParameter

NET = """
name: "n"
layer { name: "d" type: "Data" top: "x" data_param { batch_size: 7 } include { phase: TRAIN } }
layer { name: "i" type: "Input" top: "x" exclude { phase: TRAIN } }
layer { name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 5 } }
layer { name: "r" type: "ReLU" bottom: "y" top: "y" }
"""


def layer(text: str) -> LayerParameter:
    return text_format.Parse(text, LayerParameter())


def test_pooling_types() -> None:
    assert draw.get_pooling_types_dict() == {0: "MAX", 1: "AVE", 2: "STOCHASTIC"}


@pytest.mark.parametrize(
    ("text", "label", "colour", "edge"),
    [
        (
            'name: "c" type: "Convolution" '
            "convolution_param { num_output: 5 kernel_size: 3 pad: 1 }",
            r"c\n(Convolution)\nkernel size: 3\nstride: 1\npad: 1",
            "#FF5050",
            "5",
        ),
        (
            'name: "u" type: "Deconvolution" '
            "convolution_param { num_output: 2 stride: 2 stride: 4 }",
            r"u\n(Deconvolution)\nkernel size: 1\nstride: 2\npad: 0",
            "#FF5050",
            "2",
        ),
        (
            'name: "p" type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 }',
            r"p\n(Pooling AVE)\nkernel size: 3\nstride: 2\npad: 0",
            "#FF9900",
            '""',
        ),
        (
            'name: "f" type: "InnerProduct" inner_product_param { num_output: 9 }',
            r"f\n(InnerProduct)",
            "#CC33FF",
            "9",
        ),
        ('name: "d" type: "Data" data_param { batch_size: 7 }', r"d\n(Data)", "#6495ED", "Batch 7"),
        ('name: "o" type: "Odd"', r"o\n(Odd)", "#6495ED", '""'),
    ],
)
def test_labels(text: str, label: str, colour: str, edge: str) -> None:
    made = layer(text)
    assert draw.get_layer_label(made, "LR") == f'"{label}"'
    for vertical in ("TB", "BT"):
        assert draw.get_layer_label(made, vertical) == f'"{label}"'.replace(r"\n", " ")
    assert draw.choose_color_by_layertype(made.type) == colour
    assert draw.get_edge_label(made) == edge


@pytest.mark.parametrize(
    ("params", "rates", "label"),
    [
        ("", (1.0, 1.0), "lr mult: 1.0, 1.0"),
        ("param { lr_mult: 2 }", (2.0, 1.0), "lr mult: 2.0, 1.0"),
        ("param { lr_mult: 0 } param { lr_mult: 0 }", (0.0, 0.0), ""),
    ],
)
def test_learning_rates(params: str, rates: tuple[float, float], label: str) -> None:
    made = layer(f'name: "f" type: "InnerProduct" {params}')
    assert draw.get_layer_lr_mult(made) == rates
    words = f'"f (InnerProduct) {label}"' if label else '"f (InnerProduct)"'
    assert draw.get_layer_label(made, "TB", display_lrm=True) == words


def test_layers_without_learning_rates() -> None:
    with pytest.raises(ValueError, match=r"^ReLU layers do not have a learning rate multiplier$"):
        draw.get_layer_lr_mult(layer('type: "ReLU"'))
    with pytest.raises(ValueError, match=r"^layer f has 3 param; a weight and a bias expected$"):
        draw.get_layer_lr_mult(layer('name: "f" type: "InnerProduct" param {} param {} param {}'))


class Dot:
    """A stand-in for pydot's graph, which only notes what it is given."""

    def __init__(self, name: str, **options: str) -> None:
        self.name, self.options = name, options
        self.nodes: list[Any] = []
        self.edges: list[Any] = []
        self.add_node, self.add_edge = self.nodes.append, self.edges.append


@pytest.mark.parametrize(
    ("phase", "sources"),
    [(None, ["d", "i"]), (TRAIN, ["d"]), (TEST, ["i"])],
)
def test_a_graph(monkeypatch: pytest.MonkeyPatch, phase: int | None, sources: list[str]) -> None:
    pydot = SimpleNamespace(
        Dot=Dot,
        Node=lambda label, **style: (label, style.get("fillcolor")),
        Edge=lambda start, end, label: (start[0], end[0], label),
    )
    monkeypatch.setitem(sys.modules, "pydot", pydot)
    graph = draw.get_pydot_graph(text_format.Parse(NET, NetParameter()), "TB", phase=phase)
    assert (graph.name, graph.options) == ("n", {"graph_type": "digraph", "rankdir": "TB"})
    labels = [label for label, _ in graph.nodes]
    conv = '"c (Convolution) kernel size: 1 stride: 1 pad: 0"'
    boxes = {"d": '"d (Data)"', "i": '"i (Input)"'}
    assert [label for label in labels if label in boxes.values()] == [boxes[s] for s in sources]
    assert {(conv, "#FF5050"), ('"r (ReLU)"', "#90EE90"), ("x", "#E0E0E0")} <= set(graph.nodes)
    assert ("x", conv, '""') in graph.edges
    assert (conv, "y", "5") in graph.edges
    bare = draw.get_pydot_graph(text_format.Parse(NET, NetParameter()), "TB", label_edges=False)
    assert {label for _, _, label in bare.edges} == {'""'}


def test_a_layer_of_both_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydot", SimpleNamespace(Dot=Dot))
    net = NetParameter(layer=[layer('name: "a" include {} exclude {}')])
    with pytest.raises(ValueError, match=r"^layer a has both include and exclude specified\.$"):
        draw.get_pydot_graph(net, "LR", phase=TEST)
