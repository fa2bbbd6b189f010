"""The sets of the published FCNs, one small sample each, in their true layouts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image

SIZE = HEIGHT, WIDTH = 20, 28
NAME = "0001"


def write_all(root: Path) -> None:
    """Every set below ``root/data``, where the nets look for it."""
    for folder, write in WRITERS.items():
        write(root / "data" / folder)


def write_sbd(root: Path) -> None:
    _image(root / f"img/{NAME}.jpg", _picture())
    _matrix(root / f"cls/{NAME}.mat", "GTcls", {"Segmentation": _labels(0, 20).astype(np.uint8)})
    _lines(root / "train.txt", NAME)


def write_voc(root: Path) -> None:
    _image(root / f"JPEGImages/{NAME}.jpg", _picture())
    _image(root / f"SegmentationClass/{NAME}.png", _labels(0, 20).astype(np.uint8))
    _lines(root / "ImageSets/Segmentation/seg11valid.txt", NAME)


def write_context(root: Path) -> None:
    """PASCAL-Context, and VOC 2010 beside it; classes are those of labels.txt."""
    voc = root.parent / "pascal/VOC2010"
    _image(voc / f"JPEGImages/{NAME}.jpg", _picture())
    _matrix(root / f"trainval/{NAME}.mat", "LabelMap", _labels(1, 70).astype(np.uint16))
    names = [f"{number}: thing {number}" for number in range(1, 71)]
    _lines(root / "labels.txt", *names)
    _lines(root / "59_labels.txt", *names[:59])
    for split in ("train", "val"):
        _lines(voc / f"ImageSets/Main/{split}.txt", NAME)


def write_nyud(root: Path) -> None:
    _image(root / f"data/images/img_{NAME}.png", _picture())
    _image(root / f"data/hha/img_{NAME}.png", _picture())
    depth = _picture()[:, :, 0].astype(np.uint16) * 40
    _image(root / f"data/depth/img_{NAME}.png", depth.astype(np.uint16))
    labels = _labels(0, 40).astype(np.uint16)
    _matrix(root / f"segmentation/img_{NAME}.mat", "segmentation", labels)
    for split in ("trainval", "test"):
        _lines(root / f"{split}.txt", NAME)


def write_siftflow(root: Path) -> None:
    scenes = "spatial_envelope_256x256_static_8outdoorcategories"
    _image(root / "Images" / scenes / f"{NAME}.jpg", _picture())
    _matrix(root / "SemanticLabels" / scenes / f"{NAME}.mat", "S", _labels(0, 33).astype(np.uint8))
    _matrix(root / "GeoLabels" / scenes / f"{NAME}.mat", "S", _labels(-1, 3).astype(float))
    for split in ("trainval", "test"):
        _lines(root / f"{split}.txt", NAME)


WRITERS: dict[str, Callable[[Path], None]] = {
    "sbdd/dataset": write_sbd,
    "pascal/VOC2011": write_voc,
    "pascal-context": write_context,
    "nyud": write_nyud,
    "sift-flow": write_siftflow,
}


def _picture() -> NDArray[np.uint8]:
    """Not black anywhere, so that a depth image may be made of it."""
    return np.random.default_rng(0).integers(1, 256, (*SIZE, 3), np.uint8)


def _labels(least: int, most: int) -> NDArray[np.int64]:
    """Every label from ``least`` to ``most``, over and over."""
    return np.resize(np.arange(least, most + 1), SIZE)


def _image(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _matrix(path: Path, name: str, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {name: value})


def _lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
