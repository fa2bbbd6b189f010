"""pycaffe's Net, over the compiled one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from netspec.caffe.blob import Arrays, BlobVec, ByLayer, ByName
from netspec.caffe.core import Core
from netspec.caffe.layer import LayerVec, LayerView
from netspec.caffe.passes import Nodes
from netspec.caffe.runtime import next_seed
from netspec.caffe.vectors import DtypeVec, FixedVector, IntVec, StringVec
from netspec.errors import GraphError, SourceError, blame, fail, nearest
from netspec.formats.atomic import atomic_write
from netspec.frontend.graph import Node
from netspec.frontend.net_graph import graph_of
from netspec.frontend.phase import state_of
from netspec.frontend.prototxt import read_net
from netspec.layers.base import text
from netspec.proto.layers_pb2 import TEST, TRAIN
from netspec.runtime.module import Net as Module
from netspec.sources.fed_net import compile_net
from netspec.sources.feed import Feed
from netspec.weights.caffemodel import copy_into, put_weights, read_weights, write_weights


class UnknownName(GraphError, ValueError):
    """A layer that a net does not have."""


class Net(Core):
    """A net as pycaffe shows it.

    ``Net(prototxt, phase)`` or ``Net(prototxt, weights, phase)``; ``level`` and ``stages`` choose
    layers as in Caffe. Raises a NetSpecError, which is a RuntimeError.

    blobs: name -> `Blob`. params: layer -> its learned blobs. layers: a `LayerView` each.
    """

    def __init__(
        self,
        network_file: str,
        *args: Any,
        phase: int | None = None,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | None = None,
    ) -> None:
        if len(args) == 2 and not isinstance(args[0], int):
            weights, phase = args
        elif args:
            given = (*args, *(phase, level, stages, weights)[len(args) :])
            phase, level, stages, weights = given
        if phase not in (TRAIN, TEST):
            raise TypeError("Net needs a phase: caffe.TRAIN or caffe.TEST")
        written = read_net(network_file)
        state = state_of(written, TRAIN if phase == TRAIN else TEST, level, stages or ())
        graph = graph_of(written, state)
        seed = next_seed()
        feed = Feed(graph, seed) if len(graph.inputs) < len(graph.fed) else None
        self._show(compile_net(graph, feed.tops if feed else None, seed), feed, seed)
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def of(cls, module: Module, feed: Feed | None, seed: int) -> Net:
        """The pycaffe face of a compiled net."""
        net = cls.__new__(cls)
        net._show(module, feed, seed)
        return net

    def _show(self, module: Module, feed: Feed | None, seed: int) -> None:
        """Become the face of a compiled net, with vectors where pycaffe has them."""
        super().__init__(module, feed, seed)
        self.layers = LayerVec(self.layers)
        self._layer_names = StringVec(self._layer_names)

    @property
    def inputs(self) -> list[str]:
        """Names of the blobs that Input layers make."""
        return list(self.module.graph.inputs)

    @property
    def outputs(self) -> list[str]:
        """Names of the blobs that no layer reads."""
        return list(self.module.graph.outputs)

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """Blob name -> the weight that its sum has in the loss.

        A written weight of a blob that is read on is not here: it moved to Caffe's split.
        """
        graph = self.module.graph
        weights = {term.value: term.weight for term in graph.loss_terms if term.is_own}
        return ByName((name, weights.get(i, 0.0)) for name, i in graph.all_blobs.items())

    @property
    def layer_dict(self) -> OrderedDict[str, LayerView]:
        """Layer name -> its view."""
        return ByLayer(zip(self._layer_names, self.layers, strict=True))

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """Layer name -> names of the blobs it makes."""
        return self._names(lambda node: node.tops)

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """Layer name -> names of the blobs it reads."""
        return self._names(lambda node: node.bottoms)

    # Attributes of pycaffe's C++ net, which some scripts use.

    @property
    def _blob_names(self) -> StringVec:
        """Names of all blobs; below, a blob's number is its place here."""
        return StringVec(self.blobs)

    @property
    def _blobs(self) -> BlobVec:
        return BlobVec(self.blobs.values())

    @property
    def _blob_loss_weights(self) -> DtypeVec:
        return DtypeVec(self.blob_loss_weights.values())

    @property
    def _inputs(self) -> IntVec:
        return self._numbers(self.inputs)

    @property
    def _outputs(self) -> IntVec:
        return self._numbers(self.outputs)

    def _bottom_ids(self, layer: int) -> IntVec:
        return self._numbers(self.bottom_names[self._layer_names[layer]])

    def _top_ids(self, layer: int) -> IntVec:
        return self._numbers(self.top_names[self._layer_names[layer]])

    def _numbers(self, names: Iterable[str]) -> IntVec:
        return IntVec(map(self._blob_names.index, names))

    def forward(
        self,
        blobs: Iterable[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: Any,
    ) -> Arrays:
        """Run layers ``start`` to ``end``; returns the outputs, or ``end``'s tops, and ``blobs``.

        kwargs: arrays for input blobs, by name, of the net's batch size. Raises ValueError for an
        array or a layer that the net does not have.
        """
        nodes = self._range(start, end)
        self._fill("input", self.inputs, kwargs)
        wanted = dict.fromkeys([*(self.top_names[end] if end else self.outputs), *(blobs or ())])
        self._run(*nodes)
        return Arrays({name: lambda b=self.blobs[name]: b.data for name in wanted})

    def backward(
        self,
        diffs: Iterable[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: Any,
    ) -> Arrays:
        """Run gradients from layer ``start`` back to ``end``; returns the inputs' diffs.

        Or those of ``end``'s bottoms, and of ``diffs``. kwargs: diffs for output blobs, by name.
        Every blob's diff is set; learned blobs' diffs are added to, as Caffe's are.
        """
        first, last = self._range(end, start)
        self._fill("output", self.outputs, kwargs)
        wanted = dict.fromkeys([*(self.bottom_names[end] if end else self.inputs), *(diffs or ())])
        self._backward(last, first)
        return Arrays({name: lambda b=self.blobs[name]: b.diff for name in wanted})

    def forward_all(
        self, blobs: Sequence[str] | None = None, **kwargs: Any
    ) -> dict[str, np.ndarray]:
        """Run any number of rows, in batches of the net's size.

        Returns the outputs, and ``blobs``, for each row of the inputs in ``kwargs``. The last batch
        is filled up with zeros, whose results are dropped.
        """
        parts: dict[str, list[np.ndarray]] = {}
        for batch in self._batches(kwargs):
            _collect(parts, self.forward(blobs=blobs, **batch))
        return _joined(parts, kwargs)

    def forward_backward_all(
        self,
        blobs: Sequence[str] | None = None,
        diffs: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """As `forward_all`; returns also the diffs of the inputs, and ``diffs``.

        kwargs: arrays of inputs, and diffs of outputs; without one of them a pass takes what
        the blobs hold.
        """
        made: dict[str, list[np.ndarray]] = {}
        propagated: dict[str, list[np.ndarray]] = {}
        inputs = self._batches({name: kwargs[name] for name in self.inputs if name in kwargs})
        seeds = self._batches({name: kwargs[name] for name in self.outputs if name in kwargs})
        for batch, diff in zip_longest(inputs, seeds):
            _collect(made, self.forward(blobs=blobs, **(batch or {})))
            _collect(propagated, self.backward(diffs=diffs, **(diff or {})))
        return _joined(made, kwargs), _joined(propagated, kwargs)

    def set_input_arrays(self, data: Any, labels: Any) -> None:
        """Feed these from now on, where the first layer is a MemoryData.

        data: (n, C, H, W); labels: (n) or (n, 1, 1, 1). Raises SourceError.
        """
        first = self.module.graph.nodes[0]
        source = self.feed.sources.get(first.name) if self.feed is not None else None
        with blame(first.place, first.who):
            if source is None or not source.takes_arrays:
                fail("set_input_arrays feeds a net whose first layer is a MemoryData", SourceError)
        source.set_arrays(data, labels)

    def copy_from(self, weights: str) -> None:
        """Set learned arrays from a .caffemodel or .h5, by layer name; raises WeightsError."""
        # What was written into layers that the file does not hold must not be lost.
        self.sync()
        copy_into(self.module, read_weights(weights))
        self.refresh()

    def load_hdf5(self, filename: str) -> None:
        """Set learned arrays from an HDF5 file, by layer name; raises WeightsError."""
        self.copy_from(filename)

    def save(self, path: str) -> None:
        """Write a .caffemodel, or HDF5 if the path ends in .h5."""
        write_weights(Path(path), self._shapes, self.sync())

    def save_hdf5(self, filename: str) -> None:
        """Write HDF5, whatever the path ends in."""
        with atomic_write(filename) as part:
            put_weights(part, self._shapes, self.sync(), None, hdf5=True)

    def _batches(self, rows: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Cut rows of blobs into batches of the net's size, the last one filled up with zeros."""
        if not rows:
            return
        size = next(iter(self.blobs.values())).shape[0]
        for start in range(0, _count(rows), size):
            yield {
                name: _filled(np.asarray(array[start : start + size]), size)
                for name, array in rows.items()
            }

    def _names(self, choose: Callable[[Node], Sequence[int]]) -> OrderedDict[str, list[str]]:
        graph = self.module.graph
        names = [value.name for value in graph.values]
        return ByLayer((node.name, [names[i] for i in choose(node)]) for node in graph.nodes)

    def _range(self, first: str | None, last: str | None) -> Nodes:
        """The indices of two layers, or of the outermost ones; raises UnknownName."""
        return (
            self._index(first) if first is not None else 0,
            self._index(last) if last is not None else len(self._layer_names) - 1,
        )

    def _index(self, layer: str) -> int:
        if layer not in self._layer_names:
            hint = nearest(layer, self._layer_names)
            raise UnknownName(f'{self.module.graph.file}: no layer "{layer}"{hint}')
        return self._layer_names.index(layer)

    def _fill(self, noun: str, known: list[str], arrays: Mapping[str, Any]) -> None:
        """Write arrays into blobs of these names: the data of inputs, the diffs of outputs."""
        for name, values in arrays.items():
            if name not in known:
                raise ValueError(
                    f'no {noun} blob "{name}"; the net has {", ".join(known) or "none"}'
                )
            blob, array = self.blobs[name], np.asarray(values, np.float32)
            if blob.shape and array.shape[:1] != blob.shape[:1]:
                raise ValueError(
                    f'"{name}" is {text(blob.shape)}, and is given {text(array.shape)}: '
                    "reshape the blob first"
                )
            (blob.data_mirror if noun == "input" else blob.diff_mirror).fill(array)


class NetVec(FixedVector[Net]):
    """The nets that a solver tests, in order."""


def _filled(rows: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(rows)
    return np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1)) if missing else rows


def _count(rows: Mapping[str, Any]) -> int:
    return len(next(iter(rows.values())))


def _collect(parts: dict[str, list[np.ndarray]], arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        parts.setdefault(name, []).append(np.array(array, ndmin=1))


def _joined(
    parts: Mapping[str, list[np.ndarray]], rows: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Join the parts of each blob to one array, without the rows that were filled up.

    A blob without a row for each of the inputs, such as a loss, has one for each batch.
    """
    stacks = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return {name: array[: _count(rows)] for name, array in stacks.items()} if rows else stacks
