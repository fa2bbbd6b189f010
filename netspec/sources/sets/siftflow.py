"""SIFT Flow: outdoor scenes with labels of two kinds, semantic and geometric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netspec.sources.base import register
from netspec.sources.images.decode import preprocess, read_image
from netspec.sources.sets.base import Part, SegmentationSource
from netspec.sources.sets.class_names import SIFTFLOW
from netspec.sources.sets.matlab import counted_from_one, read_matrix

# Of blue, green and red, in single precision as in the published layer.
MEAN = np.array((114.578, 115.294, 108.353), np.float32).tolist()
SCENES = "spatial_envelope_256x256_static_8outdoorcategories"


def read_siftflow_image(path: Path) -> NDArray[np.float32]:
    """A photograph as (1, 3, H, W) of blue, green and red less their means."""
    return preprocess(read_image(path), MEAN)


def read_semantic(path: Path) -> NDArray[np.uint8]:
    """``S`` of a MATLAB file, void 0 and classes from 1, as class indices (H, W)."""
    return counted_from_one(read_matrix(path, "S"), path)


def read_geometric(path: Path) -> NDArray[np.uint8]:
    """``S`` of a MATLAB file, void -1 and classes from 1, as class indices (H, W)."""
    return counted_from_one(read_matrix(path, "S"), path, voids=(-1, 0))


@register("siftflow_layers.SIFTFlowSegDataLayer")
class SIFTFlowSegData(SegmentationSource):
    """SIFT Flow: images, semantic classes 0..32 and geometric classes 0..2; void is 255."""

    folders = ("siftflow_dir",)
    lists = "."
    nouns = ("an image", "its semantic labels", "its geometric labels")
    origin = (
        "get SiftFlowDataset.zip (Tighe and Lazebnik, 2010: "
        "http://www.cs.unc.edu/~jtighe/Papers/ECCV10/siftflow/SiftFlowDataset.zip), unpack it and "
        "set siftflow_dir to its folder (trainval.txt and test.txt come with the published FCNs, "
        "fcn.berkeleyvision.org)"
    )

    def parts(self, siftflow: Path) -> Sequence[Part]:  # type: ignore[override]
        """Folders Images, SemanticLabels and GeoLabels."""
        images, semantic, geometric = (
            siftflow / folder / SCENES for folder in ("Images", "SemanticLabels", "GeoLabels")
        )
        return (
            Part("image", images, (".jpg",), read_siftflow_image, mean=MEAN),
            Part(
                "semantic labels", semantic, (".mat",), read_semantic, labels=True, classes=SIFTFLOW
            ),
            Part("geometric labels", geometric, (".mat",), read_geometric, labels=True),
        )
