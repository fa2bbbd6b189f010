"""Files of images and label images to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from netspec.errors import SourceError, fail, require, unreadable

MEAN = (104.00699, 116.66877, 122.67892)
"""Mean of blue, green and red over ILSVRC's images, which published nets subtract."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) of red, green and blue; raises SourceError."""
    return np.asarray(_open(path).convert("RGB"))


def read_labels(path: Path) -> NDArray[np.uint8]:
    """A label image, palette or grey, as class indices (H, W); raises SourceError."""
    image = _open(path)
    require(
        image.mode in ("P", "L"),
        f"{path}: {image.mode} label image; class indices expected (an 8-bit palette or grey PNG)",
        SourceError,
    )
    return np.asarray(image)


def read_mat_labels(path: Path) -> NDArray[np.uint8]:
    """``GTcls.Segmentation`` of a MATLAB file as class indices (H, W); raises SourceError."""
    # Imported here: slow to load, and one data set alone needs it.
    from scipy.io import loadmat

    try:
        labels = np.asarray(loadmat(path)["GTcls"]["Segmentation"][0, 0])
    # A damaged file can fail anywhere in the reader, with any error.
    except Exception as error:
        fail(f"{path}: no GTcls.Segmentation can be read from it ({error})", SourceError)
    require(
        labels.ndim == 2 and labels.dtype.kind in "iu",
        f"{path}: GTcls.Segmentation is {labels.dtype} with {labels.ndim} axes; "
        "integers with 2 expected",
        SourceError,
    )
    return labels.astype(np.uint8)


def _open(path: Path) -> Image.Image:
    """A decoded image; raises SourceError."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    # Pillow's decoders raise OSError, SyntaxError, ValueError and more on damaged files.
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            fail(unreadable(path, error), SourceError)
        fail(f"{path}: damaged, or not an image ({_reason(error, path)})", SourceError)


def _reason(error: Exception, path: Path) -> str:
    return str(error).replace(f" {str(path)!r}", "")


def preprocess(
    image: NDArray[np.uint8], mean: float | Sequence[float] = MEAN
) -> NDArray[np.float32]:
    """An image (H, W, 3) of red, green, blue as a blob (1, 3, H, W) of blue, green, red less mean.

    mean: of blue, green and red, or one for all.
    """
    # Subtracted in double and rounded once, for each of the 256 grey levels.
    table = (np.arange(256)[:, None] - np.broadcast_to(mean, 3)).astype(np.float32)
    blob = np.empty((1, 3, *image.shape[:2]), np.float32)
    for channel in range(3):
        blob[0, channel] = table[image[:, :, 2 - channel], channel]
    return blob
