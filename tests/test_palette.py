"""Colours of classes, and indexed images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netspec.errors import SourceError
from netspec.formats.palette import colour_map, overlay, save_indexed


def test_colour_map_is_pascal_vocs() -> None:
    colours = colour_map()
    assert colours.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0)}
    known |= {15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    for index, colour in known.items():
        assert tuple(colours[index]) == colour
    assert len({tuple(colour) for colour in colours}) == 256


def test_indexed_images_hold_their_indices(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 20], [255, 3, 7]])
    save_indexed(tmp_path / "new" / "a.png", labels)
    image = Image.open(tmp_path / "new" / "a.png")
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), labels)
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), colour_map()[labels])
    for wrong in (labels + 1, labels - 1, labels[None]):
        with pytest.raises(
            SourceError, match=r"b.png: a palette image holds \(H, W\) indices in 0"
        ):
            save_indexed(tmp_path / "b.png", wrong)


def test_overlay() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    mixed = overlay(image, np.array([[0, 1]]), alpha=0.25)
    assert mixed.dtype == np.uint8
    assert mixed.tolist() == [[[75, 75, 75], [107, 75, 75]]]
