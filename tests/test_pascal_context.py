"""PASCAL-Context in a tiny folder of its true layout."""

from pathlib import Path

import numpy as np
import pytest
from set_folders import CHOSEN, HEIGHT, LABELS, WIDTH, fed, grid, refused
from set_folders import context as context

CONTEXT = "pascalcontext_layers.PASCALContextSegDataLayer"


def context_settings(context: Path, split: str = "val") -> dict[str, object]:
    return {
        "voc_dir": str(context / "pascal"),
        "context_dir": str(context / "pascal-context"),
        "split": split,
        "seed": 1337,
    }


@pytest.mark.parametrize("background", ["", "0: background\n"])
def test_context_sample(context: Path, background: str) -> None:
    """The classes of 59_labels.txt by name, some of which labels.txt spells otherwise."""
    (context / "pascal-context/59_labels.txt").write_text(background + CHOSEN)
    source = fed(CONTEXT, context_settings(context))
    image, labels = source.next().values()
    expected = np.full((3, HEIGHT, WIDTH), 90, np.float32)
    expected -= np.array((104.007, 116.669, 122.679), np.float32)[:, None, None]
    np.testing.assert_array_equal(image[0], expected)
    np.testing.assert_array_equal(labels[0, 0], grid(0, 0, 1, 0, 4, 3, 2))
    assert source.current == str(context / "pascal-context/trainval/2008_000003.mat")
    assert fed(CONTEXT, context_settings(context, "train")).batches == 2


CONTEXT_LABELS = {
    ("labels.txt", None): "labels.txt: no such file",
    ("labels.txt", ""): "labels.txt: lists no labels",
    ("labels.txt", "accordion"): (
        'labels.txt:1: "accordion" is no number and name, such as 3: air conditioner'
    ),
    ("labels.txt", LABELS.replace("300: tv monitor", "6: tv monitors")): (
        '59_labels.txt: labels.txt beside it has no "tvmonitor"; did you mean "tvmonitors"?'
    ),
    ("labels.txt", LABELS.replace("300", "200")): (
        "trainval/2008_000003.mat: label 300 at (x 1, y 1); labels.txt has 1..200"
    ),
    ("59_labels.txt", "256: tvmonitor"): (
        "59_labels.txt: class 256 (tvmonitor); classes are 1..254"
    ),
}


@pytest.mark.parametrize(("name", "contents"), CONTEXT_LABELS)
def test_context_labels_that_cannot_work(context: Path, name: str, contents: str | None) -> None:
    path = context / "pascal-context" / name
    path.unlink() if contents is None else path.write_text(contents)
    expected = f"{context}/pascal-context/{CONTEXT_LABELS[name, contents]}"
    assert refused(CONTEXT, context_settings(context)) == expected


def test_context_is_not_there(context: Path) -> None:
    settings = {**context_settings(context), "context_dir": "nil"}
    assert refused(CONTEXT, settings).startswith('context_dir "nil": no such folder')
    settings = {**context_settings(context), "voc_dir": str(context)}
    assert refused(CONTEXT, settings).startswith(
        f'voc_dir "{context}" lacks VOC2010/ImageSets/Main/val.txt; get VOCtrainval_03-May-2010.tar'
    )
    damaged = context / "pascal/VOC2010/JPEGImages/2008_000003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:400])
    message = refused(CONTEXT, context_settings(context))
    assert message.startswith(f"{damaged}: damaged, or not an image (")
