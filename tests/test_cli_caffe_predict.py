"""``classify`` and ``detect``, against what pycaffe's classes give."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from caffe_command_line import FILES, output
from caffe_command_line import classified as classified
from caffe_command_line import here as here
from caffe_command_line import made as made
from caffe_command_line import settings as settings
from caffe_command_line import trained as trained

from netspec.caffe import Classifier, Detector
from netspec.caffe.io import load_image

SETTINGS = {"raw_scale": 255, "channel_swap": (2, 1, 0)}


@pytest.mark.parametrize(
    ("source", "flags", "count", "oversample"),
    [
        ("0.png", "", 1, True),
        (".", "--ext png --center_only", 3, False),
        ("images.npy", "--center_only", 2, False),
    ],
)
def test_classify(classified: Path, source: str, flags: str, count: int, oversample: bool) -> None:
    images = [load_image(f"{i}.png") for i in range(count)]
    np.save("images.npy", np.stack(images[:2]) if count > 1 else images)
    told = output(
        "classify", source, "out", *FILES, "--mean_file=mean.npy", "--images_dim=9,10",
        *flags.split(),
    ).splitlines()  # fmt: skip
    assert told[0] == "CPU mode"
    assert told[2] == f"Classifying {count} input{'s' * (count > 1)}."
    assert told[-1] == "Saving results into out.npy"
    net = Classifier(
        "deploy.prototxt", "deploy.caffemodel", (9, 10), np.load("mean.npy"), **SETTINGS
    )
    expected = net.predict(images, oversample)
    np.testing.assert_allclose(np.load("out.npy"), expected, rtol=1e-5)


@pytest.mark.differs("detect-hdf5")
@pytest.mark.parametrize("ending", ["csv", "h5"])
def test_detect(classified: Path, ending: str) -> None:
    output(
        "detect", "windows.csv", f"out.{ending}", *FILES, "--mean_file=mean.npy",
        "--crop_mode=list", "--context_pad=1",
    )  # fmt: skip
    windows = [("0.png", [(2, 1, 8, 9)]), ("1.png", [(0, 0, 6, 5)])]
    net = Detector(
        "deploy.prototxt", "deploy.caffemodel", np.full(3, 100), context_pad=1, **SETTINGS
    )
    expected = [one["prediction"].ravel() for one in net.detect_windows(windows)]
    if ending == "csv":
        header, *rows = (line.split(",") for line in Path("out.csv").read_text().splitlines())
        assert header == "filename ymin xmin ymax xmax class0 class1 class2 class3 class4".split()
        assert [row[:5] for row in rows] == [
            ["0.png", "2", "1", "8", "9"],
            ["1.png", "0", "0", "6", "5"],
        ]
        found = np.array([row[5:] for row in rows], float)
    else:
        with h5py.File("out.h5") as file:
            assert list(file["filename"].asstr()) == ["0.png", "1.png"]
            assert file["window"][...].tolist() == [[2, 1, 8, 9], [0, 0, 6, 5]]
            found = file["prediction"][...]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
