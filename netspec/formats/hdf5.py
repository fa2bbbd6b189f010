"""HDF5: read big arrays without copies, and append rows to data sets.

A file may state any sizes; nothing is allocated that it does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from netspec.errors import NetSpecError, WeightsError, fail, require, unreadable
from netspec.formats import protobuf_wire
from netspec.formats.atomic import atomic_write
from netspec.formats.regular import open_regular, require_regular

Rows = Mapping[str, NDArray[np.float32]]

# What h5py raises for files that are damaged, depending on where.
DAMAGED = (
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

# Links that are followed on the way to one object.
_MOST_STEPS = 200


def is_hdf5(path: str | Path) -> bool:
    """Whether a file is HDF5, by the bytes that it begins with; raises OSError."""
    with open_regular(path) as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


@contextmanager
def opened(path: str | Path, kind: str) -> Iterator[h5py.File]:
    """An HDF5 file to read; raises WeightsError for whatever HDF5 finds wrong with it.

    kind: what it should be, e.g. ".caffemodel.h5".
    """
    try:
        require_regular(path)
        with h5py.File(path, "r") as file:
            yield file
    except NetSpecError:
        raise
    except DAMAGED:
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
    require_own_storage(item)
    size = math.prod(item.shape) * item.dtype.itemsize
    start = item.id.get_offset()
    if start is not None and item.id.get_type().equal(h5py.h5t.py_create(item.dtype)):
        data = protobuf_wire.mapped(item.file.filename)[start : start + size]
        require(len(data) == size, "is truncated: a blob goes beyond its end", WeightsError)
        return np.frombuffer(data, item.dtype).reshape(item.shape)
    _require_stored(item, "blob")
    return item[()]


def reader(item: object, name: str) -> Callable[[], np.ndarray]:
    """A function that reads `array` of a dataset: a packed one only when it is called.

    name: the dataset's, from the root. Raises WeightsError.
    """
    if not isinstance(item, h5py.Dataset) or item.chunks is None:
        view = array(item)
        return lambda: view
    require(item.dtype.kind in "fiu", f"holds {item.dtype} values; numbers expected", WeightsError)
    require_own_storage(item)
    _require_stored(item, "blob")
    path = item.file.filename

    def read() -> np.ndarray:
        with opened(path, "HDF5 file") as file:
            return array(member(file, name))

    return read


def member(group: h5py.Group, path: str) -> object:
    """What a path in a group leads to, within the file; None where it leads nowhere.

    Raises WeightsError for links to other files: nobody named those.
    """
    return _followed(group, path, iter(range(_MOST_STEPS)))


def _followed(group: h5py.Group, path: str, steps: Iterator[int]) -> object:
    """As `member`; steps: as many as may still be taken, since soft links can go in circles."""
    found: object = group.file if path.startswith("/") else group
    for part in path.split("/"):
        if part in ("", "."):
            continue
        require(next(steps, None) is not None, "is damaged: links in circles", WeightsError)
        if not isinstance(found, h5py.Group):
            return None
        link = found.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            what = f'"{part}" leads to another file, {link.filename}, which is not read'
            fail(what, WeightsError)
        if isinstance(link, h5py.SoftLink):
            found = _followed(found, link.path, steps)
        else:
            found = None if link is None else found[part]
    return found


def require_own_storage(item: h5py.Dataset) -> None:
    """Raise WeightsError for a dataset whose numbers are in other files: nobody named those."""
    settings = item.id.get_create_plist()
    require(
        not settings.get_external_count(),
        "keeps numbers in other files (external storage), which are not read",
        WeightsError,
    )
    require(
        settings.get_layout() != h5py.h5d.VIRTUAL,
        "is made of other data (a virtual dataset), which is not read; write the numbers out",
        WeightsError,
    )


def string(item: object) -> str:
    """The text of a dataset that holds one, without the 0 that ends it; raises WeightsError."""
    if not isinstance(item, h5py.Dataset) or item.shape != ():
        fail("is damaged: a name is no text", WeightsError)
    require_own_storage(item)
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


def add_rows(path: Path, rows: Rows, afresh: bool) -> None:
    """Append each array's rows to the data set of its name; the file is closed when this returns.

    rows: data set -> array (n, ...). afresh: begin a new file; the old one stays until the new one
    is whole. Raises LayerError where the file cannot be written, or where rows have another shape
    than those in it.
    """
    try:
        if afresh:
            with atomic_write(path) as part, h5py.File(part, "w") as file:
                _add_empty(file, rows)
                _extend(file, rows, path)
        else:
            with h5py.File(path, "r+") as file:
                _extend(file, rows, path)
    except OSError as error:
        fail(unreadable(path, error))


def _add_empty(file: h5py.File, rows: Rows) -> None:
    """Create data sets without rows that can grow."""
    for name, array in rows.items():
        row = array.shape[1:]
        file.create_dataset(name, (0, *row), np.float32, maxshape=(None, *row))


def _extend(file: h5py.File, rows: Rows, path: Path) -> None:
    """Append rows to data sets; all are checked first, so that they stay of one length."""
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
