"""A net as the fuzzer thinks of it: layers and fed blobs, from which its text is written."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from netspec.proto.layers_pb2 import LayerParameter
from netspec.proto.net_pb2 import NetParameter

from . import legacy

Shape = tuple[int, ...]

SPELLINGS = ("layer", "separate", "input_shape", "input_dim", "v1", "v0")


@dataclass(frozen=True)
class Feed:
    """A fed blob.

    kind: normal, positive, unit (0 to 1), indices (below ``limit``; of them about a third
    ``ignore``, if given), or constant (``limit`` everywhere, made by a DummyData layer).
    """

    name: str
    shape: Shape
    kind: str = "normal"
    limit: float = 0
    ignore: int | None = None

    @property
    def smooth(self) -> bool:
        """Whether its numbers are quantities, which a gradient may reach."""
        return self.kind != "indices"

    def array(self, seed: int) -> NDArray[np.float32]:
        """The numbers, the same for the same seed and name."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        made = {
            "normal": lambda: rng.standard_normal(self.shape),
            "positive": lambda: rng.uniform(0.5, 2, self.shape),
            "unit": lambda: rng.random(self.shape),
            "indices": lambda: self._indices(rng),
            "constant": lambda: np.full(self.shape, self.limit),
        }[self.kind]()
        return np.asarray(made, np.float32)

    def _indices(self, rng: np.random.Generator) -> NDArray[np.int64]:
        found = np.asarray(rng.integers(0, int(self.limit), self.shape))
        if self.ignore is None:
            return found
        return np.where(rng.random(self.shape) < 0.3, self.ignore, found)


@dataclass(frozen=True)
class Draft:
    """A net to be.

    phase: "train" or "test". spelling: one of `SPELLINGS`, how the text is written. header: what
    the net says beside its layers. layers: all but Input layers, in the current schema. feeds: what
    Input layers make, and DummyData layers, which stand among the layers.
    """

    seed: int
    phase: str = "test"
    spelling: str = "layer"
    header: NetParameter = field(default_factory=NetParameter)
    feeds: tuple[Feed, ...] = ()
    layers: tuple[LayerParameter, ...] = ()

    @property
    def inputs(self) -> tuple[Feed, ...]:
        """The blobs that Input layers make."""
        return tuple(feed for feed in self.feeds if feed.kind != "constant")

    def current(self) -> NetParameter:
        """The net in the current schema."""
        net = NetParameter()
        net.CopyFrom(self.header)
        net.layer.extend(self._input_layers())
        net.layer.extend(self.layers)
        return net

    def spelled(self) -> NetParameter:
        """The net in its spelling."""
        if self.spelling in ("layer", "separate"):
            return self.current()
        net = NetParameter()
        net.CopyFrom(self.header)
        shapes = self.spelling == "input_shape" or any(len(f.shape) != 4 for f in self.inputs)
        for feed in self.inputs:
            net.input.append(feed.name)
            if shapes:
                net.input_shape.add(dim=feed.shape)
            else:
                net.input_dim.extend(feed.shape)
        if self.spelling == "v1":
            net.layers.extend(map(legacy.v1, self.layers))
        elif self.spelling == "v0":
            net.layers.extend(old for layer in self.layers for old in legacy.v0(layer))
        else:
            net.layer.extend(self.layers)
        return net

    def text(self) -> str:
        """The prototxt."""
        return text_format.MessageToString(self.spelled())

    def array(self, name: str) -> NDArray[np.float32]:
        """What a blob is fed."""
        (feed,) = (feed for feed in self.feeds if feed.name == name)
        return feed.array(self.seed)

    def smaller(self) -> Iterator["Draft"]:
        """The nets with a layer less, a fed blob less or a field less."""
        for i, layer in reversed(list(enumerate(self.layers))):
            yield self._without(i)
            if layer.bottom and layer.top:
                yield self._bypassed(i)
        read = {name for layer in self.layers for name in layer.bottom}
        for feed in self.inputs:
            if feed.name not in read:
                yield replace(self, feeds=tuple(f for f in self.feeds if f is not feed))
        if self.spelling != "layer":
            yield replace(self, spelling="layer")
        for name in ("state", "force_backward", "name"):
            if self.header.HasField(name):
                header = NetParameter()
                header.CopyFrom(self.header)
                header.ClearField(name)
                yield replace(self, header=header)
        for i, layer in enumerate(self.layers):
            yield from (self._with(i, plainer) for plainer in _plainer(layer))

    def _input_layers(self) -> list[LayerParameter]:
        if not self.inputs:
            return []
        groups = [[feed] for feed in self.inputs] if self.spelling == "separate" else [self.inputs]
        made = []
        for i, group in enumerate(groups):
            layer = LayerParameter(name=f"input{i or ''}", type="Input")
            for feed in group:
                layer.top.append(feed.name)
                layer.input_param.shape.add(dim=feed.shape)
            made.append(layer)
        return made

    def _without(self, i: int) -> "Draft":
        return replace(self, layers=self.layers[:i] + self.layers[i + 1 :])

    def _bypassed(self, i: int) -> "Draft":
        """Without a layer whose readers read its first bottom instead."""
        removed = self.layers[i]
        later = []
        for layer in self.layers[i + 1 :]:
            copy = LayerParameter()
            copy.CopyFrom(layer)
            for k, name in enumerate(copy.bottom):
                if name in removed.top and name not in removed.bottom:
                    copy.bottom[k] = removed.bottom[0]
            later.append(copy)
        return replace(self, layers=(*self.layers[:i], *later))

    def _with(self, i: int, layer: LayerParameter) -> "Draft":
        return replace(self, layers=(*self.layers[:i], layer, *self.layers[i + 1 :]))


def _plainer(layer: LayerParameter) -> Iterator[LayerParameter]:
    """The layer with a setting less."""
    for descriptor, value in layer.ListFields():
        if descriptor.name in ("name", "type", "bottom", "top"):
            continue
        copy = LayerParameter()
        copy.CopyFrom(layer)
        copy.ClearField(descriptor.name)
        yield copy
        if hasattr(value, "ListFields"):
            for inner, _ in value.ListFields():
                copy = LayerParameter()
                copy.CopyFrom(layer)
                getattr(copy, descriptor.name).ClearField(inner.name)
                yield copy
