"""Any number of rows through a net, in batches of its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from netspec.caffe.net import Net

# By blob.
Rows = Mapping[str, Any]
Stacks = dict[str, np.ndarray]


def forward_all(net: Net, blobs: Sequence[str] | None, rows: Rows) -> Stacks:
    """The outputs, and ``blobs``, for each row of the inputs in ``rows``, blob by blob.

    The last batch is filled up with zeros, whose results are dropped.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for batch in _batches(net, rows):
        _collect(parts, net.forward(blobs=blobs, **batch))
    return _joined(parts, rows)


def forward_backward_all(
    net: Net, blobs: Sequence[str] | None, diffs: Sequence[str] | None, rows: Rows
) -> tuple[Stacks, Stacks]:
    """As `forward_all`, and the diffs of the inputs, and ``diffs``.

    rows: arrays of inputs, and diffs of outputs; without the one or the other the pass takes what
    the blobs hold.
    """
    made: dict[str, list[np.ndarray]] = {}
    come_back: dict[str, list[np.ndarray]] = {}
    forth = _batches(net, {name: rows[name] for name in net.inputs if name in rows})
    back = _batches(net, {name: rows[name] for name in net.outputs if name in rows})
    for inputs, seeds in zip_longest(forth, back):
        _collect(made, net.forward(blobs=blobs, **(inputs or {})))
        _collect(come_back, net.backward(diffs=diffs, **(seeds or {})))
    return _joined(made, rows), _joined(come_back, rows)


def _batches(net: Net, rows: Rows) -> Iterator[dict[str, Any]]:
    """The rows, as many at a time as the net takes; the last ones filled up with zeros."""
    if not rows:
        return
    size = next(iter(net.blobs.values())).shape[0]
    for start in range(0, _count(rows), size):
        yield {
            name: _filled(np.asarray(array[start : start + size]), size)
            for name, array in rows.items()
        }


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(rows)
    return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1)) if missing else rows


def _count(rows: Rows) -> int:
    return len(next(iter(rows.values())))


def _collect(parts: dict[str, list[np.ndarray]], arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        parts.setdefault(name, []).append(np.array(array, ndmin=1))


def _joined(parts: Mapping[str, list[np.ndarray]], rows: Rows) -> Stacks:
    """The parts of each blob as one array, without what was only filled up.

    A blob without a row for each of the inputs, as a loss, has one for each batch.
    """
    stacks = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return {name: array[: _count(rows)] for name, array in stacks.items()} if rows else stacks
