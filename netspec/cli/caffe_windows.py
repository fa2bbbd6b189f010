"""Files of windows of images, and of the detections in them.

Caffe: ``python/detect.py``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from netspec.errors import NetSpecError, Place, SourceError, blame, fail, require, unreadable
from netspec.formats import hdf5
from netspec.formats.atomic import atomic_write
from netspec.formats.text import read_text

# In the order in which a detector takes them.
_EDGES = ("ymin", "xmin", "ymax", "xmax")

Window = tuple[int, ...]


def read_windows(path: Path) -> dict[str, list[Window]]:
    """Read a .csv with a header: image file -> its windows (ymin, xmin, ymax, xmax) in pixels.

    The columns ``filename``, ``xmin``, ``ymin``, ``xmax`` and ``ymax`` may stand in any order.
    Raises SourceError.
    """
    found: dict[str, list[Window]] = {}
    try:
        rows = csv.DictReader(StringIO(read_text(path)), skipinitialspace=True)
        missing = {"filename", *_EDGES} - set(rows.fieldnames or ())
        require(
            not missing,
            f"{path}: its first line lacks {', '.join(sorted(missing))}; it names the columns "
            "filename, xmin, ymin, xmax, ymax",
            SourceError,
        )
        for row in rows:
            with blame(Place(str(path), rows.line_num)):
                found.setdefault(row["filename"], []).append(_window(row))
    except OSError as error:
        fail(unreadable(path, error), SourceError)
    except (UnicodeDecodeError, csv.Error):
        fail(f"{path}: not a text file", SourceError)
    require(found, f"{path}: has no windows", SourceError)
    return found


def _window(row: Mapping[str, str | None]) -> Window:
    try:
        return tuple(round(float(row[edge] or "")) for edge in _EDGES)
    except ValueError:
        fail("a window is filename, xmin, ymin, xmax, ymax, the latter in pixels", SourceError)


def write_detections(path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Write detections of `netspec.caffe.Detector` to a .csv or HDF5 file; raises NetSpecError.

    A .csv has the columns filename, ymin, xmin, ymax, xmax, class0, class1 and so on; other endings
    are HDF5 with the arrays ``filename`` (n), ``window`` (n, 4) and ``prediction`` (n, classes).

    Differs: Caffe's HDF5 file is a pandas DataFrame.
    """
    try:
        with atomic_write(path) as part:
            (_write_csv if path.suffix.lower() == ".csv" else _write_hdf5)(part, found)
    except OSError as error:
        fail(unreadable(path, error), NetSpecError)


def _write_csv(path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    classes = np.size(found[0]["prediction"]) if found else 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", *_EDGES, *(f"class{i}" for i in range(classes))])
        for one in found:
            rows.writerow([one["filename"], *one["window"], *np.ravel(one["prediction"])])


def _write_hdf5(path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    with hdf5.created(path) as file:
        names = [one["filename"] for one in found]
        file.create_dataset("filename", data=names, dtype=h5py.string_dtype())
        file["window"] = np.array([one["window"] for one in found])
        file["prediction"] = np.array([np.ravel(one["prediction"]) for one in found])
