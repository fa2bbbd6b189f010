import copy
from collections.abc import Callable

import numpy as np
import pytest

from netspec.errors import GraphError, LayerError
from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net, write
from netspec.proto.layers_pb2 import TRAIN, ConvolutionParameter, LayerParameter, PoolingParameter
from netspec.proto.net_pb2 import NetParameter
from netspec.spec import NetSpec, Top, UnknownTop, crop, to_proto
from netspec.spec import layers as L
from netspec.spec import params as P


def image() -> Top:
    return L.Input(shape={"dim": [1, 3, 20, 30]})


def only(top: Top) -> LayerParameter:
    """The last layer of the net of one top."""
    return top.to_proto().layer[-1]


def same(net: NetParameter, text: str) -> bool:
    return net == parse_net(text).message


def test_a_net_as_pycaffe_would_write_it() -> None:
    n = NetSpec()
    n.data, n.label = L.DummyData(
        shape=[{"dim": [5, 1, 28, 28]}, {"dim": [5, 1, 1, 1]}], ntop=2, include={"phase": TRAIN}
    )
    n.conv1 = L.Convolution(
        n.data,
        kernel_size=5,
        num_output=20,
        param=[{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 2, "decay_mult": 0}],
        weight_filler={"type": "xavier"},
    )
    n.relu1 = L.ReLU(n.conv1, in_place=True)
    n.pool1 = L.Pooling(n.relu1, kernel_size=2, stride=2, pool=P.Pooling.AVE)
    n.ip1 = L.InnerProduct(n.pool1, num_output=10)
    n.loss = L.SoftmaxWithLoss(n.ip1, n.label, loss_weight=2, loss_param={"ignore_label": 255})
    n.quiet = L.Silence(n.label, ntop=0)
    assert same(
        n.to_proto(),
        """
        layer {
          name: "data" type: "DummyData" top: "data" top: "label" include { phase: TRAIN }
          dummy_data_param {
            shape { dim: 5 dim: 1 dim: 28 dim: 28 } shape { dim: 5 dim: 1 dim: 1 dim: 1 }
          }
        }
        layer {
          name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
          param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
          convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } }
        }
        layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
        layer {
          name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
          pooling_param { pool: AVE kernel_size: 2 stride: 2 }
        }
        layer {
          name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1"
          inner_product_param { num_output: 10 }
        }
        layer {
          name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss"
          loss_weight: 2 loss_param { ignore_label: 255 }
        }
        layer { name: "quiet" type: "Silence" bottom: "label" }
        """,
    )


def test_what_is_never_assigned_is_named_after_its_type() -> None:
    data, label = L.DummyData(shape={"dim": 3}, ntop=2)
    first = L.ReLU(data)
    second = L.ReLU(first, in_place=True)
    net = L.Eltwise(second, L.Power(label)).to_proto()
    assert [(layer.name, *layer.bottom, *layer.top) for layer in net.layer] == [
        ("DummyData1", "DummyData1", "DummyData2"),
        ("ReLU1", "DummyData1", "ReLU1"),
        ("ReLU2", "ReLU1", "ReLU1"),
        ("Power1", "DummyData2", "Power1"),
        ("Eltwise1", "ReLU1", "Power1", "Eltwise1"),
    ]


def test_layers_stand_in_the_order_of_assignment_each_after_what_it_needs() -> None:
    n = NetSpec()
    n.a = image()
    between = L.ReLU(n.a)
    n.b = L.Power(n.a)
    n["c"] = L.Eltwise(between, n["b"])
    assert [layer.name for layer in n.to_proto().layer] == ["a", "b", "ReLU1", "c"]
    assert list(n.tops) == ["a", "b", "c"]


def test_a_name_assigned_again_is_the_new_tops() -> None:
    n = NetSpec()
    n.x = image()
    n.x = L.ReLU(n.x)
    assert [layer.name for layer in n.to_proto().layer] == ["Input1", "x"]


def test_several_tops_make_one_net_without_repeating_layers() -> None:
    data = image()
    net = to_proto(L.ReLU(data), L.TanH(data), L.Silence(data, ntop=0))
    assert [layer.type for layer in net.layer] == ["Input", "ReLU", "TanH", "Silence"]


def test_a_deep_net_is_not_too_deep_to_write() -> None:
    top = image()
    for _ in range(2000):
        top = L.ReLU(top)
    assert len(top.to_proto().layer) == 2001


def test_bottoms_by_name() -> None:
    assert list(only(L.Eltwise("a", bottom=["b", "c"])).bottom) == ["a", "b", "c"]
    relu = only(L.ReLU(bottom="a", in_place=True))
    assert (list(relu.bottom), list(relu.top)) == (["a"], ["a"])


def test_a_layer_may_be_named_apart_from_its_top() -> None:
    n = NetSpec()
    n.out = L.ReLU("data", name="relu")
    layer = n.to_proto().layer[0]
    assert (layer.name, *layer.top) == ("relu", "out")


def test_values_of_every_kind() -> None:
    pooling = only(L.Pooling("x", pool="AVE", kernel_size=np.int64(3), global_pooling=np.False_))
    assert pooling.pooling_param.pool == PoolingParameter.AVE
    assert pooling.pooling_param.kernel_size == 3
    assert only(L.ReLU("x", phase="TEST", relu_param={})).HasField("relu_param")
    conv = L.Convolution("x", kernel_size=(3, 5), pad=np.array([1, 2]), bias_filler={"value": 0.5})
    assert list(only(conv).convolution_param.kernel_size) == [3, 5]
    assert list(only(conv).convolution_param.pad) == [1, 2]
    assert only(conv).convolution_param.bias_filler.value == 0.5
    whole = ConvolutionParameter(num_output=7)
    assert only(L.Convolution("x", convolution_param=whole)).convolution_param.num_output == 7


def test_a_type_that_borrows_another_types_message() -> None:
    direct = L.Deconvolution("x", num_output=2, kernel_size=4, stride=2)
    nested = L.Deconvolution(
        "x", convolution_param={"num_output": 2, "kernel_size": 4, "stride": 2}
    )
    assert only(direct) == only(nested)


@pytest.mark.differs("spec-keywords")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: L.Convolution("x", kernel_sise=3),
            'L.Convolution: unknown field "kernel_sise"; did you mean "kernel_size"?',
        ),
        (
            lambda: L.Convolution("x", parm=[{"lr_mult": 1}]),
            'L.Convolution: unknown field "parm"; did you mean "param"?',
        ),
        (
            lambda: L.Convolution("x", param={"lr_mul": 1}),
            'L.Convolution: unknown field "lr_mul" in ParamSpec; did you mean "lr_mult"?',
        ),
        (
            lambda: L.Convolution("x", num_output=-1),
            "L.Convolution: num_output: -1 does not fit: ",
        ),
        (
            lambda: L.Convolution("x", weight_filler="msra"),
            "L.Convolution: weight_filler: 'msra' does not fit: ",
        ),
        (
            lambda: L.Pooling("x", pool="MIN"),
            'L.Pooling: pool: no value "MIN" (MAX, AVE, STOCHASTIC)',
        ),
        (
            lambda: L.Convolutoin("x"),
            'unknown layer type "Convolutoin"; did you mean "Convolution"?',
        ),
        (
            lambda: L.Silence(L.DummyData(ntop=2), ntop=0),
            "L.Silence: bottom 0 is a tuple, not a top or the name of a blob; "
            "give several tops one by one: L.Silence(*tops)",
        ),
        (lambda: P.Pooling.MAXIMUM, 'P.Pooling: no value "MAXIMUM"; did you mean "MAX"? (MAX, '),
        (lambda: P.Poling, 'P.Poling: no message "PolingParameter"; did you mean "Pooling"?'),
    ],
)
def test_mistakes_are_found_where_they_are_written(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(LayerError) as error:
        build()
    assert str(error.value).startswith(message)


def test_unknown_tops() -> None:
    n = NetSpec()
    n.data = image()
    with pytest.raises(UnknownTop, match=r'^no top "dat"; did you mean "data"\?$'):
        n.dat  # noqa: B018
    assert not hasattr(n, "label")
    assert copy.copy(n).tops == n.tops


def test_only_tops_can_be_assigned() -> None:
    n = NetSpec()
    with pytest.raises(GraphError, match=r'^"data" is assigned a tuple, not a top; '):
        n.data = L.DummyData(ntop=2)
    with pytest.raises(GraphError, match=r'^"to_proto" is a method of NetSpec$'):
        n.to_proto = image()


def test_written_and_connected() -> None:
    n = NetSpec()
    n.data = image()
    n.prob = L.Softmax(n.data)
    assert connect(parse_net(write(n.to_proto()))).outputs == ("prob",)


def test_crop_finds_its_offset() -> None:
    n = NetSpec()
    n.data = image()
    n.conv = L.Convolution(n.data, num_output=2, kernel_size=3, pad=10)
    n.relu = L.ReLU(n.conv, in_place=True)
    n.cut = crop(n.relu, n.data)
    layer = n.to_proto().layer[-1]
    assert (list(layer.bottom), layer.crop_param.axis) == (["conv", "data"], 2)
    assert list(layer.crop_param.offset) == [9]


def test_crop_with_an_offset_for_each_axis() -> None:
    data = image()
    layer = only(crop(L.Convolution(data, num_output=2, kernel_size=1, pad=[3, 5]), data))
    assert list(layer.crop_param.offset) == [3, 5]


def test_crop_of_one_of_several_tops() -> None:
    a, b = image(), image()
    fine, coarse = L.Convolution(a, b, ntop=2, num_output=2, kernel_size=1, pad=4)
    assert list(only(crop(coarse, b)).crop_param.offset) == [4]
    with pytest.raises(GraphError, match="have no common ancestor"):
        crop(fine, b)


def test_crop_that_cannot_be() -> None:
    data = image()
    with pytest.raises(GraphError, match=r'^cannot crop "Convolution1" to "Input1": offset -1 is '):
        crop(L.Convolution(data, num_output=2, kernel_size=3), data)
