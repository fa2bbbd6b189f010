"""Undo mean subtraction and scaling: what a source feeds, back to pixels to look at."""

from __future__ import annotations

import ast

import numpy as np
from numpy.typing import ArrayLike, NDArray


def add_mean(images: NDArray[np.float32], mean: ArrayLike, scale: float = 1) -> NDArray[np.float32]:
    """Pixels (N, C, H, W) of images that are (pixels - mean) * scale.

    mean: one number, one for each channel, or an image (C, H, W). A scale of 0 counts as 1.
    """
    array = np.asarray(mean, np.float32)
    means = array if array.ndim == 3 else array.reshape(-1, 1, 1)
    restored: NDArray[np.float32] = images / np.float32(scale or 1) + means
    return restored


def fits(images: NDArray[np.float32], means: list[float]) -> bool:
    """Whether a blob is images (N, C, H, W), with one mean for all channels or one for each."""
    return images.ndim == 4 and len(means) in (1, images.shape[1])


def mean_setting(param_str: str) -> list[float]:
    """The setting "mean" of a Python layer, as published layers have it: 1 or 3 numbers, or none.

    param_str: read as a Python dict of plain values, never run.
    """
    try:
        mean = ast.literal_eval(param_str.strip())["mean"]
        means = np.asarray(mean, np.float32).ravel().tolist()
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return []
    return means if len(means) in (1, 3) else []
