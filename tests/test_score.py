"""Scores of a whole set: counted on the device, named, and saved for those who judge them."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_sets
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from netspec.build import load
from netspec.cli import main
from netspec.errors import SourceError
from netspec.frontend.net_graph import read_graph
from netspec.segmentation.score import Tally
from netspec.segmentation.submission import Results
from netspec.solving.evaluation import evaluate
from netspec.sources.base import About
from netspec.sources.feed import Feed
from netspec.weights.caffemodel import write_weights

ROOT = Path(__file__).resolve().parents[1]
VOID = 255
CLASSES = {"sem": 5, "geo": 3}

# Two heads on one image, as SIFT Flow's, each of which ignores some pixels.
HEADS = "\n".join(
    [
        'layer { name: "in" type: "Input" top: "data" '
        "input_param { shape { dim: [2, 3, 7, 11] } } }",
        *(
            f'layer {{ name: "{label}" type: "Input" top: "{label}" input_param {{ shape '
            "{ dim: [2, 1, 7, 11] } } } "
            f'layer {{ name: "score_{label}" type: "Convolution" bottom: "data" '
            f'top: "score_{label}" convolution_param {{ num_output: {classes} kernel_size: 1 '
            'weight_filler { type: "gaussian" std: 1 } } } '
            f'layer {{ name: "loss_{label}" type: "SoftmaxWithLoss" bottom: "score_{label}" '
            f'bottom: "{label}" top: "loss_{label}" loss_param {{ ignore_label: {VOID} }} }}'
            for label, classes in CLASSES.items()
        ),
    ]
)


class Batches:
    """A feed of random images and labels, some of which are void; and what it has handed out."""

    def __init__(self, count: int) -> None:
        random = np.random.default_rng(5)
        self.all = [self.batch(random) for _ in range(count)]
        self._left = iter(self.all)

    @staticmethod
    def batch(random: np.random.Generator) -> dict[str, NDArray[np.float32]]:
        batch = {"data": random.normal(size=(2, 3, 7, 11)).astype(np.float32)}
        for label, classes in CLASSES.items():
            drawn = random.choice([*range(classes), VOID], (2, 1, 7, 11))
            batch[label] = drawn.astype(np.float32)
        return batch

    def next(self, shapes: object) -> dict[str, NDArray[np.float32]]:
        return next(self._left)


def counted(
    scores: NDArray[np.float32], labels: NDArray[np.float32], classes: int
) -> NDArray[np.int64]:
    """An independent confusion matrix: pixel by pixel."""
    counts = np.zeros((classes, classes), np.int64)
    for image, truth in zip(scores, labels[:, 0], strict=True):
        for y, x in np.argwhere(truth != VOID):
            counts[int(truth[y, x]), int(np.argmax(image[:, y, x]))] += 1
    return counts


def test_metrics_of_every_head_are_an_independent_matrix(tmp_path: Path) -> None:
    """Over more batches than are under way at once."""
    (tmp_path / "net.prototxt").write_text(HEADS)
    net = load(tmp_path / "net.prototxt", seed=3)
    feed: Any = Batches(19)
    found = evaluate(net, feed, 19)
    assert list(found.metrics) == ["score_sem", "score_geo"]
    losses = []
    expected = {label: np.zeros((n, n), np.int64) for label, n in CLASSES.items()}
    for batch in feed.all:
        blobs = net.forward(batch)
        losses.append(float(blobs["loss_sem"]) + float(blobs["loss_geo"]))
        for label, classes in CLASSES.items():
            scores = np.asarray(blobs[f"score_{label}"])
            expected[label] += counted(scores, batch[label], classes)
    for label, counts in expected.items():
        metrics = found.metrics[f"score_{label}"]
        np.testing.assert_array_equal(metrics.confusion, counts)
        right, true, guessed = np.diag(counts), counts.sum(1), counts.sum(0)
        iu = right / (true + guessed - right)
        assert metrics.pixel_accuracy == pytest.approx(right.sum() / counts.sum())
        assert metrics.mean_accuracy == pytest.approx((right / true).mean())
        assert metrics.mean_iu == pytest.approx(iu.mean())
        assert metrics.fw_iu == pytest.approx((true * iu).sum() / counts.sum())
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-6)


def test_kept_blobs_are_of_each_batch_in_turn(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(HEADS)
    net = load(tmp_path / "net.prototxt", seed=3)
    feed: Any = Batches(3)
    kept: list[NDArray[np.float32]] = []
    evaluate(net, feed, 3, pictures=["score_geo"], keep=lambda b: kept.append(b["score_geo"]))
    for blob, batch in zip(kept, feed.all, strict=True):
        np.testing.assert_array_equal(blob, net.forward(batch)["score_geo"])


def test_a_tally_goes_on_beyond_32_bits() -> None:
    before = jnp.array([[2**32 - 1, 7], [0, 2**31]], jnp.uint32)
    tally = Tally(before, jnp.array([[0, 3], [0, 0]], jnp.uint32))
    scores = jnp.array([[[[5.0, 5.0, 0.0]], [[0.0, 0.0, 5.0]]]])
    counts = tally.add(scores, jnp.array([[[[0.0, 0.0, 1.0]]]])).confusion()
    assert counts.tolist() == [[2**32 + 1, 7 + 3 * 2**32], [0, 2**31 + 1]]


# The command

LAYER = """layer {{ name: "data" type: "Python" {tops} python_param {{ module: "voc_layers"
  layer: "VOCSegDataLayer"
  param_str: "{{'voc_dir': 'data/VOC2012', 'split': '{split}', 'mean': 0}}" }} }}
layer {{ name: "score" type: "Convolution" bottom: "data" top: "score"
  convolution_param {{ num_output: 21 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
"""
LOSS = """layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param { ignore_label: 255 normalize: false } }
"""
SIZES = {"2007_000033": (9, 14), "2007_000042": (12, 10), "2007_000061": (9, 14)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PASCAL VOC 2012 with three images, the last of which has no labels; nets and weights."""
    monkeypatch.chdir(tmp_path)
    voc = tmp_path / "data" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, size in SIZES.items():
        image = random.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(image).save(voc / "JPEGImages" / f"{name}.jpg")
        labels = random.choice([*range(21), VOID], size).astype(np.uint8)
        if name != "2007_000061":
            Image.fromarray(labels).save(voc / "SegmentationClass" / f"{name}.png")
    splits = voc / "ImageSets" / "Segmentation"
    (splits / "val.txt").write_text("2007_000033\n2007_000042\n")
    (splits / "test.txt").write_text("2007_000061\n2007_000033\n")
    Path("val.prototxt").write_text(
        LAYER.format(split="val", tops='top: "data" top: "label"') + LOSS
    )
    Path("test.prototxt").write_text(LAYER.format(split="test", tops='top: "data"'))
    net = load("val.prototxt", seed=4)
    write_weights("w.caffemodel", net.shapes, net.arrays())
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_score_prints_metrics_by_name(here: Path) -> None:
    status, printed, said = run("score", "val.prototxt", "w.caffemodel")
    assert status == 0
    differ, told = said.splitlines()
    assert differ.startswith("val.prototxt: images differ in size; all but those of data 1x3x9x14")
    assert told == "2 programs compiled for images of 2 sizes"
    lines = printed.splitlines()
    assert re.fullmatch(r"2 batches, loss [\d.e+]+", lines[1])
    labels = [Image.open(path) for path in (here / "data/VOC2012/SegmentationClass").iterdir()]
    pixels = sum(int((np.asarray(image) != VOID).sum()) for image in labels)
    assert lines[3] == f"score: {pixels} pixels"
    names = [line.rsplit(maxsplit=1)[0] for line in lines[4:]]
    assert names[:6] == [
        "pixel accuracy", "mean accuracy", "mean IU", "f.w. IU", "IU background", "IU aeroplane"
    ]  # fmt: skip
    assert names[-1] == "IU tvmonitor"
    assert len(names) == 4 + 21
    assert not list(here.glob("results"))


def test_results_lie_where_the_server_takes_them(here: Path) -> None:
    """Also of a list without labels: palette images of the images' own sizes, named by id."""
    for split, names in (
        ("val", ["2007_000033", "2007_000042"]),
        ("test", ["2007_000033", "2007_000061"]),
    ):
        status, printed, _ = run("score", f"{split}.prototxt", "w.caffemodel", "--save", "out")
        folder = Path(f"out/results/VOC2012/Segmentation/comp6_{split}_cls")
        assert status == 0
        assert printed.splitlines()[-1] == f"2 label images in {folder}"
        assert ("pixel accuracy" in printed) == (split == "val")
        assert sorted(path.stem for path in folder.iterdir()) == names
        for path in folder.iterdir():
            image = Image.open(path)
            assert (image.mode, image.size[::-1]) == ("P", SIZES[path.stem])
            assert (image.getpalette() or [])[3:6] == [128, 0, 0]
    first = Path("out/results/VOC2012/Segmentation")
    one, other = (first / f"comp6_{split}_cls/2007_000033.png" for split in ("val", "test"))
    assert one.read_bytes() == other.read_bytes()
    net = load("test.prototxt", "w.caffemodel", shapes={"data": (1, 3, 9, 14)})
    jpeg = np.asarray(Image.open("data/VOC2012/JPEGImages/2007_000033.jpg"))
    blob = jpeg[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    expected = np.asarray(net.forward({"data": blob})["score"])[0].argmax(0)
    np.testing.assert_array_equal(np.asarray(Image.open(one)), expected)


def test_what_cannot_be_scored(here: Path) -> None:
    status, _, said = run("score", "test.prototxt", "w.caffemodel")
    assert status == 1
    assert said == (
        "netspec: test.prototxt: no scores are compared with labels, so there is nothing to score; "
        "--save DIR writes what the net predicts\n"
    )
    twice = Path("data/VOC2012/ImageSets/Segmentation/test.txt")
    twice.write_text("2007_000033\n2007_000033\n")
    status, _, said = run("score", "test.prototxt", "w.caffemodel", "--save", "out")
    assert status == 1
    assert said.startswith("netspec: two images of the set are called 2007_000033; both would be")


# What sets know


def test_sets_name_their_classes_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as the nets tell apart; of SIFT Flow's geometric classes they are not published."""
    tiny_sets.write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, expected in {
        "voc-fcn32s": {"label": (21, "background", "tvmonitor")},
        "siftflow-fcn32s": {"sem": (33, "awning", "window")},
        "nyud-fcn32s-color": {"label": (40, "wall", "other prop")},
        "pascalcontext-fcn32s": {"label": (60, "background", "thing59")},
    }.items():
        with Feed(read_graph(ROOT / "nets" / name / "val.prototxt")) as feed:
            known = feed.about.classes
            assert feed.sample == ""
            feed.next()
            assert feed.sample == tiny_sets.NAME
        assert {top: (len(n), n[0], n[-1]) for top, n in known.items()} == expected, name


def test_results_of_several_heads_lie_apart(tmp_path: Path) -> None:
    feed: Any = SimpleNamespace(about=About(), sample="scene/1")
    results = Results(tmp_path, feed, ("score_sem", "score_geo"))
    scores = {name: jnp.eye(3)[None, :, :, None] for name in ("score_sem", "score_geo")}
    results.keep(scores)
    assert list(results.written) == [tmp_path / name / "scene/1.png" for name in scores]
    assert np.asarray(Image.open(tmp_path / "score_geo/scene/1.png")).ravel().tolist() == [0, 1, 2]
    feed.sample = ""
    with pytest.raises(SourceError, match=r"^results are named after their images, one a batch"):
        results.keep(scores)
