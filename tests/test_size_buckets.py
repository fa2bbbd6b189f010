"""Images of many sizes need few programs, and come to what a program for each of them gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from netspec import build
from netspec.errors import LayerError
from netspec.frontend.net_graph import read_graph
from netspec.runtime.compile_cache import Compiles
from netspec.runtime.size_buckets import SizeBuckets
from netspec.segmentation.predict import predict
from netspec.solving.callback import Callback
from netspec.solving.evaluation import Evaluation, evaluate
from netspec.solving.options import SolverOptions
from netspec.solving.solver import Solver
from netspec.sources.fed_net import compile_net
from netspec.sources.feed import Feed

# Of rounded-up sizes there are three: 32x48, 48x32, 48x48. The first is a program's own.
SIZES = [(20, 41), (31, 37), (33, 29), (45, 47), (23, 43), (47, 20)]
ROUNDED = 3
ORDER = """
layer {
  name: "data" type: "SegmentationData" top: "data" top: "label"
  segmentation_data_param { source: "pairs.txt" mean_value: 120 scale: 0.02 SETTINGS }
}
"""
TRUNK = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param {
  num_output: 5 kernel_size: 3 pad: 9 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "conv1" top: "norm" }
layer { name: "relu" type: "ReLU" bottom: "norm" top: "norm" }
layer { name: "pool1" type: "Pooling" bottom: "norm" top: "pool1" pooling_param {
  kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2" convolution_param {
  num_output: 4 kernel_size: 3 dilation: 2 bias_term: true weight_filler { type: "xavier" }
  bias_filler { value: 0.3 } } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param {
  pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "coarse" type: "Convolution" bottom: "pool2" top: "coarse" convolution_param {
  num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "up" type: "Deconvolution" bottom: "coarse" top: "up" convolution_param {
  num_output: 3 kernel_size: 8 stride: 4 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "score" type: "Crop" bottom: "up" bottom: "data" top: "score" crop_param {
  offset: 3 } }
"""
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" LOSS }
layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy"
  include { phase: TEST } accuracy_param { ignore_label: 255 } }
"""
IGNORING = "loss_param { ignore_label: 255 }"
FLAT = """
layer { name: "square" type: "SPP" bottom: "pool2" top: "bins" spp_param { pyramid_height: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "bins" top: "ip" inner_product_param {
  num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "even" type: "Power" bottom: "ip" top: "loss" power_param { power: 2 }
  loss_weight: 1 }
layer { name: "drop" type: "Silence" bottom: "label" }
"""


class Lines(Callback):
    """What was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


# What runs a few times is not worth the time that making it fast takes.
pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a set of images of all `SIZES`."""
    monkeypatch.chdir(tmp_path)
    write_set(SIZES)
    write_net(LOSS.replace("LOSS", IGNORING))
    return tmp_path


def write_set(sizes: list[tuple[int, int]]) -> None:
    draw = np.random.default_rng(0)
    for i, size in enumerate(sizes):
        Image.fromarray(draw.integers(0, 256, (*size, 3), np.uint8)).save(f"{i}.png")
        labels = draw.integers(0, 3, size).astype(np.uint8)
        labels[draw.random(size) < 0.1] = 255
        Image.fromarray(labels).save(f"{i}-labels.png")
    Path("pairs.txt").write_text("".join(f"{i}.png {i}-labels.png\n" for i in range(len(sizes))))


def write_net(head: str, settings: str = "") -> None:
    Path("net.prototxt").write_text(ORDER.replace("SETTINGS", settings) + TRUNK + head)


def solver(settings: str = "", callback: Callback | None = None, seed: int = 3) -> Solver:
    Path("solver.prototxt").write_text(
        f'net: "net.prototxt" base_lr: 0.05 lr_policy: "fixed" momentum: 0.9 random_seed: {seed} '
        f"snapshot_after_train: false {settings}"
    )
    return Solver.from_file("solver.prototxt", SolverOptions(callback or Callback()))


def losses(trained: Solver, steps: int) -> Iterator[float]:
    for _ in range(steps):
        trained.step(1)
        yield float(trained.losses[-1])


@contextmanager
def apart() -> Iterator[None]:
    """A program for each size."""
    with patch.object(SizeBuckets, "_room_for", lambda self, given, exact: None):
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "settings"),
    [(IGNORING, ""), ("loss_param { ignore_label: 255 normalization: FULL }", "iter_size: 2")],
    ids=["VALID", "FULL, two batches an update"],
)
def test_training_is_the_same(loss: str, settings: str) -> None:
    """Losses, learned arrays and statistics, to rounding."""
    write_net(LOSS.replace("LOSS", loss))
    with apart():
        exact = solver(settings)
        expected = list(losses(exact, 3))
    bucketed = solver(settings)
    np.testing.assert_allclose(list(losses(bucketed, 3)), expected, rtol=1e-5)
    assert None not in bucketed.trainer.buckets._roomy.values()
    for key, array in exact.net.arrays().items():
        scale = np.abs(array).max()
        np.testing.assert_allclose(bucketed.net.arrays()[key], array, rtol=0, atol=1e-4 * scale)


def test_programs_are_few() -> None:
    """Once there is one for each rounded size, no size asks for another."""
    lines = Lines()
    trained = solver(callback=lines)
    with Compiles() as compiles:
        trained.step(4)
        trained.guard.settle()
        assert compiles.count
        before = compiles.count
        trained.step(2 * len(SIZES) - 4)
        trained.guard.settle()
        assert compiles.count == before
    buckets = trained.trainer.buckets
    assert buckets.summary == f"4 programs compiled for images of {len(SIZES)} sizes"
    [line] = lines.said
    assert line == (
        "net.prototxt: images differ in size; all but those of data 1x3x20x41, label 1x1x20x41 are "
        "computed in arrays of rounded-up sizes, which gives the same numbers with few programs"
    )


def test_images_of_one_size_have_a_program_of_their_own() -> None:
    write_set([(21, 43)] * 3)
    lines = Lines()
    trained = solver(callback=lines)
    trained.step(4)
    assert trained.trainer.buckets.programs == {(trained.net.shapes, False)}
    assert lines.said == []


def test_a_net_that_cannot_is_compiled_for_each_size() -> None:
    write_net(FLAT)
    lines = Lines()
    trained = solver(callback=lines)
    trained.step(2)
    assert len(trained.trainer.buckets.programs) == 2
    [line] = lines.said
    assert line == (
        "net.prototxt: compiled for each size of its images, as "
        'net.prototxt:25: layer "square" (SPP): needs blobs of their own size'
    )


def test_a_size_at_which_the_net_cannot_work_is_told() -> None:
    write_set([(20, 41), (31, 2)])
    Path("net.prototxt").write_text(Path("net.prototxt").read_text().replace("pad: 9", "pad: 4"))
    trained = solver()
    with pytest.raises(
        LayerError, match=r'layer "conv2" \(Convolution\): spatial axis 1: kernel extent 5 > size 4'
    ):
        trained.step(2)


def evaluated() -> Evaluation:
    graph = read_graph("net.prototxt")
    with Feed(graph, 0) as feed:
        return evaluate(compile_net(graph, feed.tops), feed, len(SIZES))


@pytest.mark.slow
def test_metrics_are_the_same() -> None:
    with apart():
        exact = evaluated()
    bucketed = evaluated()
    [expected], [found] = exact.metrics.values(), bucketed.metrics.values()
    assert found.pixels == expected.pixels
    assert np.abs(found.confusion - expected.confusion).sum() <= 2
    assert bucketed.loss == pytest.approx(exact.loss, rel=1e-5)
    for name, value in exact.outputs.items():
        assert bucketed.outputs[name] == pytest.approx(value, rel=1e-4)


def test_predictions_are_the_same() -> None:
    net = build.load("net.prototxt")
    images = [np.asarray(Image.open(f"{i}.png")) for i in range(len(SIZES))]
    with apart():
        expected = [predict(net, image) for image in images]
    buckets = SizeBuckets(net)
    for image, labels in zip(images, expected, strict=True):
        found = predict(net, image, buckets=buckets)
        assert found.shape == labels.shape
        assert (found != labels).mean() < 1e-3
    assert len(buckets.programs) == 1 + ROUNDED


def test_a_run_goes_on_to_the_bit() -> None:
    """Even where a solver that starts anew would see an image of another size first."""
    write_net(LOSS.replace("LOSS", IGNORING), "shuffle: true")
    settings = 'snapshot: 3 snapshot_prefix: "s" test_iter: 4 test_interval: 4 '
    whole = solver(settings)
    whole.step(7)
    resumed = solver(settings, seed=5)
    assert resumed.trainer.buckets.unpadded != whole.trainer.buckets.unpadded
    resumed.restore("s_iter_3.solverstate")
    resumed.step(4)
    for key, array in whole.net.arrays().items():
        np.testing.assert_array_equal(resumed.net.arrays()[key], array)
    assert resumed.tests.buckets[0].unpadded == whole.tests.buckets[0].unpadded
