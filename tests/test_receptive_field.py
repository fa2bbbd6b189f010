"""What a blob's pixels see: what the walk says, held against the gradients of the net itself."""

from collections.abc import Callable
from fractions import Fraction as F
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from netspec.errors import GraphError
from netspec.frontend.graph import Graph, connect
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import infer
from netspec.geometry.receptive_field import (
    ReceptiveField,
    Span,
    receptive_field,
    receptive_fields,
    seen,
)
from netspec.runtime.module import Net
from netspec.spec import NetSpec, Top
from netspec.spec import layers as L
from netspec.spec import params as P

ROOT = Path(__file__).resolve().parents[1]
ONES = {"num_output": 1, "weight_filler": {"type": "constant", "value": 1}}


def graph(n: NetSpec) -> Graph:
    return connect(parse_net(str(n.to_proto()), "net.prototxt"))


def fed(*size: int) -> NetSpec:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, *size]})
    return n


def mean(bottom: Top, kernel: int, **settings: int) -> Top:
    """Unlike a maximum's, its gradient reaches every pixel of the window."""
    return L.Pooling(bottom, pool=P.Pooling.AVE, kernel_size=kernel, **settings)


# Nets whose last blob is looked at, with weights and inputs that no gradient cancels in.


def windows() -> NetSpec:
    n = fed(41, 47)
    n.a = L.Convolution(n.data, kernel_size=[3, 2], stride=[1, 2], pad=[1, 0], **ONES)
    n.b = mean(n.a, 3, stride=2, pad=1)
    n.c = L.Convolution(n.b, kernel_size=3, dilation=2, **ONES)
    return n


def skips() -> NetSpec:
    """As FCN-8s has them: a coarse path upsampled, a finer one cut to it, both upsampled."""
    n = fed(37, 43)
    n.conv = L.Convolution(n.data, kernel_size=3, pad=8, **ONES)
    n.fine = mean(n.conv, 2, stride=2)
    n.coarse = mean(n.fine, 2, stride=2)
    n.fc = L.Convolution(n.coarse, kernel_size=3, **ONES)
    n.up = L.Deconvolution(n.fc, kernel_size=4, stride=2, **ONES)
    n.skip = L.Crop(n.fine, n.up, offset=1)
    n.fused = L.Eltwise(n.up, n.skip)
    n.up2 = L.Deconvolution(n.fused, kernel_size=4, stride=2, **ONES)
    n.score = L.Crop(n.up2, n.data, offset=6)
    return n


def holes() -> NetSpec:
    """A kernel less than its stride, so that some pixels see nothing."""
    n = fed(9, 11)
    n.up = L.Deconvolution(n.data, kernel_size=2, stride=3, **ONES)
    return n


def over_holes() -> NetSpec:
    n = holes()
    n.conv = L.Convolution(n.up, kernel_size=[2, 4], stride=2, **ONES)
    return n


def neighbours() -> NetSpec:
    n = fed(12, 13)
    n.conv = L.Convolution(n.data, kernel_size=2, **ONES)
    n.norm = L.LRN(n.conv, local_size=5, norm_region=P.LRN.WITHIN_CHANNEL)
    return n


def loose() -> NetSpec:
    """Two paths whose fields have different centres."""
    n = fed(12, 13)
    n.wide = L.Convolution(n.data, kernel_size=4, pad=1, **ONES)
    n.late = L.Convolution(n.data, kernel_size=2, **ONES)
    n.joined = L.Concat(n.wide, n.late)
    n.cut = L.Crop(n.late, n.wide, axis=2)
    n.sum = L.Eltwise(n.wide, n.cut)
    return n


LOOKED_AT = [windows, skips, holes, over_holes, neighbours]


def gradients(g: Graph, blob: str) -> np.ndarray:
    """Whether an output pixel (y, x) depends on an input pixel: (Y, X, H, W)."""
    net = Net(infer(g))
    shape = infer(g)["data"]
    data = jnp.asarray(np.random.default_rng(0).uniform(1, 2, shape), jnp.float32)
    jacobian = jax.jacrev(lambda x: net(data=x)[blob][0].sum(0))(data)
    return np.asarray(jacobian)[:, :, 0, 0] != 0


@pytest.mark.parametrize("make", LOOKED_AT)
def test_a_pixel_sees_what_its_gradient_reaches(make: Callable[[], NetSpec]) -> None:
    g = graph(make())
    blob = list(g.blobs)[-1]
    depends = gradients(g, blob)
    widest, inside = [0, 0], 0
    rows, columns = depends.shape[:2]
    for i in range(max(rows, columns)):
        pixel = (i % rows, i % columns)
        spans = seen(g, blob, pixel)
        reached = [np.flatnonzero(depends[pixel].any(axis)) for axis in (1, 0)]
        if spans is None:
            assert [len(where) for where in reached] == [0, 0]
            continue
        whole = all(
            s.low >= 0 and s.high < n for s, n in zip(spans, depends.shape[2:], strict=True)
        )
        inside += whole
        for axis, (span, where) in enumerate(zip(spans, reached, strict=True)):
            assert all(span.low <= p <= span.high for p in where)
            if whole:
                assert span == (where[0], where[-1])
                widest[axis] = max(widest[axis], span.high - span.low + 1)
    assert inside >= 4
    assert receptive_field(g, blob).size == tuple(widest)


def test_pixels_are_a_stride_apart() -> None:
    g = graph(skips())
    field = receptive_field(g, "score")
    assert field == ReceptiveField((F(1),) * 2, (22,) * 2, (F(0),) * 2)
    assert receptive_field(g, "up").stride == (F(2),) * 2
    centres = [sum(seen(g, "score", (p, 5))[0]) / 2 - p for p in range(10, 14)]
    assert sum(centres) == 0
    assert len(set(centres)) > 1


def test_what_a_pixel_sees() -> None:
    g = graph(windows())
    assert seen(g, "c", (0, 0)) == (Span(-2, 10), Span(-2, 19))
    assert seen(g, "c", (3, 1), "a") == (Span(5, 15), Span(1, 11))
    assert seen(g, "a", (3, 1), "data") == (Span(2, 4), Span(2, 3))
    assert seen(graph(holes()), "up", (1, 2)) is None


def alexnet() -> Graph:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 227, 227]})
    n.conv1 = L.Convolution(n.data, num_output=1, kernel_size=11, stride=4)
    n.pool1 = L.Pooling(n.conv1, kernel_size=3, stride=2)
    n.conv2 = L.Convolution(n.pool1, num_output=1, kernel_size=5, pad=2)
    n.pool2 = L.Pooling(n.conv2, kernel_size=3, stride=2)
    for i in (3, 4, 5):
        bottom = n["pool2" if i == 3 else f"conv{i - 1}"]
        n[f"conv{i}"] = L.Convolution(bottom, num_output=1, kernel_size=3, pad=1)
    n.pool5 = L.Pooling(n.conv5, kernel_size=3, stride=2)
    n.fc6 = L.Convolution(n.pool5, num_output=1, kernel_size=6)
    return graph(n)


@pytest.mark.parametrize(
    ("blob", "stride", "size", "offset"),
    [
        ("data", 1, 1, 0),
        ("conv1", 4, 11, 5),
        ("pool1", 8, 19, 9),
        ("conv2", 8, 51, 9),
        ("pool2", 16, 67, 17),
        ("conv5", 16, 163, 17),
        ("pool5", 32, 195, 33),
        ("fc6", 32, 355, 113),
    ],
)
def test_receptive_fields_of_alexnet(blob: str, stride: int, size: int, offset: int) -> None:
    expected = ReceptiveField((F(stride),) * 2, (size,) * 2, (F(offset),) * 2)
    assert receptive_field(alexnet(), blob) == expected


@pytest.mark.parametrize(
    ("net", "blob", "size"),
    [
        ("voc-fcn-alexnet", "score_fr", 355),
        ("voc-fcn32s", "score_fr", 404),
        # The paper counts the mean over 7x7 that the classifier has, and the FCN has not.
        ("googlenet", "pool5/7x7_s1", 907),
        ("voc-fcn32s-googlenet", "score_fr", 907 - 6 * 32),
    ],
)
def test_receptive_fields_of_the_paper(net: str, blob: str, size: int) -> None:
    field = receptive_field(read_graph(ROOT / "nets" / net / "deploy.prototxt"), blob)
    assert (field.stride, field.size) == ((F(32),) * 2, (size,) * 2)


def test_axes_of_their_own() -> None:
    n = fed(100, 100)
    n.conv = L.Convolution(
        n.data, num_output=1, kernel_size=[3, 5], stride=[1, 2], pad=[0, 10], dilation=[1, 3]
    )
    assert receptive_field(graph(n), "conv") == ReceptiveField((F(1), F(2)), (3, 13), (F(1), F(-4)))


def test_three_spatial_axes() -> None:
    n = fed(9, 10, 11)
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=[1, 2, 3])
    assert receptive_field(graph(n), "conv", rank=3).size == (1, 2, 3)
    assert seen(graph(n), "conv", (4, 5, 6)) == (Span(4, 4), Span(5, 6), Span(6, 8))


def test_joined_paths_see_their_union() -> None:
    g = graph(loose())
    assert receptive_field(g, "wide").offset == receptive_field(g, "late").offset == (F(1, 2),) * 2
    assert receptive_field(g, "joined") == receptive_field(g, "wide")
    moved = fed(9, 9)
    moved.left = L.Convolution(moved.data, num_output=1, kernel_size=3, pad=1)
    moved.right = L.Convolution(moved.data, num_output=1, kernel_size=4)
    moved.sum = L.Eltwise(moved.left, moved.right)
    assert receptive_field(graph(moved), "sum") == ReceptiveField(
        (F(1),) * 2, (5,) * 2, (F(1),) * 2
    )


def without_fields() -> NetSpec:
    n = fed(8, 8)
    n.aux = L.Input(shape={"dim": [1, 1, 8, 8]})
    n.cut = L.Crop(n.aux, n.data)
    n.strided = L.Pooling(n.data, kernel_size=1, stride=2)
    n.torn = L.Eltwise(n.aux, n.data, n.strided)
    n.flat = L.Flatten(n.data)
    n.ip = L.InnerProduct(n.data, num_output=3)
    n.prob = L.Softmax(n.ip)
    n.pooled = L.Pooling(n.data, global_pooling=True)
    n.mvn = L.MVN(n.data)
    n.best = L.ArgMax(n.data, axis=3)
    n.across = L.Softmax(n.data, axis=2)
    n.param = L.Parameter(shape={"dim": [1]})
    n.zeros = L.Deconvolution(n.data, num_output=1, kernel_size=1, stride=2, pad=0)
    n.nothing = L.Convolution(L.Crop(n.zeros, n.strided, offset=1), kernel_size=1, stride=2, **ONES)
    return n


REASONS = {
    "torn": 'comes from "data" by paths of different strides: 1, 2',
    "flat": 'has no coordinates on "data": layer "flat" (Flatten) keeps none',
    "ip": 'sees all of "data": layer "ip" (InnerProduct)',
    "prob": 'sees all of "data": layer "ip" (InnerProduct)',
    "pooled": 'sees all of "data": layer "pooled" (Pooling)',
    "mvn": 'sees all of "data": layer "mvn" (MVN)',
    "best": 'sees all of "data": layer "best" (ArgMax)',
    "across": 'sees all of "data": layer "across" (Softmax)',
    "nothing": 'sees nothing of "data"',
}


def test_blobs_without_a_field_say_why() -> None:
    g = graph(without_fields())
    said = {n: f for n, f in receptive_fields(g, "data").items() if isinstance(f, str)}
    assert said == REASONS
    for name, reason in REASONS.items():
        with pytest.raises(GraphError) as error:
            receptive_field(g, name)
        assert str(error.value) == f'net.prototxt: "{name}" {reason}'


def test_a_chosen_input() -> None:
    g = graph(without_fields())
    assert receptive_field(g, "cut").size == receptive_field(g, "cut", "aux").size == (1, 1)
    assert "cut" not in receptive_fields(g, "data")
    for blob, source, message in (
        ("cut", "data", '"cut" does not come from "data"'),
        ("param", None, '"param" comes from no input'),
        ("ct", None, 'no blob "ct"; did you mean "cut"\\?'),
    ):
        with pytest.raises(GraphError, match=f"net.prototxt: {message}$"):
            receptive_field(g, blob, source)


def test_batch_statistics_see_all() -> None:
    n = fed(5, 5)
    n.norm = L.BatchNorm(n.data)
    assert receptive_field(graph(n), "norm").size == (1, 1)
    n.norm = L.BatchNorm(n.data, use_global_stats=False)
    with pytest.raises(GraphError, match='"norm" sees all of "data"'):
        receptive_field(graph(n), "norm")
