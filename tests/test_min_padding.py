"""The least pads, held against all pads and sizes tried one by one."""

from pathlib import Path

import pytest

from netspec.errors import NetSpecError
from netspec.frontend.graph import connect
from netspec.frontend.prototxt import parse_net
from netspec.frontend.shapes import KnownShapes, infer
from netspec.geometry.min_padding import Alignment, alignment
from netspec.inspect.look import look_at
from netspec.spec import NetSpec, crop
from netspec.spec import layers as L

ROOT = Path(__file__).resolve().parents[1]
SIZES = range(1, 41)


def known(n: NetSpec) -> KnownShapes:
    return infer(connect(parse_net(str(n.to_proto()), "net.prototxt")), {}, "known")


def small(pad: int, size: int = 40, stride: int = 1, kernel: int = 3) -> NetSpec:
    """A coarse path and a finer one, cut to each other and to the image."""
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, size, size]})
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=kernel, stride=stride, pad=pad)
    n.fine = L.Pooling(n.conv, kernel_size=2, stride=2)
    n.coarse = L.Pooling(n.fine, kernel_size=2, stride=2)
    n.fc = L.Convolution(n.coarse, num_output=1, kernel_size=4)
    n.up = L.Deconvolution(n.fc, num_output=1, kernel_size=4, stride=2)
    n.skip = crop(n.fine, n.up)
    n.sum = L.Eltwise(n.up, n.skip)
    n.up2 = L.Deconvolution(n.sum, num_output=1, kernel_size=4 * stride, stride=2 * stride)
    n.score = crop(n.up2, n.data)
    return n


def can_be(pad: int, size: int, **settings: int) -> bool:
    try:
        known(small(pad, size, **settings))
    except NetSpecError:
        return False
    return True


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "kernel": 4}])
def test_no_smaller_pad_aligns(settings: dict[str, int]) -> None:
    found = alignment(known(small(20, **settings)))
    assert isinstance(found, Alignment)
    assert found.layers == ("conv",)
    works = {pad: [n for n in SIZES if can_be(pad, n, **settings)] for pad in range(18)}
    every = [pad for pad, sizes in works.items() if sizes == list(SIZES)]
    large = [pad for pad, sizes in works.items() if sizes[-24:] == list(SIZES)[-24:]]
    assert (found.every, found.large) == (min(every), min(large))
    assert works[found.large] == list(range(found.least, SIZES.stop))


def vgg_aligns(pad: int, size: int) -> bool:
    """By hand, for FCN-32s: the scores are cut at pad - 81."""
    x = size + 2 * pad - 2
    for _ in range(5):
        x = -(-x // 2)
    scores = x - 6
    return scores > 0 and pad >= 81 and 32 * (scores - 1) + 64 >= pad - 81 + size


def test_fcn32s() -> None:
    path = ROOT / "nets" / "voc-fcn32s" / "deploy.prototxt"
    assert alignment(look_at(path)) == Alignment(("conv1_1",), 97, 81, 33)
    assert all(vgg_aligns(97, n) for n in range(1, 2000))
    assert not any(all(vgg_aligns(pad, n) for n in range(1, 2000)) for pad in range(97))
    assert [n for n in range(1, 2000) if not vgg_aligns(81, n)] == list(range(1, 33))
    text = path.read_text()
    for pad in (81, 96, 97):
        moved = text.replace("pad: 100", f"pad: {pad}").replace("offset: 19", f"offset: {pad - 81}")
        assert moved != text
        net = connect(parse_net(moved, "net.prototxt"))
        for size in range(1, 50):
            try:
                infer(net, {"data": (1, 3, size, size)})
            except NetSpecError:
                assert not vgg_aligns(pad, size), (pad, size)
            else:
                assert vgg_aligns(pad, size), (pad, size)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc-fcn8s", Alignment(("conv1_1",), 97, 69, 57)),
        ("nyud-fcn32s-color-hha", Alignment(("conv1_1color", "conv1_1hha"), 97, 81, 33)),
    ],
)
def test_nets_of_the_family(name: str, expected: Alignment) -> None:
    assert alignment(look_at(ROOT / "nets" / name / "deploy.prototxt")) == expected


def test_nets_that_nothing_aligns() -> None:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 20, 20]})
    n.conv = L.Convolution(n.data, num_output=1, kernel_size=3)
    assert alignment(known(n)) == "nothing is cut to the size of something else"
    n.even = L.Convolution(n.conv, num_output=1, kernel_size=4, pad=4)
    n.score = L.Crop(n.even, n.data)
    assert alignment(known(n)) == (
        'net.prototxt: layer "score" (Crop): cannot crop "even" to '
        '"data": offset 17/2 is no whole number of pixels; change a pad or kernel by one'
    )


def test_data_that_is_not_here() -> None:
    shapes = look_at(ROOT / "nets" / "voc-fcn32s" / "val.prototxt")
    assert alignment(shapes) == (
        "the input's shape is not known; state it (--shape data=1,3,500,500)"
    )
    given = look_at(
        ROOT / "nets" / "voc-fcn32s" / "val.prototxt",
        shapes={"data": (1, 3, 500, 500), "label": (1, 1, 500, 500)},
    )
    assert alignment(given) == Alignment(("conv1_1",), 97, 81, 33)
