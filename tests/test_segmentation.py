import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from netspec.build import load
from netspec.errors import GraphError, SourceError
from netspec.formats.palette import colour_map, overlay, save_indexed
from netspec.frontend.prototxt import parse_net
from netspec.proto.layers_pb2 import TEST
from netspec.runtime.module import Net
from netspec.segmentation.predict import MEAN, predict, preprocess
from netspec.segmentation.score import Metrics, confusion
from netspec.segmentation.shapes_set import CLASSES, write_dataset
from netspec.segmentation.write import segment
from netspec.sources import open_source

# Colours


def test_colour_map_is_pascal_vocs() -> None:
    colours = colour_map()
    assert colours.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    for index, colour in known.items():
        assert tuple(colours[index]) == colour
    assert len({tuple(colour) for colour in colours}) == 256


def test_indexed_images_hold_their_indices(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 20], [255, 3, 7]])
    save_indexed(tmp_path / "new" / "a.png", labels)
    image = Image.open(tmp_path / "new" / "a.png")
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), labels)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colour_map()[labels])
    for wrong in (labels + 1, labels - 1, labels[None]):
        with pytest.raises(
            SourceError, match=r"b.png: a palette image holds \(H, W\) indices in 0"
        ):
            save_indexed(tmp_path / "b.png", wrong)


def test_overlay() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    mixed = overlay(image, np.array([[0, 1]]), alpha=0.25)
    assert mixed.dtype == np.uint8
    assert mixed.tolist() == [[[75, 75, 75], [107, 75, 75]]]


# Scores


def counted(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> list[list[int]]:
    counts = [[0] * classes for _ in range(classes)]
    for guess, truth in zip(predicted.ravel().tolist(), labels.ravel().tolist(), strict=True):
        if 0 <= truth < classes:
            counts[truth][guess] += 1
    return counts


@pytest.fixture
def pair() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores (2, 5, 7, 3) and labels (2, 1, 7, 3), some of them void."""
    random = np.random.default_rng(3)
    scores = random.normal(size=(2, 5, 7, 3)).astype(np.float32)
    return scores, random.choice([-1, 0, 1, 2, 3, 4, 5, 255], (2, 1, 7, 3))


def test_confusion_is_a_plain_loops(pair: tuple[NDArray[np.float32], NDArray[np.int64]]) -> None:
    scores, labels = pair
    predicted = scores.argmax(1)
    expected = counted(predicted, labels, 5)
    for given in (scores, predicted, predicted.astype(np.uint8)[:, None]):
        for truth in (labels, labels[:, 0], labels.astype(np.float32)):
            counts = confusion(given, truth, 5)
            assert counts.dtype == np.int64
            assert counts.tolist() == expected
    ignored = confusion(scores, labels, 5, ignore=2)
    expected[2] = [0] * 5
    assert ignored.tolist() == expected


def test_confusion_of_what_does_not_fit(
    pair: tuple[NDArray[np.float32], NDArray[np.int64]],
) -> None:
    scores, labels = pair
    with pytest.raises(
        SourceError, match=r"^scores 2x5x7x3 need 42 labels, but labels are 2x1x7x2$"
    ):
        confusion(scores, labels[..., :2], 5)
    with pytest.raises(
        SourceError, match=r"^scores 2x5x7x3 are of other classes than 6, along axis"
    ):
        confusion(scores, labels, 6)
    with pytest.raises(SourceError, match=r"^predicted labels are 2x7x2, but labels are 2x1x7x3$"):
        confusion(scores.argmax(1)[..., :2], labels, 5)
    with pytest.raises(
        SourceError, match=r"^predicted labels reach from 0 to 9; there are 5 classes"
    ):
        confusion(np.full(labels.shape, 9), labels, 5)


def test_counts_are_exact_beyond_floats() -> None:
    """Batches add up as integers: a float32 stops counting at 2**24."""
    counts = confusion(np.zeros((1, 4, 4), np.int32), np.zeros((1, 4, 4)), 2)
    total = np.array([[2**24, 0], [0, 0]]) + counts
    assert total[0, 0] == 2**24 + 16


def test_metrics_by_hand() -> None:
    # Class 2 does not occur; class 3 is only predicted.
    metrics = Metrics(np.array([[6, 1, 0, 1], [2, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]))
    assert metrics.pixels == 12
    assert metrics.pixel_accuracy == 8 / 12
    assert metrics.mean_accuracy == (6 / 8 + 2 / 4) / 2
    np.testing.assert_array_equal(metrics.iu, [6 / 10, 2 / 5, np.nan, 0])
    assert metrics.mean_iu == pytest.approx((0.6 + 0.4 + 0) / 3)
    assert metrics.fw_iu == pytest.approx((8 * 0.6 + 4 * 0.4) / 12)
    assert metrics.table(("sky", "road", "car")).splitlines() == [
        "pixel accuracy  0.6667",
        "mean accuracy   0.6250",
        "mean IU         0.3333",
        "f.w. IU         0.5333",
        "IU sky          0.6000",
        "IU road         0.4000",
        "IU car             nan",
        "IU 3            0.0000",
    ]


def test_metrics_of_nothing() -> None:
    metrics = Metrics(np.zeros((2, 2), np.int64))
    values = [metrics.pixel_accuracy, metrics.mean_accuracy, metrics.mean_iu, metrics.fw_iu]
    assert np.isnan(values).all()


# Predictions

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


# The practice set


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_synthetic_set_is_read_as_voc(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", train=6, val=2, size=(40, 48))
    assert folder == tmp_path / "set"
    assert (folder / "classes.txt").read_text().split() == list(CLASSES)
    net = parse_net(
        'layer { name: "d" type: "Python" top: "data" top: "label" python_param { '
        'module: "voc_layers" layer: "VOCSegDataLayer" param_str: '
        f"\"{{'voc_dir': '{folder}', 'split': 'train', 'mean': 0, 'randomize': False}}\" }} }}"
    )
    source = open_source(net.message.layer[0], TEST, None, net.places[0])
    seen: set[float] = set()
    for _ in range(6):
        batch = source.next()
        assert batch["data"].shape == (1, 3, 40, 48)
        present = set(np.unique(batch["label"]).tolist())
        assert present <= {*range(len(CLASSES)), 255}
        assert {0, 255} <= present
        seen |= present
    assert seen == {*range(len(CLASSES)), 255}


def test_synthetic_set_is_its_arguments(tmp_path: Path) -> None:
    first = digest(write_dataset(tmp_path / "a", train=2, val=1, size=(32, 40)))
    again = digest(write_dataset(tmp_path / "b", train=2, val=1, size=(32, 40)))
    other = digest(write_dataset(tmp_path / "c", train=2, val=1, size=(32, 40), seed=1))
    more = digest(write_dataset(tmp_path / "a", train=3, val=2, size=(32, 40)))
    assert first == again
    image = "JPEGImages/val_0000.jpg"
    assert first[image] != other[image]
    assert first[image] == more[image]
    assert len(more) == len(first) + 4


def test_synthetic_set_spares_other_folders(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(
        SourceError, match=rf"^{tmp_path}: holds files, and none says that they are"
    ):
        write_dataset(tmp_path, train=1, val=1)
    with pytest.raises(SourceError, match=r"mine.txt: not a directory"):
        write_dataset(tmp_path / "mine.txt", train=1, val=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(SourceError, match=r"^1 and 0 images of 128x96; needed are some of each"):
        write_dataset(tmp_path / "new", train=1, val=0)
    with pytest.raises(SourceError, match=r"^seed -1: needed is 0 or more"):
        write_dataset(tmp_path / "new", seed=-1)
    (tmp_path / "empty").mkdir()
    write_dataset(tmp_path / "empty", train=1, val=1, size=(32, 32))
