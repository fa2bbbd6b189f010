"""Surgery on weights: start a net from what another one learned.

The nets of a family differ in few layers: a classifier's fully connected layers are an FCN's
convolutions, a set has more classes, an image a fourth channel, one trunk becomes two. All else
is copied by layer name, as `netspec.weights.caffemodel.copy_into` does it.

Source: ``surgery.py`` and ``solve.py`` of the published FCNs. Differs: what does not fit is a
mistake unless asked for, where those reshape whatever has as many numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from netspec.errors import (
    NetSpecError,
    Place,
    WeightsError,
    blame,
    counted,
    fail,
    nearest,
    require,
    unreadable,
)
from netspec.formats.protobuf_wire import StoredBlob
from netspec.layers.base import Shape, text
from netspec.layers.fillers import fill
from netspec.proto.layers_pb2 import FillerParameter
from netspec.runtime.module import Net
from netspec.weights.caffemodel import Copied, Weights, copy_into, read_weights, write_weights

_CLASSES, _CHANNELS = 0, 1
_NOUNS = ("classes", "input channels")
_GROWN = {
    _CLASSES: "{} of {} classes, the others as the fillers begin them",
    _CHANNELS: "{} of {} input channels, the others their mean",
}


@dataclass(frozen=True)
class SurgeryPlan:
    """What to change when weights are copied layer by layer.

    rename: layer of the files -> layer of the net. suffixes: what the names of a file's layers
    end in, too, in the net: one for each file, or several for the only one. The others name layers
    of the net, perhaps as ``score*``. bilinear: become interpolation, whatever the files have.
    more_classes: have more outputs than in the file. more_channels: have more inputs.
    fc_to_conv, skip_misfits: as of `copy_into`.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    suffixes: Sequence[str] = ()
    bilinear: Sequence[str] = ()
    more_classes: Sequence[str] = ()
    more_channels: Sequence[str] = ()
    fc_to_conv: bool = False
    skip_misfits: bool = False


class Origin(NamedTuple):
    """Where the learned blobs of a layer come from, in words."""

    layer: str
    blobs: str
    source: str


@dataclass(frozen=True)
class Outcome:
    """What was done.

    origins: of every layer that has learned blobs, in the order of the net. unused: file -> its
    layers that went nowhere.
    """

    origins: tuple[Origin, ...]
    unused: Mapping[str, tuple[str, ...]]

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.origins, strict=True)]
        lines = [
            f"{layer:<{widths[0]}}  {blobs:<{widths[1]}}  {source}"
            for layer, blobs, source in self.origins
        ]
        lines += [f"in {file} only: {', '.join(names)}" for file, names in self.unused.items()]
        return "\n".join(lines)


def transplant(
    net: Net, files: Sequence[str | Path], plan: SurgeryPlan, out: str | Path | None = None
) -> Outcome:
    """Set a net's learned arrays from weight files, and write them to ``out`` if it is given.

    Of several files that have a layer the last one counts. Layers that no file has stay as they
    are. Raises WeightsError where something does not fit, LayerError where a layer cannot
    interpolate, NetSpecError where ``out`` cannot be written.
    """
    require(
        out is None or str(out).endswith((".caffemodel", ".caffemodel.h5")),
        f"{out}: the name of weights ends in .caffemodel or .caffemodel.h5",
        NetSpecError,
    )
    same = [
        file for file in files if out is not None and Path(file).resolve() == Path(out).resolve()
    ]
    require(not same, f"{out}: is among the weights to take from; write to another", NetSpecError)
    operation = _Operation(net, plan)
    grafts = list(_pairs(files, plan.suffixes))
    read = {file: read_weights(file) for file, _ in grafts}
    _require_renamed(read, operation.nodes, plan)
    for file, suffix in grafts:
        operation.copy(read[file], suffix)
    operation.interpolate()
    if out is not None:
        try:
            write_weights(out, net.shapes, net.arrays())
        except OSError as error:
            raise NetSpecError(unreadable(out, error)) from None
    return operation.outcome()


def _pairs(files: Sequence[str | Path], suffixes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each file with the suffix for its layers."""
    files = [str(file) for file in files]
    if len(files) == 1:
        files *= len(suffixes) or 1
    suffixes = suffixes or [""] * len(files)
    require(
        len(files) == len(suffixes),
        f"suffix given {counted(len(suffixes), 'time')} for {counted(len(files), 'file')}; "
        "give one for each, or several for one file",
        WeightsError,
    )
    yield from zip(files, suffixes, strict=True)


def _require_renamed(
    read: Mapping[str, Weights], nodes: Collection[str], plan: SurgeryPlan
) -> None:
    """Raise WeightsError where a layer that is renamed, or its new name, is nowhere."""
    known = {name for weights in read.values() for name in weights.learned}
    for old, new in plan.rename.items():
        if old not in known:
            fail(f'no file has a layer "{old}" to rename{nearest(old, known)}', WeightsError)
        named = [new + suffix for suffix in plan.suffixes or [""]]
        if not any(name in nodes for name in named):
            hint = nearest(named[0], nodes)
            fail(
                f'no layer "{named[0]}" to rename "{old}" to has learned blobs{hint}', WeightsError
            )


class _Operation:
    """A net during surgery, and what has been done to each of its layers."""

    def __init__(self, net: Net, plan: SurgeryPlan) -> None:
        self.net = net
        self.plan = plan
        shapes = net.shapes
        self.nodes = {each.layer: n for n, each in enumerate(shapes.nodes) if each.blobs}
        self.bilinear = self._matching(plan.bilinear)
        classes, channels = map(self._matching, (plan.more_classes, plan.more_channels))
        self.growing = dict.fromkeys(classes, _CLASSES) | dict.fromkeys(channels, _CHANNELS)
        for layer, times in Counter([*self.bilinear, *classes, *channels]).items():
            require(
                times == 1,
                f'layer "{layer}" can be only one of bilinear, of more classes, of more channels',
                WeightsError,
            )
        keys = [key for layer in classes for key in shapes.nodes[self.nodes[layer]].keys.values()]
        # Several files may grow a layer, each from what the fillers made.
        self.begun = {key: np.asarray(net.params[key.layer][key.blob][...]) for key in keys}
        self.sources = dict.fromkeys(self.nodes, "as its fillers begin it")
        self.unused: dict[str, tuple[str, ...]] = {}

    def _matching(self, patterns: Sequence[str]) -> list[str]:
        """The layers of the net that patterns name."""
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in self.nodes):
                hint = nearest(pattern, self.nodes)
                where = self.net.graph.file
                fail(f'{where}: no layer "{pattern}" has learned blobs{hint}', WeightsError)
        return [name for name in self.nodes if any(fnmatchcase(name, p) for p in patterns)]

    def copy(self, weights: Weights, suffix: str) -> None:
        """Set the layers that a file has, under the names that they get here."""
        names = _renamed(weights, self.plan.rename, suffix)
        taken = {new: weights.layers[old] for new, old in names.items() if new not in self.bilinear}
        if not any(taken.values()):
            return
        grown: dict[str, str] = {}
        for new, kind in self.growing.items():
            if new in taken:
                with blame(Place(weights.file), self.net.graph.nodes[self.nodes[new]].who):
                    taken[new], grown[new] = self._grow(new, taken[new], kind)
        copied = copy_into(
            self.net,
            replace(weights, layers=taken, types={}),
            fc_to_conv=self.plan.fc_to_conv,
            skip_misfits=self.plan.skip_misfits,
        )
        self._record(copied, names, grown)

    def _record(self, copied: Copied, names: Mapping[str, str], grown: Mapping[str, str]) -> None:
        for layer in copied.layers:
            if layer in self.nodes:
                parts = [f"{names[layer]} of {copied.file}", grown.get(layer, "")]
                parts += ["fully connected read as convolution"] * (layer in copied.turned)
                self.sources[layer] = ", ".join(filter(None, parts))
        for layer in copied.misfits.keys() & self.nodes.keys():
            self.sources[layer] += f": not fitting {copied.file} ({copied.misfits[layer]})"
        nowhere = {*copied.unused, *(copied.misfits.keys() - self.nodes.keys())}
        unused = {names[layer] for layer in nowhere}
        before = self.unused.get(copied.file)
        # A file that is taken twice has used what either time used.
        self.unused[copied.file] = tuple(
            name for name in names.values() if name in unused and (not before or name in before)
        )

    def _grow(
        self, layer: str, stored: Mapping[int, StoredBlob], kind: int
    ) -> tuple[dict[int, StoredBlob], str]:
        """A layer's stored blobs at the size that the net wants, and what was done, in words."""
        n, shapes = self.nodes[layer], self.net.shapes
        grown, done = dict(stored), ""
        for i, (name, key, blob) in enumerate(shapes.nodes[n].learned):
            if i not in stored or stored[i].fits(blob.shape):
                continue
            axis = self._axis(n, name, blob.shape, kind)
            old = self._part(stored[i], name, blob.shape, axis, kind)
            had, wanted = old.shape[axis], blob.shape[axis]
            rest = (
                np.split(self.begun[key].reshape(blob.shape), [had], axis)[1]
                if kind == _CLASSES
                else old.mean(axis, keepdims=True).repeat(wanted - had, axis)
            )
            grown[i] = StoredBlob.of(np.concatenate([old, rest], axis))
            done = done or _GROWN[kind].format(had, wanted)
        return grown, done

    def _axis(self, n: int, name: str, shape: Shape, kind: int) -> int:
        """Along which axis a learned blob of a node can grow; raises WeightsError."""
        blob = self.net.shapes.nodes[n].blobs[name]
        axis = blob.output_axis if kind == _CLASSES else blob.input_axis
        if kind == _CHANNELS:
            bottom = self.net.shapes.nodes[n].bottoms[0]
            if axis is None or bottom[1:2] != shape[axis : axis + 1]:
                fail(
                    f"its {name} {text(shape)} has not one input channel for each of the bottom's "
                    f"{text(bottom)}, so that none can be added",
                    WeightsError,
                )
        if axis is None:
            fail(
                f"its {name} {text(shape)} has its classes in groups, so that none can be added "
                "behind them",
                WeightsError,
            )
        return axis

    def _part(
        self, stored: StoredBlob, name: str, shape: Shape, axis: int, kind: int
    ) -> np.ndarray:
        """A stored blob as the first part, along an axis, of one of ``shape``."""
        others = math.prod(shape) // shape[axis]
        had, left = divmod(math.prod(stored.shape), others)
        part = (*shape[:axis], had, *shape[axis + 1 :])
        fits = stored.fits(part) or (self.plan.fc_to_conv and stored.turns_into(part))
        require(
            fits and not left and had < shape[axis],
            f"{name} is {text(stored.shape)} in the file, {text(shape)} in the net, which "
            f"is not the same with more {_NOUNS[kind]}",
            WeightsError,
        )
        return np.asarray(stored.array, np.float32).reshape(part)

    def interpolate(self) -> None:
        """Make the layers of the plan's ``bilinear`` interpolate each channel into itself."""
        shapes = self.net.shapes
        for layer in self.bilinear:
            n = self.nodes[layer]
            _, key, blob = next(shapes.nodes[n].learned)
            # One channel of weights for each group needs no diagonal.
            kind = "bilinear" if len(blob.shape) > 1 and blob.shape[1] == 1 else "bilinear_diagonal"
            node = self.net.graph.nodes[n]
            with blame(node.place, node.who):
                array = fill(FillerParameter(type=kind), blob.shape, jax.random.key(0))
            self.net.assign({key: array})
            self.sources[layer] = "bilinear interpolation"

    def outcome(self) -> Outcome:
        """What has been done."""
        origins = []
        for layer, n in self.nodes.items():
            found = self.net.shapes.nodes[n].blobs
            blobs = [f"{name} {text(blob.shape)}" for name, blob in found.items()]
            origins.append(Origin(layer, ", ".join(blobs), self.sources[layer]))
        return Outcome(tuple(origins), {f: names for f, names in self.unused.items() if names})


def _renamed(weights: Weights, rename: Mapping[str, str], suffix: str) -> dict[str, str]:
    """Name in the net -> name in the file, of each layer of the file; raises WeightsError."""
    names: dict[str, str] = {}
    for old in weights.layers:
        new = rename.get(old, old) + suffix
        require(
            new not in names,
            f'{weights.file}: layers "{names.get(new)}" and "{old}" would both be "{new}"',
            WeightsError,
        )
        names[new] = old
    return names
