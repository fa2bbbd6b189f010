"""Scores from a confusion matrix, by hand and by a plain loop."""

import numpy as np
import pytest
from numpy.typing import NDArray

from netspec.errors import SourceError
from netspec.segmentation.score import Metrics, confusion


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
