"""SIFT Flow in a tiny folder of its true layout."""

from pathlib import Path

import numpy as np
from set_folders import HEIGHT, SCENES, WIDTH, fed, grid, refused, write_mat
from set_folders import siftflow as siftflow

SIFTFLOW = "siftflow_layers.SIFTFlowSegDataLayer"


def test_siftflow_sample(siftflow: Path) -> None:
    source = fed(SIFTFLOW, {"siftflow_dir": str(siftflow), "split": "test", "seed": 1337}, 3)
    image, semantic, geometric = source.next().values()
    expected = np.full((3, HEIGHT, WIDTH), 91, np.float32)
    expected -= np.array((114.578, 115.294, 108.353), np.float32)[:, None, None]
    np.testing.assert_array_equal(image[0], expected)
    np.testing.assert_array_equal(semantic[0, 0], grid(255, 0, 32, 10))
    np.testing.assert_array_equal(geometric[0, 0], grid(255, 255, 0, 2, 1))
    assert source.current == ", ".join(
        str(siftflow / folder / SCENES / "street_b2.mat")
        for folder in ("SemanticLabels", "GeoLabels")
    )
    assert source.batches == 2


def test_siftflow_refusals(siftflow: Path) -> None:
    settings = {"siftflow_dir": str(siftflow), "split": "test"}
    assert refused(SIFTFLOW, settings) == (
        "makes 3 tops, an image, its semantic labels and its geometric labels, but 2 are named"
    )
    path = siftflow / "GeoLabels" / SCENES / "street_b2.mat"
    write_mat(path, "S", grid(-2))
    message = f"{path}: label -2 at (x 0, y 0); classes are 1..255, -1 and 0 none"
    assert refused(SIFTFLOW, settings, 3) == message
    path.write_bytes(b"nothing at all")
    assert refused(SIFTFLOW, settings, 3).startswith(f"{path}: no S can be read from it (")
    settings["split"] = "trainval"
    assert refused(SIFTFLOW, settings, 3) == f'no split "trainval": {siftflow} has test'
    (siftflow / "test.txt").unlink()
    assert refused(SIFTFLOW, settings, 3).startswith(
        f'siftflow_dir "{siftflow}" lacks trainval.txt; get SiftFlowDataset.zip'
    )
