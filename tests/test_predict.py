"""Predictions for images of any size, and files written of them."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from netspec.build import load
from netspec.errors import GraphError, SourceError
from netspec.formats.palette import overlay
from netspec.runtime.module import Net
from netspec.segmentation.predict import MEAN, predict, preprocess
from netspec.segmentation.write import segment

BY_COLOUR = """
layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ dim: [1, 3, 4, 5] }} }} }}
{more}
layer {{ name: "score" type: "Convolution" bottom: "data" top: "score"
        convolution_param {{ num_output: 3 kernel_size: 1 bias_term: false {scores} }} }}
"""
LABELS = (
    'layer { name: "truth" type: "Input" top: "label" input_param { shape { dim: [1, 1, 4, 5] } } }'
)
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }'


def net_of(folder: Path, text: str, phase: str = "test") -> Net:
    """A net whose score of class c is channel c of the image."""
    path = folder / "net.prototxt"
    path.write_text(text)
    net = load(path, phase=phase)
    if "score" in net.params:
        weight = net.params["score"][0]
        weight.set_value(np.eye(*weight.shape[:2], dtype=np.float32)[:, :, None, None])
    return net


@pytest.fixture
def net(tmp_path: Path) -> Net:
    return net_of(tmp_path, BY_COLOUR.format(more="", scores=""))


def coloured(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """An image whose blue, green or red is brightest where the label is 0, 1 or 2."""
    image = np.full((*labels.shape, 3), 100, np.uint8)
    for index in range(3):
        image[labels == index, 2 - index] = 200
    return image


@pytest.fixture
def labels() -> NDArray[np.int64]:
    return np.random.default_rng(1).integers(0, 3, (6, 7))


def test_preprocess_is_the_published_one() -> None:
    assert MEAN == (104.00699, 116.66877, 122.67892)
    blob = preprocess(np.full((2, 5, 3), (1, 2, 3), np.uint8))
    assert blob.shape == (1, 3, 2, 5)
    np.testing.assert_allclose(blob[0, :, 1, 1], [3 - MEAN[0], 2 - MEAN[1], 1 - MEAN[2]])


def test_predict_at_the_images_own_size(net: Net, labels: NDArray[np.int64]) -> None:
    np.testing.assert_array_equal(predict(net, coloured(labels)), labels)
    np.testing.assert_array_equal(predict(net, coloured(labels), mean=0, blob="score"), labels)


def test_predict_with_a_net_that_reads_labels(tmp_path: Path, labels: NDArray[np.int64]) -> None:
    net = net_of(tmp_path, BY_COLOUR.format(more=LABELS, scores="") + LOSS)
    np.testing.assert_array_equal(predict(net, coloured(labels)), labels)


def test_segment(net: Net, labels: NDArray[np.int64], tmp_path: Path) -> None:
    image = coloured(labels)
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(image[:, :, 0]).save(tmp_path / "grey.bmp")
    out = tmp_path / "out"
    written = segment(net, [tmp_path / "a.png", str(tmp_path / "grey.bmp")], out)
    names = ["a.png", "a_overlay.png", "grey.png", "grey_overlay.png"]
    assert written == [out / name for name in names]
    indexed = Image.open(written[0])
    assert indexed.mode == "P"
    np.testing.assert_array_equal(np.asarray(indexed), labels)
    np.testing.assert_array_equal(np.asarray(Image.open(written[1])), overlay(image, labels))


def test_segment_never_overwrites(net: Net, labels: NDArray[np.int64], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("a.png", "b/a.png", "b/a_overlay.png"):
        Image.fromarray(coloured(labels)).save(tmp_path / name)
    paths = [tmp_path / "b" / "a.png", tmp_path / "b" / "a_overlay.png"]
    with pytest.raises(
        SourceError, match=r"would both be written to .*out/a_overlay.png; give them"
    ):
        segment(net, paths, tmp_path / "out")
    with pytest.raises(
        SourceError, match=r"a.png would be written to .*a.png, which is an image to"
    ):
        segment(net, paths[:1], tmp_path / "b")
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_read(net: Net, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("nothing")
    for name, message in (
        ("nil.jpg", "no such file"),
        ("text.jpg", r"damaged, or not an image \(cannot identify image file\)"),
        ("", "is a directory"),
    ):
        with pytest.raises(SourceError, match=f"^{tmp_path / name}: {message}$"):
            segment(net, [tmp_path / name], tmp_path / "out")


def test_nets_that_cannot_predict(tmp_path: Path, labels: NDArray[np.int64]) -> None:
    image = coloured(labels)
    net = net_of(tmp_path, BY_COLOUR.format(more=LABELS, scores="") + LOSS, "train")
    with pytest.raises(
        GraphError, match=r'predictions need phase TEST; load the net with phase="te'
    ):
        predict(net, image)
    net = net_of(tmp_path, BY_COLOUR.format(more="", scores="stride: 2"))
    with pytest.raises(
        GraphError, match=r"scores of an image of 6x7 are needed; the net makes score 1"
    ):
        predict(net, image)
    with pytest.raises(
        GraphError, match=r'blob "score" is 1x3x3x4; scores of this image are 1xCx6x7'
    ):
        predict(net, image, blob="score")
    with pytest.raises(GraphError, match=r'no blob "skore"; did you mean "score"'):
        predict(net, image, blob="skore")
    net = net_of(tmp_path, LABELS)
    with pytest.raises(
        GraphError, match=r"one image blob Nx3xHxW is needed; the net is fed label 1x1"
    ):
        predict(net, image)
    both = 'layer { name: "both" type: "Concat" bottom: "score" bottom: "label" top: "both" }'
    net = net_of(tmp_path, BY_COLOUR.format(more=LABELS, scores="") + both)
    with pytest.raises(GraphError, match=r'"both" needs "label" beside the image "data"'):
        predict(net, image)
