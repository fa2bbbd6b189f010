from pathlib import Path

import pytest

from netspec import build
from netspec.errors import GraphError, LayerError, SourceError
from netspec.proto.layers_pb2 import TEST, TRAIN, NetState
from netspec.prototxt import parse_net

FED = """
layer { name: "in" type: "HDF5Data" top: "x"
  hdf5_data_param { source: "nowhere.txt" batch_size: 2 } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 4 kernel_size: 3 } }
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
    assert build.graph_of(net, NetState(phase=TRAIN, stage=["b"])).phase == TRAIN
    assert build.graph_of(net, NetState(phase=TEST)).nodes == ()


def test_shapes_hang_on_data_that_is_not_here() -> None:
    graph = build.graph_of(parse_net(FED), NetState(phase=TEST))
    assert build.shapes_or_none(graph, {}) is None
    shapes = build.shapes_or_none(graph, {"x": (1, 2, 5, 7)})
    assert shapes is not None
    assert shapes["y"] == (1, 4, 3, 5)
    with pytest.raises(SourceError, match=r"nowhere.txt: no such file$"):
        build.compile_net(graph)
    with pytest.raises(LayerError, match="kernel extent 3 > size 2"):
        build.shapes_or_none(graph, {"x": (1, 2, 2, 7)})


def test_a_shape_for_a_blob_that_is_not_fed() -> None:
    graph = build.graph_of(parse_net(FED, "net.prototxt"), NetState(phase=TEST))
    with pytest.raises(GraphError) as error:
        build.compile_net(graph, {"x": (1, 2, 5, 7), "y": (1,)})
    assert str(error.value) == 'net.prototxt: no input blob "y"; the net is fed x'
