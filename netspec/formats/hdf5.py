"""HDF5, as far as weight files and solver states need it: big arrays without copies.

A file may state any sizes; nothing is allocated that it does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from netspec.errors import NetSpecError, WeightsError, fail, require
from netspec.formats import protobuf_wire

# What h5py raises for files that are damaged, depending on where.
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

# What deflate makes of zeros: no filter of HDF5's own packs more tightly.
_MOST_PACKED = 1032


@contextmanager
def opened(path: str | Path, kind: str) -> Iterator[h5py.File]:
    """An HDF5 file to read; raises WeightsError for whatever HDF5 finds wrong with it.

    kind: what it should be, e.g. ".caffemodel.h5".
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except NetSpecError:
        raise
    except _DAMAGED:
        raise WeightsError(f"is damaged, or no {kind}") from None


@contextmanager
def created(path: str | Path) -> Iterator[h5py.File]:
    """A new HDF5 file to write; raises OSError."""
    # Through a file of Python's: where HDF5 writes by itself, a full disk leaves a trail of errors
    # that nothing can catch.
    with open(path, "wb+") as raw, h5py.File(raw, "w") as file:
        yield file


def array(item: object) -> np.ndarray:
    """The numbers of a dataset, as a view of the file where they lie in one piece.

    Packed ones, and those of unusual types, are read. Raises WeightsError where the file does not
    hold as many numbers as it states.
    """
    if not isinstance(item, h5py.Dataset):
        fail("is damaged: a blob is no dataset", WeightsError)
    require(item.dtype.kind in "fiu", f"holds {item.dtype} values; numbers expected", WeightsError)
    size = math.prod(item.shape) * item.dtype.itemsize
    start = item.id.get_offset()
    if start is not None and item.id.get_type().equal(h5py.h5t.py_create(item.dtype)):
        data = protobuf_wire.mapped(item.file.filename)[start : start + size]
        require(len(data) == size, "is truncated: a blob goes beyond its end", WeightsError)
        return np.frombuffer(data, item.dtype).reshape(item.shape)
    _require_stored(item, "blob")
    return item[()]


def string(item: object) -> str:
    """The text of a dataset that holds one, without the 0 that ends it; raises WeightsError."""
    if not isinstance(item, h5py.Dataset) or item.shape != ():
        fail("is damaged: a name is no text", WeightsError)
    _require_stored(item, "name")
    return item.asstr()[()].rstrip("\0")


def _require_stored(item: h5py.Dataset, what: str) -> None:
    """Raise WeightsError where a file does not hold as much as it states."""
    size, stored = math.prod(item.shape) * item.dtype.itemsize, item.id.get_storage_size()
    require(
        size <= _MOST_PACKED * stored,
        f"is damaged: a {what} of {size} bytes is stored in {stored}",
        WeightsError,
    )
