"""PASCAL VOC and the Semantic Boundaries Dataset, whose images are VOC's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netspec.sources.base import register
from netspec.sources.images.decode import preprocess, read_image, read_labels
from netspec.sources.sets.base import Part, SegmentationSource, read_names
from netspec.sources.sets.class_names import VOC
from netspec.sources.sets.matlab import as_indices, read_matrix
from netspec.sources.sets.settings import MEAN_SETTING


class PascalSource(SegmentationSource):
    """What VOC and SBD share: an image less ``mean``, blue, green, red, and its class indices."""

    required = MEAN_SETTING

    def image(self, path: Path) -> NDArray[np.float32]:
        """An image file as (1, 3, H, W)."""
        return preprocess(read_image(path), self.settings["mean"])


@register("voc_layers.VOCSegDataLayer")
class VOCSegData(PascalSource):
    """PASCAL VOC, and every set laid out like it: label images are palette or grey PNGs.

    With one top it reads images only, as of a list whose labels are not given out. A file
    ``classes.txt`` in the folder names the classes, a line each; VOC's own need none.
    """

    folders = ("voc_dir",)
    lists = "ImageSets/Segmentation"
    origin = (
        "get VOCtrainval_11-May-2012.tar from the PASCAL VOC 2012 site "
        "(http://host.robots.ox.ac.uk/pascal/VOC/voc2012), unpack it and set voc_dir to the folder "
        "VOCdevkit/VOC2012 in it (seg11valid.txt comes with the published FCNs, "
        "fcn.berkeleyvision.org); `netspec data shapes FOLDER` makes a small set of this layout"
    )

    @property
    def nouns(self) -> Sequence[str]:  # type: ignore[override]
        """Labels may be left out."""
        return PascalSource.nouns[: max(1, len(self.spec.top))]

    def parts(self, voc: Path) -> Sequence[Part]:  # type: ignore[override]
        """JPEGImages, as JPEG or else PNG, and SegmentationClass."""
        mean = self.settings["mean"]
        images = Part("image", voc / "JPEGImages", (".jpg", ".png"), self.image, mean=mean)
        folder, classes = voc / "SegmentationClass", _classes_in(voc)
        labels = Part("labels", folder, (".png",), read_labels, labels=True, classes=classes)
        return (images, labels)[: len(self.nouns)]

    def results(self, voc: Path) -> str:  # type: ignore[override]
        """As VOC's development kit names them: comp6 may have learned from any images."""
        return f"results/{voc.resolve().name}/Segmentation/comp6_{self._split}_cls"


@register("voc_layers.SBDDSegDataLayer")
class SBDDSegData(PascalSource):
    """The Semantic Boundaries Dataset: labels are ``GTcls.Segmentation`` of MATLAB files."""

    folders = ("sbdd_dir",)
    lists = "."
    origin = (
        "get benchmark.tgz of the Semantic Boundaries Dataset (Hariharan et al., 2011), unpack "
        "it and put the folder benchmark_RELEASE/dataset there, or set sbdd_dir to where it is"
    )

    def parts(self, sbd: Path) -> Sequence[Part]:  # type: ignore[override]
        """Folders img and cls."""
        mean = self.settings["mean"]
        return (
            Part("image", sbd / "img", (".jpg", ".png"), self.image, mean=mean),
            Part("labels", sbd / "cls", (".mat",), read_sbd_labels, labels=True, classes=VOC),
        )


def _classes_in(voc: Path) -> tuple[str, ...]:
    """What a set in VOC's layout calls its classes, if that is known."""
    if (voc / "classes.txt").is_file():
        return tuple(read_names(voc / "classes.txt"))
    return VOC if voc.resolve().name.startswith("VOC20") else ()


def read_sbd_labels(path: Path) -> NDArray[np.uint8]:
    """``GTcls.Segmentation`` of a MATLAB file as class indices (H, W); raises SourceError."""
    return as_indices(read_matrix(path, "GTcls", "Segmentation"), path)
