"""Blobs of a net on its data, written to databases of floats.

Caffe: ``extract_features.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from netspec.errors import SourceError, require
from netspec.layers.base import text
from netspec.runtime.module import Net
from netspec.sources.feed import Feed
from netspec.sources.images.databases import KeyValue, new_database
from netspec.sources.images.datum import write_floats

_MOST_AXES = 4


def extract(
    net: Net,
    feed: Feed,
    targets: Mapping[str, Path],
    batches: int,
    backend: int,
    tell: Callable[[str, int], None],
) -> None:
    """Write a database for each blob in ``targets``, a record a sample of its first axis.

    A record is a Datum of floats (C, H, W), its key the sample's number in ten digits. At the end
    all databases are complete, or none exists. tell: called with a blob and how many of its samples
    are done.
    Raises GraphError for an unknown blob, and SourceError.
    """
    require(batches > 0, f"{batches} batches; at least 1 is needed", SourceError)
    for name in targets:
        rank = len(net.shapes[name])
        require(
            1 <= rank <= _MOST_AXES,
            f'blob "{name}" is {text(net.shapes[name])}; a record takes (N), (N, C), (N, C, H) or '
            "(N, C, H, W)",
            SourceError,
        )
    done = dict.fromkeys(targets, 0)
    with ExitStack() as stack:
        puts = {
            name: stack.enter_context(new_database(path, backend)) for name, path in targets.items()
        }
        for _ in range(batches):
            blobs = net.forward(feed.next(net.shapes), tuple(targets))
            for name, put in puts.items():
                records = _records(np.asarray(blobs[name]), done[name])
                put(records)
                done[name] += len(records)
                tell(name, done[name])


def _records(samples: np.ndarray, first: int) -> list[KeyValue]:
    return [
        (f"{first + i:010d}".encode(), write_floats(sample)) for i, sample in enumerate(samples)
    ]
