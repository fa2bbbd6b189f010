"""NYUDv2: rooms in color and depth, labelled in the 40 classes of Gupta et al. (2013)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspec.errors import SourceError, fail
from netspec.sources.base import register
from netspec.sources.images.decode import preprocess, read_grey, read_image
from netspec.sources.sets.base import Part, SegmentationSource
from netspec.sources.sets.class_names import NYUD
from netspec.sources.sets.matlab import counted_from_one, read_matrix
from netspec.sources.sets.settings import Setting

# Means of the published layer, in single precision as there: of blue, green and red; of
# disparity, height and angle; of the logarithm of depth.
COLOR_MEAN = np.array((116.190, 97.203, 92.318), np.float32).tolist()
HHA_MEAN = np.array((132.431, 94.076, 118.477), np.float32).tolist()
LOG_DEPTH_MEAN = np.float32(7.844)


def read_color(path: Path) -> NDArray[np.float32]:
    """A photograph as (1, 3, H, W) of blue, green and red less their means."""
    return preprocess(read_image(path), COLOR_MEAN)


def read_hha(path: Path) -> NDArray[np.float32]:
    """Depth as Gupta et al. encode it: (1, 3, H, W), channels as they are stored, less means."""
    return preprocess(read_image(path)[:, :, ::-1], HHA_MEAN)


def read_log_depth(path: Path) -> NDArray[np.float32]:
    """A depth image as (H, W) of the logarithm of depth less its mean; raises SourceError."""
    depth = read_grey(path)
    wrong = ~(depth > 0)
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        fail(
            f"{path}: depth {depth[y, x]:g} at (x {x}, y {y}) has no logarithm; "
            "fill the holes of the depth image first",
            SourceError,
        )
    log_depth: NDArray[np.float32] = np.log(depth) - LOG_DEPTH_MEAN
    return log_depth


def read_nyud_labels(path: Path) -> NDArray[np.uint8]:
    """``segmentation`` of a MATLAB file, void 0 and classes from 1, as class indices (H, W)."""
    return counted_from_one(read_matrix(path, "segmentation"), path)


class Modality(NamedTuple):
    """A folder of NYUDv2: how its files end, how one is read, and the mean that is subtracted.

    mean: None where what is fed is no picture: the logarithm of depth, and labels.
    """

    folder: str
    suffix: str
    read: Callable[[Path], NDArray[Any]]
    mean: Sequence[float] | None = None
    red_first: bool = False


# By what ``tops`` may name.
KINDS = {
    "color": Modality("data/images", ".png", read_color, COLOR_MEAN),
    "depth": Modality("data/depth", ".png", read_log_depth),
    "hha": Modality("data/hha", ".png", read_hha, HHA_MEAN, red_first=True),
    "label": Modality("segmentation", ".mat", read_nyud_labels),
}

CLASSES = {"label": NYUD}


def _are_kinds(value: Any) -> bool:
    named = isinstance(value, (list, tuple)) and len(value) > 0
    return named and all(isinstance(kind, str) and kind in KINDS for kind in value)


TOPS_SETTING = {
    "tops": Setting("a list of some of color, depth, hha, label", _are_kinds, ["color", "label"])
}


@register("nyud_layers.NYUDSegDataLayer")
class NYUDSegData(SegmentationSource):
    """NYUDv2: a top for each of ``tops``, which are some of color, depth, hha and label.

    Classes are 0..39 and void is 255.
    """

    folders = ("nyud_dir",)
    lists = "."
    required = TOPS_SETTING
    origin = (
        "get nyud.tar.gz, which the published FCNs were trained on "
        "(http://dl.caffe.berkeleyvision.org/nyud.tar.gz), unpack it and set nyud_dir to its folder"
    )

    @property
    def nouns(self) -> Sequence[str]:  # type: ignore[override]
        """Those that the settings name."""
        return tuple(self.settings["tops"])

    def parts(self, nyud: Path) -> Sequence[Part]:  # type: ignore[override]
        """The folders of the tops that the settings name."""
        return tuple(
            Part(
                kind,
                nyud / found.folder,
                (found.suffix,),
                found.read,
                labels=kind == "label",
                prefix="img_",
                classes=CLASSES.get(kind, ()),
                mean=found.mean,
                red_first=found.red_first,
            )
            for kind in self.nouns
            for found in (KINDS[kind],)
        )
