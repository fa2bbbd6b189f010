"""Nets written in Python with layer types and fields of Caffe's forks: text, as it was given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netspec import caffe
from netspec.caffe import layers as L
from netspec.caffe import params as P
from netspec.errors import LayerError, ParseError
from netspec.frontend.prototxt import read_net, write
from netspec.proto.net_pb2 import NetParameter


def test_a_type_alone_needs_no_field() -> None:
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 8, 8]})
    n.wise = L.DepthwiseConvolution(n.data, convolution_param={"num_output": 3, "kernel_size": 5})
    n.six = L.ReLU6(n.wise, in_place=True)
    net = n.to_proto()
    assert type(net) is NetParameter
    assert [layer.type for layer in net.layer] == ["Input", "DepthwiseConvolution", "ReLU6"]
    assert list(net.layer[1].convolution_param.kernel_size) == [5]
    assert list(net.layer[2].top) == ["wise"]


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "a message": (
        lambda: L.Permute("x", permute_param={"order": [0, 2, 3, 1]}),
        "permute_param { order: 0 order: 2 order: 3 order: 1 }",
    ),
    "its fields": (
        lambda: L.ROIPooling("x", pooled_w=7, spatial_scale=0.0625),
        "roi_pooling_param { pooled_w: 7 spatial_scale: 0.0625 }",
    ),
    "names and strings": (
        lambda: L.PriorBox("x", code_type=P.PriorBox.CORNER, name_file="a.txt", clip=False),
        'prior_box_param { code_type: CORNER name_file: "a.txt" clip: false }',
    ),
    "messages in messages": (
        lambda: L.Annotated("x", annotated_param={"sampler": [{"a": 1, "b": {"c": 0.5}}, {}]}),
        "annotated_param { sampler { a: 1 b { c: 0.5 } } sampler { } }",
    ),
    "numbers of two kinds": (
        lambda: L.Scaled("x", by=[1, 0.5], to=np.float32(0.25), at=np.arange(2), up=True),
        "scaled_param { by: 1 by: 0.5 to: 0.25 at: 0 at: 1 up: true }",
    ),
    "a message that we have": (
        lambda: L.DepthwiseConvolution("x", convolution_param={"num_output": 2, "hole": 3}),
        "convolution_param { num_output: 2 hole: 3 }",
    ),
    "a type that we have": (
        lambda: L.Convolution("x", num_output=2, hole=3),
        "convolution_param { num_output: 2 hole: 3 }",
    ),
    "fields of all layers": (
        lambda: L.Permute("x", order=1, loss_weight=2, include={"phase": "TEST"}),
        "include { phase: TEST } loss_weight: 2 permute_param { order: 1 }",
    ),
    "an enum of ours": (
        lambda: L.RoiAlign("x", pooling_param={"pool": P.Pooling.AVE}),
        "pooling_param { pool: AVE }",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_fields_of_forks(name: str) -> None:
    build, wanted = CASES[name]
    n = caffe.NetSpec()
    n.x = L.Input(shape={"dim": 3})
    n.y = build()
    net = n.to_proto()
    kind = net.layer[1].type
    head = f'name: "y" type: "{kind}" bottom: "x" top: "y" '
    for text in (str(net), write(net)):
        # Fields stand in the order of their numbers.
        assert sorted(text.split("layer", 2)[2].split()) == sorted(f"{{ {head}{wanted} }}".split())


def test_a_function_knows_its_settings() -> None:
    plain = L.Convolution("x", num_output=2, kernel_size=3, in_place=False).fn
    assert plain.params == {"num_output": 2, "kernel_size": 3}
    a, b = L.Scaled("x", by=2, ntop=2)
    assert a.fn is b.fn
    assert (a.fn.params, a.fn.ntop, a.fn.type_name) == ({"by": 2}, 2, "Scaled")


def test_layers_of_one_type_share_a_field() -> None:
    n = caffe.NetSpec()
    n.x = L.Input(shape={"dim": 3})
    n.a = L.Scaled(n.x, by=1, how=P.Scaled.UP)
    n.b = L.Scaled(n.a, by=0.5, how=P.Scaled.DOWN, deep={"er": 1})
    n.c = L.Scaled(n.b, deep={"er": [2, 3]})
    net: Any = n.to_proto()
    assert [layer.scaled_param.by for layer in net.layer[1:]] == [1, 0.5, 0]
    assert "how: UP" in str(net)
    assert "how: DOWN" in str(net)
    assert [list(layer.scaled_param.deep.er) for layer in net.layer[1:]] == [[], [1], [2, 3]]


def test_what_is_written_is_read_where_it_is_known(tmp_path: Path) -> None:
    n = caffe.NetSpec()
    n.x = L.Input(shape={"dim": 3})
    n.y = L.Scaled(n.x, by=1)
    path = tmp_path / "net.prototxt"
    path.write_text(str(n.to_proto()))
    with pytest.raises(ParseError, match='unknown field "scaled_param" in LayerParameter'):
        read_net(path)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: L.Scaled("x", by=[1, "a"]).to_proto(), "by: 1, 'a' do not fit one field"),
        (lambda: L.Scaled("x", by=None).to_proto(), "by: None do not fit one field"),
        (
            lambda: L.Scaled("x", scaled_param={"two words": 1}).to_proto(),
            "'two words' is no name of a field",
        ),
        (
            lambda: L.Convolution("x", num_ouput=3),
            'L.Convolution: unknown field "num_ouput"; did you mean "num_output"?',
        ),
        (
            lambda: L.Convolution("x", convolution_parm={"num_output": 3}),
            'L.Convolution: unknown field "convolution_parm"; did you mean "convolution_param"?',
        ),
    ],
)
def test_mistakes(build: Callable[[], object], message: str) -> None:
    with pytest.raises(LayerError) as error:
        build()
    assert str(error.value) == message
