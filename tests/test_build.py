from pathlib import Path

import numpy as np
import pytest

from netspec import build
from netspec.errors import GraphError, LayerError, SourceError
from netspec.frontend.net_graph import graph_of, read_graph
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import KnownShapes
from netspec.inspect.look import look_at
from netspec.proto.layers_pb2 import TEST, TRAIN, NetState
from netspec.sources.fed_net import compile_net
from netspec.sources.feed import Feed

FED = """
layer { name: "in" type: "HDF5Data" top: "x"
  hdf5_data_param { source: "nowhere.txt" batch_size: 2 } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 4 kernel_size: 3 } }
"""
LOOKED_AT = """layer { name: "in" type: "Input" top: "z" input_param { shape { dim: [1, 2] } } }
layer { name: "u" type: "Interp" bottom: "z" top: "u" }
layer { name: "v" type: "Concat" bottom: "z" bottom: "u" top: "v" }
"""


def test_every_stage_is_passed(tmp_path: Path) -> None:
    """An old net with phases, from its file to a module."""
    path = tmp_path / "net.prototxt"
    path.write_text("""
        input: "x" input_dim: [1, 2, 5, 7]
        layers { name: "a" type: CONVOLUTION bottom: "x" top: "a" include { phase: TRAIN }
          convolution_param { num_output: 3 kernel_size: 3 } }
        layers { name: "b" type: POOLING bottom: "x" top: "b" include { phase: TEST }
          pooling_param { kernel_size: 2 stride: 2 } }
    """)
    assert build.load(path, phase="train").shapes.by_name == {
        "x": (1, 2, 5, 7),
        "a": (1, 3, 3, 5),
    }
    assert build.load(path).shapes.by_name == {"x": (1, 2, 5, 7), "b": (1, 2, 3, 4)}


def test_a_parsed_net_is_built_in_a_state() -> None:
    net = parse_net('layer { name: "a" type: "Input" top: "x" include { stage: "b" } }')
    assert graph_of(net, NetState(phase=TRAIN, stage=["b"])).phase == TRAIN
    assert graph_of(net, NetState(phase=TEST)).nodes == ()


def test_shapes_hang_on_data_that_is_not_here() -> None:
    graph = graph_of(parse_net(FED), NetState(phase=TEST))
    assert compile_net(graph, {"x": (1, 2, 5, 7)}).shapes["y"] == (1, 4, 3, 5)
    with pytest.raises(SourceError, match=r"nowhere.txt: no such file$"):
        compile_net(graph)
    with pytest.raises(LayerError, match="kernel extent 3 > size 2"):
        compile_net(graph, {"x": (1, 2, 2, 7)})


def test_a_net_to_look_at(tmp_path: Path) -> None:
    """Shapes that hang on data that is not here, and on a layer that is not known, are unknown."""
    path = tmp_path / "net.prototxt"
    path.write_text(FED + LOOKED_AT)
    known = look_at(path)
    assert shapes_by_name(known) == {"x": None, "y": None, "z": (1, 2), "u": None, "v": None}
    assert unasked(known) == {0, 1, 3, 4}
    known = look_at(path, "train", {"x": (1, 2, 5, 7)})
    assert known.graph.phase == TRAIN
    assert shapes_by_name(known)["y"] == (1, 4, 3, 5)
    assert unasked(known) == {3, 4}
    with pytest.raises(LayerError, match="kernel extent 3 > size 2"):
        look_at(path, "train", {"x": (1, 2, 2, 7)})
    with pytest.raises(LayerError, match=r':7: layer "u" \(Interp\): unknown layer type "Interp"'):
        read_graph(path)


def unasked(known: KnownShapes) -> set[int]:
    return {n for n, each in enumerate(known.nodes) if not each.known}


def shapes_by_name(known: KnownShapes) -> dict[str, tuple[int, ...] | None]:
    return {name: known.values[i] for name, i in known.graph.blobs.items()}


def test_a_shape_for_a_blob_that_is_not_fed() -> None:
    graph = graph_of(parse_net(FED, "net.prototxt"), NetState(phase=TEST))
    with pytest.raises(GraphError) as error:
        compile_net(graph, {"x": (1, 2, 5, 7), "y": (1,)})
    assert str(error.value) == 'net.prototxt: no input blob "y"; the net is fed x'


STATED = """
layer { name: "d" type: "DummyData" top: "x" top: "z" dummy_data_param {
  num: 2 channels: 3 channels: 1 height: 5 height: 4 width: 7 } }
layer { name: "m" type: "MemoryData" top: "image" top: "label" memory_data_param {
  batch_size: 2 channels: 3 height: 5 width: 7 } }
layer { name: "e" type: "DummyData" top: "a" top: "b" dummy_data_param {
  shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "label"
  hdf5_output_param { file_name: "out.h5" } }
"""


def test_data_layers_that_state_their_shapes_need_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net = compile_net(
        graph_of(parse_net(STATED, "net.prototxt"), NetState(phase=TEST)), {"b": (4,)}
    )
    assert net.shapes.by_name == {
        "x": (2, 3, 5, 7),
        "z": (2, 1, 4, 7),
        "image": (2, 3, 5, 7),
        "label": (2,),
        "a": (2, 3),
        "b": (4,),
    }
    fed = {name: np.zeros(shape, np.float32) for name, shape in net.shapes.by_name.items()}
    net(**fed)
    assert Path("out.h5").is_file()
    with Feed(net.shapes.graph) as feed, pytest.raises(SourceError) as caught:
        feed.next()
    assert str(caught.value).startswith(
        'net.prototxt:4: layer "m" (MemoryData): has no arrays yet; hand them in first: '
    )


@pytest.mark.parametrize(
    ("layer_type", "param"),
    [
        ("Data", 'data_param { source: "nowhere" backend: LMDB batch_size: 2 }'),
        ("ImageData", 'image_data_param { source: "nowhere" batch_size: 2 }'),
        (
            "WindowData",
            'transform_param { crop_size: 5 } window_data_param { source: "nowhere" '
            "batch_size: 2 }",
        ),
    ],
)
def test_data_layers_whose_data_is_not_here(layer_type: str, param: str) -> None:
    text = f'layer {{ name: "d" type: "{layer_type}" top: "x" top: "y" {param} }}'
    graph = graph_of(parse_net(text, "net.prototxt"), NetState(phase=TEST))
    given = {"x": (2, 3, 5, 7), "y": (2,)}
    assert compile_net(graph, given).shapes.by_name == given
    with pytest.raises(SourceError) as error:
        compile_net(graph)
    assert str(error.value).startswith(
        f'net.prototxt:1: layer "d" ({layer_type}): source: nowhere: no such '
    )
