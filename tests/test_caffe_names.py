"""Names that scripts find in pycaffe's C++ and generated parts, and what a wrong name is told."""

from pathlib import Path
from typing import Any

import pytest

from netspec import caffe
from netspec.caffe import _caffe

NET = """
layer { name: "d" type: "Input" top: "d" input_param { shape { dim: [1, 3] } } }
layer {
  name: "ip" type: "InnerProduct" bottom: "d" top: "ip" inner_product_param { num_output: 2 }
}
layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 0.5 }
"""


@pytest.fixture
def net(tmp_path: Path) -> caffe.Net:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return caffe.Net(str(path), caffe.TEST)


def test_vectors(net: caffe.Net) -> None:
    assert type(net.params["ip"]) is _caffe.BlobVec
    assert type(net.layers) is _caffe.LayerVec
    assert type(net.layers[1].blobs) is _caffe.BlobVec
    assert type(net._blobs) is _caffe.BlobVec
    assert type(net._blob_names) is type(net._layer_names) is _caffe.StringVec
    assert [list(net._blob_names), list(net._layer_names)] == [["d", "ip", "loss"]] * 2
    for numbers, wanted in (
        (net._inputs, [0]),
        (net._outputs, [2]),
        (net._bottom_ids(1), [0]),
        (net._top_ids(1), [1]),
    ):
        assert type(numbers) is _caffe.IntVec
        assert numbers == wanted
    assert type(net._blob_loss_weights) is _caffe.DtypeVec
    assert net._blob_loss_weights == [0.0, 0.0, 0.5]
    assert issubclass(_caffe.BoolVec, list)
    assert issubclass(_caffe.RawBlobVec, list)


def test_their_parts_are_of_their_type(net: caffe.Net) -> None:
    assert type(net.params["ip"][:1]) is _caffe.BlobVec
    assert net.params["ip"][:1][0] is net.params["ip"][0]
    weight, bias = net.params["ip"]
    assert (weight.shape, bias.shape) == ((2, 3), (2,))


def test_members(net: caffe.Net) -> None:
    assert isinstance(net, _caffe.Net)
    assert isinstance(net.blobs["d"], _caffe.Blob)
    assert all(isinstance(layer, _caffe.Layer) for layer in net.layers)
    assert _caffe.LayerParameter is caffe.proto.caffe_pb2.LayerParameter
    assert _caffe.SolverParameter is caffe.proto.caffe_pb2.SolverParameter


def test_nets_of_a_solver(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        f'net: "{tmp_path / "net.prototxt"}" test_iter: 1 test_interval: 5 lr_policy: "fixed" '
        "base_lr: 1 test_initialization: false"
    )
    nets = caffe.get_solver(str(solver)).test_nets
    assert type(nets) is _caffe.NetVec
    assert type(nets[0]) is caffe.Net


def test_what_belongs_to_a_net_is_not_exchanged(net: caffe.Net) -> None:
    told = r"^a BlobVec shows what its net has, and stays as it is; write into a blob's data, or "
    with pytest.raises(TypeError, match=told):
        net.params["ip"][0] = net.params["ip"][1]
    with pytest.raises(TypeError, match=told):
        net.params["ip"].add_blob(3)
    with pytest.raises(TypeError, match=r"^a LayerVec shows"):
        del net.layers[0]


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda net: net.blobs["lost"], 'no blob "lost"; did you mean "loss"?'),
        (lambda net: net.blobs["conv1_1"], 'no blob "conv1_1"'),
        (lambda net: net.params["ipp"], 'no layer "ipp" that learns anything; did you mean "ip"?'),
        (lambda net: net.params["d"], 'no layer "d" that learns anything'),
        (lambda net: net.forward()["los"], 'no blob "los" among these; did you mean "loss"?'),
        (lambda net: net.layer_dict["ips"], 'no layer "ips"; did you mean "ip"?'),
        (lambda net: net.top_names["ips"], 'no layer "ips"; did you mean "ip"?'),
        (lambda net: net.blob_loss_weights["los"], 'no blob "los"; did you mean "loss"?'),
        (lambda net: net.forward(blobs=["los"]), 'no blob "los"; did you mean "loss"?'),
    ],
)
def test_an_unknown_name(net: caffe.Net, ask: Any, told: str) -> None:
    with pytest.raises(KeyError) as raised:
        ask(net)
    assert str(raised.value) == told
    assert isinstance(raised.value, RuntimeError)


def test_asking_whether_a_name_is_there(net: caffe.Net) -> None:
    assert "los" not in net.blobs
    assert net.blobs.get("los") is None
    assert net.params.get("d") is None


def test_descriptors_by_their_private_names() -> None:
    pb = caffe.proto.caffe_pb2
    assert pb._PHASE.values_by_name["TEST"].number == caffe.TEST
    assert "convolution_param" in pb._LAYERPARAMETER.fields_by_name
    assert "layer" in pb._NETPARAMETER.fields_by_name
    assert pb._V1LAYERPARAMETER_LAYERTYPE.values_by_number[4].name == "CONVOLUTION"
    assert pb._POOLINGPARAMETER_POOLMETHOD is pb.PoolingParameter.PoolMethod.DESCRIPTOR
    assert pb._SOLVERPARAMETER_SOLVERMODE.name == "SolverMode"
    assert pb.DESCRIPTOR.message_types_by_name["SolverState"] is pb.SolverState.DESCRIPTOR
    assert list(pb.DESCRIPTOR.enum_types_by_name) == ["Phase"]


def test_a_message_that_is_not_there() -> None:
    with pytest.raises(AttributeError) as raised:
        _ = caffe.proto.caffe_pb2.LayerParam
    assert str(raised.value) == 'caffe_pb2 has no "LayerParam"; did you mean "LayerParameter"?'
    assert not hasattr(caffe.proto.caffe_pb2, "_SUCH")
