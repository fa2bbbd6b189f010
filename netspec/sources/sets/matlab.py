"""Read label images from MATLAB files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netspec.errors import DamagedDataError, SourceError, fail, require, unreadable
from netspec.formats import mat

VOID = 255
"""The class index of what belongs to no class."""


def read_matrix(path: Path, *names: str) -> NDArray[np.int64]:
    """A matrix of integers (H, W), by the names of its variable and of fields in that one.

    Raises SourceError.
    """
    wanted = ".".join(names)
    try:
        matrix = mat.read_array(path, *names)
    except OSError as error:
        fail(unreadable(path, error), SourceError)
    except DamagedDataError as error:
        fail(f"{path}: no {wanted} can be read from it ({error.message})", DamagedDataError)
    whole = matrix.dtype.kind in "iu" or (
        # MATLAB's numbers are doubles unless told otherwise.
        matrix.dtype.kind == "f" and bool((np.isfinite(matrix) & (matrix % 1 == 0)).all())
    )
    require(
        matrix.ndim == 2 and whole,
        f"{path}: {wanted} is {matrix.dtype} with {matrix.ndim} axes; integers with 2 expected",
        SourceError,
    )
    return matrix.astype(np.int64)


def as_indices(labels: NDArray[np.int64], path: Path) -> NDArray[np.uint8]:
    """Labels as class indices; raises SourceError where one is none."""
    wrong = (labels < 0) | (labels > VOID)
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        fail(
            f"{path}: label {labels[y, x]} at (x {x}, y {y}); class indices are 0..{VOID}",
            SourceError,
        )
    return labels.astype(np.uint8)


def counted_from_one(
    labels: NDArray[np.int64], path: Path, voids: Collection[int] = (0,)
) -> NDArray[np.uint8]:
    """Labels of classes that are counted from 1 as class indices from 0; ``voids`` become 255."""
    void = np.isin(labels, list(voids))
    wrong = ~void & ((labels < 1) | (labels > VOID))
    if wrong.any():
        y, x = np.argwhere(wrong)[0]
        none = " and ".join(map(str, sorted(voids)))
        fail(
            f"{path}: label {labels[y, x]} at (x {x}, y {y}); classes are 1..{VOID}, {none} none",
            SourceError,
        )
    return as_indices(np.where(void, VOID, labels - 1), path)
