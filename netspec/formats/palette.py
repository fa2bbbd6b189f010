"""Write label images as palette PNGs in PASCAL VOC's colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import SourceError, require, unreadable
from netspec.formats.atomic import atomic_write


def colour_map() -> NDArray[np.uint8]:
    """PASCAL VOC's colours of class indices 0..255, (256, 3) of red, green, blue.

    Bits 0, 1, 2 of an index are the highest bits of its red, green and blue; bits 3, 4, 5 are the
    next ones, and so on.
    """
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (((index >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


def save_indexed(path: str | Path, labels: NDArray[Any]) -> None:
    """Write class indices (H, W), 0..255, as a palette PNG: read back, it holds the indices.

    Raises SourceError for other values.
    """
    require(
        labels.ndim == 2 and labels.size > 0 and labels.min() >= 0 and labels.max() <= 255,
        f"{path}: a palette image holds (H, W) indices in 0..255",
        SourceError,
    )
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(colour_map().tobytes())
    save(path, image)


def save(path: str | Path, image: Image.Image, kind: str = "PNG", **settings: int) -> None:
    """Write an image file that appears whole or not at all; raises SourceError.

    kind, settings: Pillow's name of the format, and what its writer may be told.
    """
    try:
        with atomic_write(path) as part:
            image.save(part, kind, **settings)
    except OSError as error:
        raise SourceError(unreadable(path, error)) from None


def overlay(
    image: NDArray[np.uint8], labels: NDArray[Any], alpha: float = 0.5
) -> NDArray[np.uint8]:
    """An image (H, W, 3) with the colours of its labels (H, W) laid over it, ``alpha`` of them."""
    colours = colour_map()[labels]
    mixed: NDArray[np.float64] = np.rint((1 - alpha) * image + alpha * colours)
    return mixed.astype(np.uint8)
