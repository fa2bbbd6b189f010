"""Rows of datasets in an HDF5 file, read when they are needed: a file may be larger than memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from netspec.errors import (
    DamagedDataError,
    SourceError,
    WeightsError,
    fail,
    nearest,
    require,
    unreadable,
)
from netspec.formats import hdf5
from netspec.formats.regular import require_regular

Shape = tuple[int, ...]

# A dataset may state more than it holds by what deflate makes of zeros: rows are read by need. A
# chunk is unpacked whole, so by less. Small ones may hold nothing: all their numbers are the same.
_MOST_PACKED, _MOST_PACKED_CHUNK = 1032, 100
_SMALL = 1 << 28
# Files up to this size, in floats of 4 bytes, are read once and stay in memory: shuffled rows of
# packed chunks would be unpacked again and again.
_MOST_KEPT = 1 << 28
# Read at a time.
_PIECE = 1 << 24
_NAMED = 10


class RowFile(NamedTuple):
    """A file of rows: how many, and the shape of a row of each dataset."""

    path: Path
    rows: int
    row_shapes: dict[str, Shape]


def inspect(path: Path, names: Sequence[str]) -> RowFile:
    """What a file has of these datasets, as it states it; no row is read. Raises SourceError."""
    with _opened(path) as file:
        shapes = {name: _dataset(file, name).shape for name in names}
    rows = shapes[names[0]][0]
    require(rows > 0, f'{path}: "{names[0]}" has no rows', SourceError)
    for name, shape in shapes.items():
        require(
            shape[0] == rows,
            f'{path}: "{name}" has {shape[0]} rows, but "{names[0]}" has {rows}',
            SourceError,
        )
    return RowFile(path, rows, {name: tuple(shape[1:]) for name, shape in shapes.items()})


class RowReader:
    """Reads rows of a file's datasets as floats: a small file at once, others by need."""

    def __init__(self, about: RowFile) -> None:
        """Open the file; raises SourceError."""
        self._about = about
        self._kept: dict[str, NDArray[np.float32]] = {}
        count = sum(about.rows * math.prod(shape) for shape in about.row_shapes.values())
        with _damage_told(about.path):
            require_regular(about.path)
            self._file: h5py.File = h5py.File(about.path, "r")
            for name, shape in about.row_shapes.items():
                require(
                    _dataset(self._file, name).shape == (about.rows, *shape),
                    f'"{name}" has changed since it was opened',
                    SourceError,
                )
            if 4 * count <= _MOST_KEPT:
                every = np.arange(about.rows)
                self._kept = {name: self._read(name, every) for name in about.row_shapes}
                self.close()

    def take(self, name: str, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The rows of these numbers, each once, in this order; raises SourceError."""
        if name in self._kept:
            return self._kept[name][rows]
        with _damage_told(self._about.path):
            return self._read(name, rows)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, name: str, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        stored = _dataset(self._file, name)
        out = np.empty((len(rows), *stored.shape[1:]), np.float32)
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        for start, end in _runs(stored, ordered):
            first = ordered[start]
            block = stored[first : ordered[end - 1] + 1]
            # Numbers beyond floats become infinite, as in Caffe.
            with np.errstate(over="ignore"):
                out[order[start:end]] = block[ordered[start:end] - first].astype(np.float32)
        return out


def _runs(stored: h5py.Dataset, ordered: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Parts of a rising series of rows that are read at once: of one chunk, or one by one behind.

    Each is as long as a piece of memory, or a row.
    """
    row = max(1, math.prod(stored.shape[1:]) * stored.dtype.itemsize)
    together = max(1, _PIECE // row)
    breaks = np.diff(ordered // together) != 0
    if stored.chunks:
        breaks |= np.diff(ordered // stored.chunks[0]) != 0
    else:
        breaks |= np.diff(ordered) != 1
    ends = [*(np.flatnonzero(breaks) + 1).tolist(), len(ordered)]
    return zip([0, *ends[:-1]], ends, strict=True)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    with _damage_told(path):
        require_regular(path)
        with h5py.File(path, "r") as file:
            yield file


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turn what HDF5 or a check finds wrong with a file into a SourceError that names it."""
    try:
        yield
    except SourceError as error:
        error.message = f"{path}: {error.message}"
        raise
    except WeightsError as error:
        fail(f"{path}: {error.message}", DamagedDataError)
    except hdf5.DAMAGED as error:
        if isinstance(error, OSError) and error.errno:
            fail(unreadable(path, error), SourceError)
        fail(f"{path}: damaged, or not an HDF5 file", DamagedDataError)


def _dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of rows of numbers that the file itself holds; raises SourceError, WeightsError."""
    found = hdf5.member(file, name)
    if not isinstance(found, h5py.Dataset):
        known = _datasets(file)
        more = ", ..." if len(known) > _NAMED else ""
        fail(
            f'no data set "{name}" for this top; it has {", ".join(known[:_NAMED]) or "none"}'
            f"{more}{nearest(name, known)}",
            SourceError,
        )
    require(
        found.dtype.kind in "fiu",
        f'"{name}" holds {found.dtype} values; numbers expected',
        SourceError,
    )
    require(found.ndim >= 1, f'"{name}" is one number; rows expected', SourceError)
    hdf5.require_own_storage(found)
    _require_held(found, name)
    return found


def _datasets(file: h5py.File) -> list[str]:
    """The names of a file's datasets that can be shown; no link is followed out of it."""
    shown = [name for name in islice(file, 10 * _NAMED) if name.isprintable()]
    hard = (name for name in shown if isinstance(file.get(name, getlink=True), h5py.HardLink))
    return [name for name in hard if isinstance(file[name], h5py.Dataset)]


def _require_held(stored: h5py.Dataset, name: str) -> None:
    """Raise SourceError where a dataset states more than it holds, or unpacks to more than that."""
    held = stored.id.get_storage_size()
    for what, shape, most in (
        ("states", stored.shape, _MOST_PACKED),
        ("has chunks of", stored.chunks or (0,), _MOST_PACKED_CHUNK),
    ):
        size = math.prod(shape) * stored.dtype.itemsize
        require(
            size <= max(_SMALL, most * held),
            f'"{name}" {what} {size:,} bytes, but the file holds {held:,} of them: it is damaged, '
            "or leaves rows unwritten, which are not read",
            DamagedDataError,
        )
