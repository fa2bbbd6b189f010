"""Sample by sample, what data layers feed a net, to be looked at."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netspec.errors import Place, SourceError, require
from netspec.frontend.graph import Node
from netspec.frontend.shapes import KnownShapes
from netspec.proto.layers_pb2 import LayerParameter
from netspec.sources.base import Batch, Source, open_source


class ShownTop(NamedTuple):
    """One top of one sample.

    values: as the net gets it, (C, H, W) for an image. pixels: an image's, with the mean added
    back, if one is known. classes: whether it holds class indices. ignore: the class index that
    the loss ignores, if there is one.
    """

    top: str
    values: NDArray[np.float32]
    pixels: NDArray[np.float32] | None
    classes: bool
    ignore: int | None


class ShownSample(NamedTuple):
    """The tops of one data layer for one sample. name: the file behind it, if it is known."""

    name: str
    tops: list[ShownTop]


def samples(
    known: KnownShapes, count: int, seed: int, run_python: bool = True
) -> Iterator[tuple[ShownSample, ...]]:
    """The first samples that a net gets, each from all its data layers; raises SourceError.

    seed: the solver's. run_python: see `open_source`.
    """
    require(count > 0, f"{count} samples; at least 1 is needed", SourceError)
    nodes = [node for node in known.graph.sources if not node.layer.traits.is_input]
    inputs = ", ".join(known.graph.inputs)
    require(
        nodes,
        f"{known.graph.file}: has no data layers in this phase"
        + (f"; the caller hands in {inputs}" if inputs else ""),
        SourceError,
    )
    labels = _labels(known)
    with ExitStack() as opened:
        read = partial(_read, seed=seed, labels=labels, run_python=run_python)
        columns = [opened.enter_context(closing(read(node))) for node in nodes]
        yield from islice(zip(*columns, strict=True), min(count, sys.maxsize))


def _labels(known: KnownShapes) -> dict[str, int | None]:
    """The blobs that layers read as class indices -> the one that is ignored there."""
    found: dict[str, int | None] = {}
    for each in known.nodes:
        shapes = [shape for shape in each.bottoms if shape is not None]
        read = each.node.layer.scoring(*shapes).labels if len(shapes) == len(each.bottoms) else None
        if read is not None:
            name = known.graph.values[each.node.bottoms[read.bottom]].name
            ignore = found.get(name)
            found[name] = read.ignore if ignore is None else ignore
    return found


def _read(
    node: Node, seed: int, labels: Mapping[str, int | None], run_python: bool
) -> Generator[ShownSample, None, None]:
    """The samples of a data layer, without end."""
    with ExitStack() as opened:
        phase, place = node.layer.phase, node.place
        layer = node.layer.spec
        source = opened.enter_context(open_source(layer, phase, seed, place, run_python=run_python))
        names = _Names(_one_by_one(node), phase, seed, place)
        opened.callback(names.close)
        sure = source.label_tops()
        while True:
            state, batch = source.state(), source.next()
            plain = source.pixels(state, batch) if batch else {}
            rows = _rows(batch)
            for i in range(rows):
                tops = [
                    ShownTop(
                        top,
                        _row(array, i, rows),
                        _row(plain[top], i, rows) if top in plain else None,
                        top in labels or top in sure,
                        labels.get(top, sure.get(top)),
                    )
                    for top, array in batch.items()
                ]
                yield ShownSample(names.next() or source.current, tops)


def _rows(batch: Batch) -> int:
    """How many samples a batch has: the rows of its first top, as that is an image if one is."""
    first = next(iter(batch.values()), np.empty(()))
    return max(1, len(first)) if first.ndim else 1


def _row(array: NDArray[np.float32], i: int, rows: int) -> NDArray[np.float32]:
    """A sample's part of a top; all of a top that has another number of rows."""
    return array[i] if array.ndim and len(array) == rows else array


def _one_by_one(node: Node) -> LayerParameter | None:
    """The layer with batches of one sample; None if it has no such setting."""
    spec = LayerParameter()
    spec.CopyFrom(node.layer.spec)
    field = node.layer.param_field
    own: Any = getattr(spec, field) if field else None
    if getattr(own, "batch_size", 1) <= 1:
        return None
    own.batch_size = 1
    return spec


class _Names:
    """The files behind single samples, which a source of larger batches does not name.

    A second source hands out the same samples one by one. For windows the batch size changes what
    is drawn, and so their source names only the list.
    """

    def __init__(self, spec: LayerParameter | None, phase: int, seed: int, place: Place) -> None:
        self._source: Source | None = None
        if spec is not None:
            # Without it, samples have no names.
            with suppress(SourceError):
                self._source = open_source(spec, phase, seed, place)

    def next(self) -> str:
        """The file behind the next sample; empty if it is not known."""
        if self._source is None:
            return ""
        self._source.next()
        return self._source.current

    def close(self) -> None:
        """Close files."""
        if self._source is not None:
            self._source.close()
