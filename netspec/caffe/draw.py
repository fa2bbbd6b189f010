"""pycaffe's ``caffe.draw``: pictures of net messages, drawn by `netspec.inspect.draw`.

What pycaffe makes of a layer for Graphviz is here too, for scripts that draw by themselves.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from netspec.errors import NetSpecError, Place, fail
from netspec.formats.atomic import atomic_write
from netspec.frontend.graph import Graph
from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import NetText
from netspec.inspect import draw
from netspec.layers.placeholder import create_or_stand_in
from netspec.proto.layers_pb2 import TEST, TRAIN, LayerParameter, PoolingParameter
from netspec.proto.net_pb2 import NetParameter

# As pydot takes them.
LAYER_STYLE_DEFAULT = {"shape": "record", "fillcolor": "#6495ED", "style": "filled"}
NEURON_LAYER_STYLE = {"shape": "record", "fillcolor": "#90EE90", "style": "filled"}
BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}

_COLOURS = {
    "Convolution": "#FF5050",
    "Deconvolution": "#FF5050",
    "Pooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}
_CONVOLUTIONS = ("Convolution", "Deconvolution")
_NOTHING = '""'
_WRITERS = {"svg": draw.svg, "png": draw.png, "dot": draw.dot}


def draw_net(
    caffe_net: NetParameter,
    rankdir: str = "LR",
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """A net as a picture file: svg, png or dot.

    phase: TRAIN or TEST. Differs: None is TRAIN, as layers of two phases make the same blobs; the
    picture is laid out as it fits best, whatever ``rankdir`` says; frozen layers are always marked,
    and ``display_lrm`` adds nothing. Raises a NetSpecError.
    """
    if ext not in _WRITERS:
        fail(f'cannot draw "{ext}"; there are {", ".join(_WRITERS)}', NetSpecError)
    return _WRITERS[ext](_graph(caffe_net, phase))


def draw_net_to_file(
    caffe_net: NetParameter,
    filename: str,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """As `draw_net`, to a file whose ending names the format."""
    picture = draw_net(caffe_net, rankdir, Path(filename).suffix[1:], phase, display_lrm)
    with atomic_write(filename) as part:
        part.write_bytes(picture)


def _graph(net: NetParameter, phase: int | None) -> Graph:
    message = NetParameter()
    message.CopyFrom(net)
    name = net.name or "net"
    written = NetText(message, name, (Place(name),) * (len(net.layer) + len(net.layers)))
    state = state_of(written, TEST if phase == TEST else TRAIN, 0, ())
    return graph_of(written, state, create_or_stand_in)


def get_pooling_types_dict() -> dict[int, str]:
    """The number of a pooling method -> its name."""
    values = PoolingParameter.PoolMethod.DESCRIPTOR.values_by_number
    return {number: value.name for number, value in values.items()}


def get_edge_label(layer: LayerParameter) -> str:
    """The label of a layer's tops: its batch size or number of outputs, or ``""`` in quotes."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in _CONVOLUTIONS:
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return _NOTHING


def get_layer_lr_mult(layer: LayerParameter) -> tuple[float, float]:
    """The learning rate multipliers of a layer's weight and bias.

    Raises ValueError for a type that pycaffe does not know to learn, and for more ``param``.
    """
    if layer.type not in (*_CONVOLUTIONS, "InnerProduct"):
        raise ValueError(f"{layer.type} layers do not have a learning rate multiplier")
    found = [spec.lr_mult for spec in layer.param]
    if len(found) > 2:
        raise ValueError(f"layer {layer.name} has {len(found)} param; a weight and a bias expected")
    weight, bias = [*found, 1.0, 1.0][:2]
    return weight, bias


def get_layer_label(layer: LayerParameter, rankdir: str, display_lrm: bool = False) -> str:
    """The label of a layer's box, in quotes: its name, type and window.

    rankdir: lines are parted where the net is drawn from left to right, not from top to bottom.
    """
    pooling = layer.type == "Pooling"
    method = f" {get_pooling_types_dict()[layer.pooling_param.pool]}" if pooling else ""
    words = [layer.name, f"({layer.type}{method})"]
    if pooling:
        window = layer.pooling_param
        sizes = [window.kernel_size, window.stride, window.pad]
    elif layer.type in _CONVOLUTIONS:
        filters = layer.convolution_param
        sizes = [
            next(iter(given), default)
            for given, default in ((filters.kernel_size, 1), (filters.stride, 1), (filters.pad, 0))
        ]
    else:
        sizes = []
    nouns = ("kernel size", "stride", "pad")
    words += [f"{noun}: {size}" for noun, size in zip(nouns, sizes, strict=False)]
    if display_lrm and layer.type in (*_CONVOLUTIONS, "InnerProduct"):
        weight, bias = get_layer_lr_mult(layer)
        words += [f"lr mult: {weight:.1f}, {bias:.1f}"] if weight or bias else []
    separator = " " if rankdir in ("TB", "BT") else r"\n"
    return f'"{separator.join(words)}"'


def choose_color_by_layertype(layertype: str) -> str:
    """The colour of a layer's box."""
    return _COLOURS.get(layertype, LAYER_STYLE_DEFAULT["fillcolor"])


def get_pydot_graph(
    caffe_net: NetParameter,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> Any:
    """A net as a graph of pydot, which must be installed: layers and blobs are nodes.

    phase: that of the layers, all if None. Raises ValueError for a layer with both ``include`` and
    ``exclude``, and ImportError without pydot.
    """
    pydot = import_module("pydot")
    graph = pydot.Dot(caffe_net.name or "Net", graph_type="digraph", rankdir=rankdir)
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str, str]] = []
    for layer in caffe_net.layer:
        if phase is not None and not _has_phase(layer, phase):
            continue
        style = {**LAYER_STYLE_DEFAULT, "fillcolor": choose_color_by_layertype(layer.type)}
        in_place = len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top)
        name = f"{layer.name}_{layer.type}"
        label = get_layer_label(layer, rankdir, display_lrm)
        nodes[name] = pydot.Node(label, **(NEURON_LAYER_STYLE if in_place else style))
        for bottom in layer.bottom:
            nodes[f"{bottom}_blob"] = pydot.Node(bottom, **BLOB_STYLE)
            edges.append((f"{bottom}_blob", name, _NOTHING))
        for top in layer.top:
            nodes[f"{top}_blob"] = pydot.Node(top)
            edges.append((name, f"{top}_blob", get_edge_label(layer) if label_edges else _NOTHING))
    for node in nodes.values():
        graph.add_node(node)
    for start, end, label in edges:
        graph.add_edge(pydot.Edge(nodes[start], nodes[end], label=label))
    return graph


def _has_phase(layer: LayerParameter, phase: int) -> bool:
    if layer.include and layer.exclude:
        raise ValueError(f"layer {layer.name} has both include and exclude specified.")
    included = not layer.include or any(rule.phase == phase for rule in layer.include)
    return included and not any(rule.phase == phase for rule in layer.exclude)
