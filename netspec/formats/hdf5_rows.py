"""Rows added to the data sets of an HDF5 file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import fail, require, unreadable
from netspec.formats.atomic import whole

Rows = Mapping[str, NDArray[np.float32]]


def add_rows(path: Path, rows: Rows, afresh: bool) -> None:
    """Add each array's rows to the data set of its name; the file is closed when this returns.

    afresh: begin the file anew; the one that was there stays until the new one is whole. Raises
    LayerError where it cannot be written, or where rows have another shape than those in it.
    """
    # Imported here: slow to load, and one layer alone needs it.
    import h5py

    try:
        if afresh:
            with whole(path) as part, h5py.File(part, "w") as file:
                _begin(file, rows)
                _extend(file, rows, path)
        else:
            with h5py.File(path, "r+") as file:
                _extend(file, rows, path)
    except OSError as error:
        fail(unreadable(path, error))


def _begin(file: Any, rows: Rows) -> None:
    """Data sets without rows that can grow."""
    for name, array in rows.items():
        row = array.shape[1:]
        file.create_dataset(name, (0, *row), np.float32, maxshape=(None, *row))


def _extend(file: Any, rows: Rows, path: Path) -> None:
    # All are looked at before one grows, so that they stay of one length.
    for name, array in rows.items():
        require(name in file, f'{path}: no data set "{name}": another program wrote this file')
        row = file[name].shape[1:]
        require(
            row == array.shape[1:],
            f'{path}: a row of "{name}" is {_text(row)}, but now it is {_text(array.shape[1:])}',
        )
    for name, array in rows.items():
        stored = file[name]
        stored.resize(len(stored) + len(array), axis=0)
        stored[len(stored) - len(array) :] = array


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
