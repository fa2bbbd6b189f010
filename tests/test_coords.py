from fractions import Fraction as F

import pytest

from netspec.errors import GraphError
from netspec.frontend.graph import Graph, connect
from netspec.frontend.prototxt import parse_net
from netspec.geometry.coords import Placement, crop_offset, placement
from netspec.spec import NetSpec
from netspec.spec import layers as L
from netspec.spec import params as P

HALF = F(1, 2)


def graph(n: NetSpec) -> Graph:
    net = n.to_proto()
    return connect(parse_net(str(net), "net.prototxt"))


def conv_pool_deconv(
    kernel: int = 3, stride: int = 1, pad: int = 0, pool: int = 2, up: int = 2, up_pad: int = 0
) -> NetSpec:
    """The net of Caffe's own tests: the deconvolution's kernel is twice its stride."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [2, 1, 100, 100]})
    n.aux = L.Input(shape={"dim": [2, 1, 20, 20]})
    n.conv = L.Convolution(n.data, num_output=10, kernel_size=kernel, stride=stride, pad=pad)
    n.pool = L.Pooling(n.conv, pool=P.Pooling.MAX, kernel_size=pool, stride=pool)
    n.deconv = L.Deconvolution(n.pool, num_output=10, kernel_size=2 * up, stride=up, pad=up_pad)
    return n


def both(scale: F | int, shift: F | int) -> Placement:
    return Placement((F(scale),) * 2, (F(shift),) * 2)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, both(1, 0)),
        ({"pool": 4, "up": 4}, both(1, -1)),
        ({"pad": 7}, both(1, -7)),
        ({"up_pad": 7}, both(1, 7)),
        ({"pad": 7, "up_pad": 7}, both(1, 0)),
        ({"stride": 2}, both(2, -1)),
        ({"pool": 3, "up": 2}, both(F(3, 2), F(-1, 4))),
    ],
)
def test_placement_on_the_input(settings: dict[str, int], expected: Placement) -> None:
    assert placement(graph(conv_pool_deconv(**settings)), "deconv", "data") == expected


def test_placement_by_name_by_value_and_on_itself() -> None:
    g = graph(conv_pool_deconv(pad=3))
    assert placement(g, g.blob("deconv"), 0) == placement(g, "deconv", "data") == both(1, -3)
    assert placement(g, "data", "deconv") == both(1, 3)
    assert placement(g, "pool", "pool") == both(1, 0)
    assert placement(g, "conv", "pool") == both(HALF, F(-1, 4))


def test_elementwise_layers_and_plain_convolutions_change_nothing() -> None:
    n = conv_pool_deconv(pad=5)
    n.relu = L.ReLU(n.deconv, in_place=True)
    n.conv1x1 = L.Convolution(n.relu, num_output=10, kernel_size=1)
    n.sum = L.Eltwise(n.conv1x1, n.relu)
    n.both = L.Concat(n.sum, n.relu)
    g = graph(n)
    for name in ("deconv", "conv1x1", "sum", "both"):
        assert placement(g, name, "data") == both(1, -5)


def test_every_bottom_of_a_layer_is_mapped_to_its_own_top() -> None:
    n = conv_pool_deconv()
    n.on_data, n.on_aux = L.Convolution(
        n.data, n.aux, ntop=2, num_output=10, kernel_size=5, stride=2
    )
    g = graph(n)
    assert placement(g, "on_data", "data") == placement(g, "on_aux", "aux") == both(2, 2)


def test_axes_of_their_own() -> None:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 100, 100]})
    n.conv = L.Convolution(
        n.data, num_output=1, kernel_size=[3, 5], stride=[1, 2], pad=[0, 10], dilation=[1, 3]
    )
    g = graph(n)
    assert placement(g, "conv", "data") == Placement((F(1), F(2)), (F(1), F(-4)))


def test_three_spatial_axes() -> None:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [2, 3, 100, 100, 100]})
    n.conv = L.Convolution(n.data, num_output=10, kernel_size=[3, 3, 3], pad=[5, 6, 7])
    n.deconv = L.Deconvolution(n.conv, num_output=10, kernel_size=1)
    assert crop_offset(graph(n), "deconv", "data", rank=3) == (4, 5, 6)


def test_a_crop_moves_what_it_cuts_and_not_what_it_cuts_to() -> None:
    n = conv_pool_deconv(pad=9)
    n.cut = L.Crop(n.deconv, n.aux, axis=2, offset=[4, 6])
    n.wide = L.Crop(n.deconv, n.aux, axis=3, offset=5)
    n.square = L.Power(n.cut)
    g = graph(n)
    assert crop_offset(g, "square", "data") == (5, 3)
    assert crop_offset(g, "wide", "data") == (9, 4)
    with pytest.raises(GraphError, match=r'"square" and "aux" have no common ancestor'):
        placement(g, "square", "aux")


def test_the_nearest_common_ancestor_decides() -> None:
    """Below the paths that do not align, all is aligned."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 100, 100]})
    n.left = L.Convolution(n.data, num_output=1, kernel_size=2)
    n.right = L.Convolution(n.data, num_output=1, kernel_size=1)
    n.joined = L.Concat(n.left, n.right)
    n.padded = L.Convolution(n.joined, num_output=1, kernel_size=1, pad=2)
    g = graph(n)
    assert crop_offset(g, "padded", "joined") == (2, 2)
    with pytest.raises(GraphError) as error:
        placement(g, "padded", "data")
    assert str(error.value) == (
        'net.prototxt: "padded" and "data" are related by paths that do not align: '
        'scale 1, shift -2 by way of "data"; scale 1, shift -3/2 by way of "data"; '
        "change a pad or kernel on one of the paths"
    )


@pytest.mark.differs("crop-paths")
def test_two_ancestors_that_disagree() -> None:
    n = NetSpec()
    n.a = L.Input(shape={"dim": [1, 1, 9, 9]})
    n.b = L.Input(shape={"dim": [1, 1, 9, 9]})
    n.one = L.Eltwise(n.a, n.b)
    n.moved = L.Convolution(n.b, num_output=1, kernel_size=1, pad=1)
    n.two = L.Eltwise(n.a, n.moved)
    with pytest.raises(GraphError, match=r'shift -1 by way of "b"; .*shift 0 by way of "a"'):
        placement(graph(n), "two", "one")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"pool": 3, "up": 2},
            'net.prototxt: cannot crop "deconv" to "data": scales differ, one pixel of the first '
            "is 3/2 of the second; the strides on the way to each must multiply to the same",
        ),
        (
            {"up_pad": 10},
            'net.prototxt: cannot crop "deconv" to "data": offset -10 is negative, the first '
            "begins inside the second; pad an early layer more",
        ),
        (
            {"kernel": 4},
            'net.prototxt: cannot crop "deconv" to "data": offset -1/2 is no whole number of '
            "pixels; change a pad or kernel by one",
        ),
    ],
)
def test_crops_that_cannot_be(settings: dict[str, int], message: str) -> None:
    with pytest.raises(GraphError) as error:
        crop_offset(graph(conv_pool_deconv(**settings)), "deconv", "data")
    assert str(error.value) == message


def test_layers_without_coordinates_end_the_walk() -> None:
    n = conv_pool_deconv()
    n.ip = L.InnerProduct(n.deconv, num_output=10)
    n.pooled = L.Pooling(n.deconv, global_pooling=True)
    g = graph(n)
    for name, who in (("ip", "InnerProduct"), ("pooled", "Pooling")):
        with pytest.raises(GraphError) as error:
            placement(g, name, "data")
        assert str(error.value) == (
            f'net.prototxt: "{name}" and "data" have no common ancestor that coordinates reach; '
            f'layer "{name}" ({who}) keeps none'
        )


def test_unknown_blobs() -> None:
    with pytest.raises(GraphError, match=r'no blob "dconv"; did you mean "deconv"\?'):
        placement(graph(conv_pool_deconv()), "dconv", "data")
