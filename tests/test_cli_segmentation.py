"""``netspec segment``."""

from pathlib import Path

import numpy as np
import pytest
from command_line import WEIGHTS, mistake, run
from command_line import here as here
from command_line import signals as signals
from command_line import trained as trained
from PIL import Image


def test_segment_writes_labels_and_an_overlay(here: Path) -> None:
    """At each image's own size; also with a net that is made for training."""
    Image.new("RGB", (27, 19), (200, 30, 30)).save("other.png")
    images = ["voc/JPEGImages/val_0000.jpg", "other.png"]
    for net, folder in (("deploy.prototxt", "segmented"), ("net.prototxt", "out/deep")):
        option = [] if folder == "segmented" else ["-o", folder]
        result = run("segment", net, WEIGHTS, *images, *option)
        assert result.exit_code == 0, result.output
        assert result.stderr == "2 programs compiled for images of 2 sizes\n"
        assert result.stdout.splitlines() == [
            f"{folder}/{name}{suffix}.png"
            for name in ("val_0000", "other")
            for suffix in ("", "_overlay")
        ]
        for name, size in (("val_0000", (40, 32)), ("other", (27, 19))):
            with Image.open(f"{folder}/{name}.png") as labels:
                assert (labels.mode, labels.size) == ("P", size)
                assert np.asarray(labels).max() < 6
                # PASCAL VOC's colours of background, aeroplane and bicycle.
                assert (labels.getpalette() or [])[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
            with Image.open(f"{folder}/{name}_overlay.png") as overlay:
                assert (overlay.mode, overlay.size) == ("RGB", size)
    for name in ("val_0000.png", "other.png"):
        first, second = (
            np.asarray(Image.open(Path(folder) / name)) for folder in ("segmented", "out/deep")
        )
        np.testing.assert_array_equal(first, second)


SEGMENTS = [
    (f"nowhere.prototxt {WEIGHTS} other.png", "nowhere.prototxt: no such file"),
    ("deploy.prototxt nowhere.caffemodel other.png", "nowhere.caffemodel: cannot read: no such "
     "file"),
    (f"deploy.prototxt {WEIGHTS} nowhere.png", "nowhere.png: no such file"),
    (f"deploy.prototxt {WEIGHTS} solver.prototxt", "solver.prototxt: damaged, or not an image "
     "(cannot identify image file)"),
    (f"deploy.prototxt {WEIGHTS} other.png -o log.txt", "log.txt/other.png: not a directory"),
    (f"deploy.prototxt {WEIGHTS} other.png -o .", "other.png would be written to other.png, which "
     "is an image to segment; write to another folder"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"), SEGMENTS, ids=[arguments for arguments, _ in SEGMENTS]
)
def test_segment_mistakes(here: Path, arguments: str, message: str) -> None:
    Image.new("RGB", (40, 32)).save("other.png")
    assert mistake("segment", *arguments.split()) == message
