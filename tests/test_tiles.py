"""Tiles of an image have the scores of the whole one, of every kind of window."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nets import fcn, sets
from nets.trunks import VGG
from netspec.build import load
from netspec.errors import GraphError, LayerError, SourceError
from netspec.frontend.net_graph import read_graph
from netspec.frontend.prototxt import write
from netspec.frontend.shapes import infer
from netspec.layers.base import Shape
from netspec.runtime.module import Net
from netspec.segmentation.predict import Segmenter
from netspec.segmentation.tiles import live_bytes, tiling

# VGG-16's five poolings, and three skips: as deep as the published nets, and a few channels wide.
TRUNK = VGG(((2, 1), (3, 1), (3, 2), (4, 1), (4, 1)), pad=40, hidden=5, kernel=4)
SKIPS = {"fcn32s": (), "fcn16s": ("pool4",), "fcn8s": ("pool4", "pool3")}

# Windows that overlap, hang over the border, skip pixels or average them.
WINDOWS = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: [1, 3, 64, 80] } } }
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1" convolution_param {
  num_output: 4 kernel_h: 5 kernel_w: 3 stride: 2 pad_h: 2 pad_w: 20
  weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }
layer { name: "relu" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "pool1" type: "Pooling" bottom: "c1" top: "pool1"
  pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "norm" type: "LRN" bottom: "pool1" top: "norm"
  lrn_param { norm_region: WITHIN_CHANNEL local_size: 5 alpha: 3 } }
layer { name: "c2" type: "Convolution" bottom: "norm" top: "c2" convolution_param {
  num_output: 4 kernel_size: 3 dilation: 2 pad: 9 weight_filler { type: "xavier" } } }
layer { name: "pool2" type: "Pooling" bottom: "c2" top: "pool2"
  pooling_param { pool: AVE kernel_size: 3 stride: 1 pad: 1 } }
layer { name: "both" type: "Concat" bottom: "pool2" bottom: "c2" top: "both" }
layer { name: "score4" type: "Convolution" bottom: "both" top: "score4" convolution_param {
  num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "up" type: "Deconvolution" bottom: "score4" top: "up" convolution_param {
  num_output: 3 kernel_size: 9 stride: 4 weight_filler { type: "xavier" } } }
layer { name: "score" type: "Crop" bottom: "up" bottom: "data" top: "score"
  crop_param { offset: 14 } }
"""

SIMPLE = """
layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ dim: [1, 3, 64, 80] }} }} }}
{before}
layer {{ name: "conv" type: "Convolution" bottom: "{bottom}" top: "score" convolution_param {{
  num_output: 3 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
"""


def randomised(path: Path) -> Net:
    """A net whose scores differ everywhere: its score layers begin at zero."""
    net = load(path)
    random = np.random.default_rng(2)
    net.assign(
        {
            key: np.asarray(random.normal(size=array.shape) / np.sqrt(array[0].size), np.float32)
            for key, array in net.arrays().items()
        }
    )
    return net


def picture(*size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)


def scores(segmenter: Segmenter, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], int]:
    """(C, H, W) of all pieces, each pixel from exactly one; and how many pieces there were."""
    pieces = list(segmenter.pieces(image))
    made = np.zeros((pieces[0].scores.shape[0], *image.shape[:2]), np.float32)
    times = np.zeros(image.shape[:2], int)
    for piece in pieces:
        made[:, *piece.place] = np.asarray(piece.scores)[:, *piece.inside]
        times[piece.place] += 1
    assert (times == 1).all()
    return made, len(pieces)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Net]:
    folder = tmp_path_factory.mktemp("nets")
    made = {}
    for name, pools in SKIPS.items():
        path = folder / f"{name}.prototxt"
        path.write_text(write(fcn.on_vgg("deploy", sets.SHAPES, *pools, trunk=TRUNK).to_proto()))
        made[name] = randomised(path)
    path = folder / "windows.prototxt"
    path.write_text(WINDOWS)
    made["windows"] = randomised(path)
    return made


@pytest.mark.parametrize(
    ("name", "size", "tile", "least"),
    [
        pytest.param("fcn32s", (611, 97), (416, 97), 3, marks=pytest.mark.slow),
        pytest.param("fcn16s", (97, 633), (200, 416), 3, marks=pytest.mark.slow),
        pytest.param("fcn8s", (519, 607), (448, 431), 6, marks=pytest.mark.slow),
        pytest.param("fcn8s", (33, 129), (448, 431), 1, marks=pytest.mark.slow),
        ("windows", (131, 77), (80, 69), 6),
        pytest.param("windows", (64, 203), (64, 79), 5, marks=pytest.mark.slow),
    ],
)
def test_tiles_equal_the_whole(
    nets: dict[str, Net], name: str, size: Shape, tile: Shape, least: int
) -> None:
    image = picture(*size)
    whole, one = scores(Segmenter(nets[name]), image)
    tiled, pieces = scores(Segmenter(nets[name], tile=tile), image)
    assert one == 1
    assert pieces >= least
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())
    np.testing.assert_array_equal(tiled.argmax(0), whole.argmax(0))


def test_tiles_without_overlap_would_differ(nets: dict[str, Net]) -> None:
    """What the tests above compare does hang on what lies beyond a tile."""
    image = picture(131, 77)
    whole, _ = scores(Segmenter(nets["windows"]), image)
    half, _ = scores(Segmenter(nets["windows"]), image[64:])
    assert not np.allclose(half[:, :8], whole[:, 64:72], rtol=1e-2)


def test_labels_are_of_all_tiles(nets: dict[str, Net]) -> None:
    image = picture(90, 120)
    tiled = Segmenter(nets["windows"], tile=(72, 72)).labels(image)
    np.testing.assert_array_equal(tiled, Segmenter(nets["windows"]).labels(image))


@pytest.mark.slow
def test_memory_decides_on_tiles(nets: dict[str, Net]) -> None:
    net, image = nets["windows"], picture(150, 230)
    whole = Segmenter(net).plan(image.shape[:2])
    assert (len(whole.rows), len(whole.columns)) == (1, 1)
    shapes = net.shapes_for({"data": (1, 3, 96, 96)})
    bound = live_bytes(shapes, net.graph.blob("score"))
    tight = Segmenter(net, memory=bound)
    plan = tight.plan(image.shape[:2])
    assert len(plan.columns) > 1
    height, width = plan.feeds["data"][2:]
    assert live_bytes(net.shapes_for(plan.feeds), net.graph.blob("score")) <= bound
    assert height > 80
    assert width > 80
    np.testing.assert_array_equal(tight.labels(image), Segmenter(net).labels(image))
    with pytest.raises(
        LayerError, match=r"tiles of \d+x\d+ pixels, the least that make scores, ta"
    ):
        Segmenter(net, memory=1000).plan(image.shape[:2])


def test_an_image_that_has_no_shape_as_a_whole(nets: dict[str, Net]) -> None:
    """Larger than a blob can be: planned without its shapes."""
    plan = Segmenter(nets["fcn8s"], memory=1 << 28).plan((40_000, 50_001))
    assert plan.rows[-1].high == 40_000
    assert plan.columns[-1].high == 50_001
    pairs = list(pairwise(plan.columns))
    assert pairs
    assert all(one.high == other.low and other.start % 32 == 0 for one, other in pairs)


def test_live_bytes_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(WINDOWS)
    net = load(path)
    # The upsampled scores, those it crops, and the image whose size they are cropped to.
    sizes = {name: int(np.prod(shape)) for name, shape in net.shapes.by_name.items()}
    expected = max(
        sizes["data"] + 2 * sizes["c1"],
        sizes["data"] + sizes["up"] + sizes["score"],
        sizes["data"] + sizes["score4"] + sizes["up"],
    )
    assert live_bytes(net.shapes, net.graph.blob("score")) == 4 * expected


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        ((48, 64), r"^tiles of at most 48x64: tiles of 4\d pixels are too small: \d+ scores of "
         r"each hang on what lies beyond it, and tiles begin at multiples of 4 pixels; make "
         r"them \d+ or more$"),
    ],
)  # fmt: skip
def test_tiles_that_are_too_small(nets: dict[str, Net], tile: Shape, message: str) -> None:
    with pytest.raises(SourceError, match=message) as raised:
        Segmenter(nets["windows"], tile=tile).labels(picture(120, 90))
    enough = int(str(raised.value).split("make them ")[1].split()[0])
    Segmenter(nets["windows"], tile=(enough, 90)).labels(picture(120, 90))


REFUSED = [
    ('layer { name: "mvn" type: "MVN" bottom: "data" top: "x" }', "x",
     'as they see all of the image: layer "mvn" (MVN)'),
    ('layer { name: "g" type: "Pooling" bottom: "data" top: "g" pooling_param { pool: AVE '
     'global_pooling: true } } layer { name: "s" type: "Reshape" bottom: "g" top: "s" '
     'reshape_param { shape { dim: [1, 3] } } } layer { name: "x" type: "Scale" bottom: "data" '
     'bottom: "s" top: "x" scale_param { axis: 0 } }', "x",
     'as they see all of the image: layer "g" (Pooling)'),
    ('layer { name: "r" type: "Reshape" bottom: "data" top: "x" reshape_param { shape '
     '{ dim: [0, 0, 0, 0] } } }', "x",
     'as they have no place on the image: layer "r" (Reshape) keeps none'),
]  # fmt: skip


@pytest.mark.parametrize(("before", "bottom", "why"), REFUSED)
def test_nets_that_have_no_tiles(tmp_path: Path, before: str, bottom: str, why: str) -> None:
    """Asked for tiles they say why not; without, they run whole, however little memory there is."""
    path = tmp_path / "net.prototxt"
    path.write_text(SIMPLE.format(before=before, bottom=bottom))
    net, image = load(path), picture(90, 70)
    with pytest.raises(GraphError) as raised:
        Segmenter(net, tile=(64, 64)).labels(image)
    assert str(raised.value) == (f'{path}: the scores "score" cannot be made tile by tile, {why}')
    assert Segmenter(net, memory=1).labels(image).shape == (90, 70)


def test_overlap_of_the_published_nets() -> None:
    """Their receptive fields are 404 pixels wide; skips and upsampling add what they see."""
    for name, overlap in (("voc-fcn32s", 436), ("voc-fcn8s", 460), ("voc-fcn-alexnet", 403)):
        net = read_graph(Path("nets") / name / "deploy.prototxt")
        shapes = infer(net, {"data": (1, 3, 500, 500)})
        tiles = tiling(net, net.first_blobs["data"], net.blob("score"))
        assert (tiles.period(0), tiles.overlap(shapes, 0)) == (32, overlap), name
