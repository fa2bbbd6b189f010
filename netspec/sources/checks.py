"""Checks of data on the host: class indices in range, and files that exist."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import DamagedDataError, SourceError, counted, fail, require
from netspec.layers.records import Labels
from netspec.layers.shape import Shape, text

# A number -> the file of that number, if it is not there.
Lacks = Callable[[int], str | os.PathLike[str] | None]

_LOG = logging.getLogger(__name__)
# A network disk answers many requests at once as fast as one.
_ASKING = 16
_NAMED = 3


def check_labels(array: NDArray[Any], labels: Labels, name: str, files: Sequence[str] = ()) -> None:
    """Raise SourceError at the first value that is no class index and is not ignored.

    array: labels of any shape; (N, 1, H, W) for images. name: the file or blob they come from.
    files: the file behind each of its N samples, if they are known.
    """
    valid = (array >= 0) & (array < labels.classes) & (array == np.trunc(array))
    if labels.ignore is not None:
        valid |= array == labels.ignore
    if valid.all():
        return
    where = np.unravel_index(int(np.argmin(valid)), array.shape)
    position = _position(array.shape, where)
    if len(files) == len(array):
        name, position = files[int(where[0])], _position(array.shape[1:], where[1:])
    value = float(array[where])
    ignores = "" if labels.ignore is None else f" and ignores {labels.ignore}"
    remedy = (
        "; loss_param { ignore_label: 255 } skips such pixels"
        if value == 255 and labels.ignore is None
        else ""
    )
    raise SourceError(
        f"label {value:g}{position} of {name}; the net has "
        f"{labels.classes} classes (0..{labels.classes - 1}){ignores}{remedy}"
    )


# What Caffe counts a blob's numbers in.
_MOST = 2**31 - 1


def require_blob(shape: Shape, what: str) -> None:
    """Raise SourceError for an array that no blob can be, before it is made."""
    count = math.prod(shape)
    require(
        count <= _MOST,
        f"{what} is {text(shape)}: {count:,} numbers, but at most {_MOST:,} fit a blob",
        DamagedDataError,
    )


def require_files(
    count: int,
    lacks: Lacks,
    whose: str,
    seconds: float = 5,
) -> None:
    """Raise SourceError if files are missing: how many, and the first by name.

    lacks: for each of ``range(count)`` the file that should be there and is not, or None; it is
    called in threads. whose: what lists them, for messages. seconds: after so long the
    rest is not checked, and a warning says how many were.
    """
    looked, missing = _look(count, lacks, time.monotonic() + seconds)
    if missing:
        of = f"its {counted(count, 'file')}"
        if looked < count:
            of = f"the {counted(looked, 'file')} looked for within {seconds:g} s (it has {count})"
        others = len(missing) - _NAMED
        more = f" and {counted(others, 'other')}" if others > 0 else ""
        fail(
            f"{whose} lacks {len(missing)} of {of}: {', '.join(missing[:_NAMED])}{more}",
            SourceError,
        )
    if looked < count:
        _LOG.warning(
            "%s: looked for %d of its %d files within %g s; none of these is missing",
            *(whose, looked, count, seconds),
        )


def _look(count: int, lacks: Lacks, until: float) -> tuple[int, list[str]]:
    """How many of the files were looked for before that moment, and those that are missing."""

    def look(start: int) -> tuple[int, list[tuple[int, str]]]:
        looked, missing = 0, []
        for i in range(start, count, _ASKING):
            if looked and time.monotonic() > until:
                break
            path = lacks(i)
            looked += 1
            if path is not None:
                missing.append((i, str(path)))
        return looked, missing

    with ThreadPoolExecutor(_ASKING) as threads:
        found = list(threads.map(look, range(_ASKING)))
    in_order = sorted(each for _, some in found for each in some)
    return sum(looked for looked, _ in found), [path for _, path in in_order]


def _position(shape: tuple[int, ...], where: tuple[Any, ...]) -> str:
    """Where in its blob a value stands: ``at (x 12, y 30)``, ``in sample 3``, or both."""
    parts = []
    if len(shape) >= 3:
        parts.append(f"at (x {where[-1]}, y {where[-2]})")
    if len(shape) >= 1 and (shape[0] > 1 or len(shape) < 3):
        parts.append(f"in sample {where[0]}")
    return "".join(f" {part}" for part in parts)
