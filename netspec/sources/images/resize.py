"""Resize images of bytes, bit for bit as OpenCV's ``resize`` does it by default.

Bilinear between two pixels each way, however far an image shrinks; weights are whole numbers of
1/2048. Caffe: ``io.cpp`` (``ReadImageToCVMat``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BITS = 11


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """An image (H, W, C) as (height, width, C)."""
    rows, columns, channels = image.shape
    if (rows, columns) == (height, width):
        return image
    if (rows, columns) == (2 * height, 2 * width):
        return _halve(image)
    strips = _across(np.ascontiguousarray(image), width)
    above, weights = _taps(rows, height)
    # Rounded down twice and to the nearest once: what vector units do fast.
    strips >>= 4
    upper = strips[above.clip(0, rows - 1)]
    upper *= ((1 << _BITS) - weights)[:, None]
    upper >>= 16
    lower = strips[(above + 1).clip(0, rows - 1)]
    lower *= weights[:, None]
    lower >>= 16
    upper += lower
    upper += 2
    upper >>= 2
    return upper.astype(np.uint8).reshape(height, width, channels)


def _across(image: NDArray[np.uint8], width: int) -> NDArray[np.int32]:
    """Each row at its new width, (H, width * C), times 2048."""
    rows, columns, channels = image.shape
    before, weights = _taps(columns, width)
    # Outside the image, the edge pixel has the whole weight.
    weights[(before < 0) | (before >= columns - 1)] = 0
    left, right = (
        image.reshape(rows, -1)
        .take(_spread(pixels.clip(0, columns - 1), channels), axis=1)
        .astype(np.int32)
        for pixels in (before, before + 1)
    )
    right -= left
    right *= np.repeat(weights, channels)
    left <<= _BITS
    left += right
    return left


def _spread(pixels: NDArray[np.intp], channels: int) -> NDArray[np.intp]:
    """Where the channels of these pixels stand in a row."""
    return (pixels[:, None] * channels + np.arange(channels)).ravel()


def _taps(size: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """For each new pixel: the old one before it, and the weight of the one after."""
    # Positions are rounded to single precision before they are split.
    centres = ((np.arange(wanted) + 0.5) * (1 / (wanted / size)) - 0.5).astype(np.float32)
    before = np.floor(centres)
    weights = np.rint((centres - before) * np.float32(1 << _BITS)).astype(np.int32)
    return before.astype(np.intp), weights


def _halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half the size each way: the means of four pixels."""
    wide = image.astype(np.uint16)
    four = wide[::2, ::2] + wide[::2, 1::2] + wide[1::2, ::2] + wide[1::2, 1::2]
    return ((four + 2) >> 2).astype(np.uint8)
