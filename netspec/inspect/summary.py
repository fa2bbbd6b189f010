"""Summarise a net: parameters, multiply-adds and memory, layer by layer and in total."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from netspec.frontend.graph import AUTOMATIC, Graph
from netspec.frontend.shapes import KnownShapes, NodeShapes
from netspec.layers.base import Shape, count, text
from netspec.layers.records import multiply_adds

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Row:
    """A layer: its tops' shapes, how many numbers it holds, how much it computes.

    params: the elements of all its own arrays, running statistics included. learned: of these, how
    many the solver changes. shares: the layers whose arrays it uses instead of its own. frozen:
    ``lr_mult: 0`` keeps all arrays that it could learn, its own or another's, as they are. known:
    whether its arrays are known, and so counted. multiply_adds: of one run.
    activation_bytes: what its tops take, less those that lie in their bottom's place. sized:
    whether these are all known. runs_class: the user's class that it runs, ``module.Class``.
    """

    name: str
    type: str
    tops: tuple[Shape | None, ...]
    params: int
    learned: int
    shares: tuple[str, ...]
    frozen: bool
    known: bool = True
    multiply_adds: int = 0
    activation_bytes: int = 0
    sized: bool = True
    runs_class: str = ""


class Total(NamedTuple):
    """The total of several layers: how many they are, and the sums over their rows.

    known, sized: whether all of them are, so that the sums leave nothing out.
    """

    layers: int
    params: int
    learned: int
    multiply_adds: int
    activation_bytes: int
    known: bool = True
    sized: bool = True


@dataclass(frozen=True)
class Summary:
    """The layers of a net in order, and the totals in numbers of elements and bytes.

    momentum_bytes: one history array a learned array, as SGD keeps it. known: whether these are
    all; layers and blobs that are not known count nothing.
    """

    rows: tuple[Row, ...]
    known: bool = True

    @cached_property
    def total(self) -> Total:
        """All layers together."""
        return _total(self.rows)

    @cached_property
    def by_type(self) -> dict[str, Total]:
        """The layers of each type together, in the order in which types first appear."""
        types = dict.fromkeys(row.type for row in self.rows)
        return {name: _total([row for row in self.rows if row.type == name]) for name in types}

    @property
    def params(self) -> int:
        """How many numbers all arrays hold."""
        return self.total.params

    @property
    def learned(self) -> int:
        """How many of them the solver changes."""
        return self.total.learned

    @property
    def multiply_adds(self) -> int:
        """What one run multiplies by learned weights and adds."""
        return self.total.multiply_adds

    @property
    def activation_bytes(self) -> int:
        """What all blobs take, each counted once."""
        return self.total.activation_bytes

    @property
    def param_bytes(self) -> int:
        """What all arrays of the layers take."""
        return self.params * FLOAT_BYTES

    @property
    def momentum_bytes(self) -> int:
        """What SGD's history takes."""
        return self.learned * FLOAT_BYTES

    @property
    def training_bytes(self) -> int:
        """An estimate: parameters, gradients, momentum, and residuals (all activations)."""
        gradients = self.learned * FLOAT_BYTES
        return self.param_bytes + gradients + self.momentum_bytes + self.activation_bytes

    @property
    def numbers(self) -> str:
        """How many parameters, in words."""
        if not self.total.known and not self.params:
            return "? parameters, as no shapes are known"
        words = f"{self.params:,} parameters, {self.learned:,} of them learned"
        return words if self.known else f"{words}, as far as shapes are known"


def summarise(shapes: KnownShapes) -> Summary:
    """Count the arrays and activations of a net, as far as its shapes are known."""
    rows = tuple(_row(shapes, n) for n in range(len(shapes.graph.nodes)))
    return Summary(rows, known=all(each.known for each in shapes.nodes))


def _total(rows: Sequence[Row]) -> Total:
    return Total(
        layers=len(rows),
        params=sum(row.params for row in rows),
        learned=sum(row.learned for row in rows),
        multiply_adds=sum(row.multiply_adds for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
        known=all(row.known for row in rows),
        sized=all(row.sized for row in rows),
    )


def _row(shapes: KnownShapes, n: int) -> Row:
    each = shapes.nodes[n]
    node, keys, blobs = each.node, each.keys, each.blobs
    own = {name for i, name in enumerate(blobs) if (n, i) not in shapes.graph.shared}
    learned = {name for name, blob in blobs.items() if blob.learned}
    own_tops = _own_tops(shapes.graph, each)
    changed = {name for name in learned if shapes.param_specs[keys[name]].lr_mult}
    return Row(
        name=node.name,
        type=node.type,
        tops=each.tops,
        params=sum(count(blobs[name].shape) for name in own),
        learned=sum(count(blobs[name].shape) for name in own & changed),
        shares=tuple(dict.fromkeys(keys[name].layer for name in blobs if name not in own)),
        frozen=bool(learned) and not changed,
        known=each.known or not node.layer.learns,
        multiply_adds=multiply_adds(each.blobs),
        activation_bytes=FLOAT_BYTES * sum(count(shape) for shape in own_tops if shape is not None),
        sized=None not in own_tops,
        runs_class=node.layer.runs_class(),
    )


def _own_tops(graph: Graph, each: NodeShapes[Shape | None]) -> list[Shape | None]:
    """The shapes of the tops that take memory, which in-place tops do not."""
    return [
        shape
        for slot, (top, shape) in enumerate(zip(each.node.tops, each.tops, strict=True))
        if slot not in each.node.in_place and graph.values[top].name != AUTOMATIC
    ]


def shape_text(shape: Shape | None) -> str:
    """A shape as people write it, ``?`` if it is not known."""
    return "?" if shape is None else text(shape)


def mebibytes(size: int) -> str:
    """A number of bytes in MiB: ``12.3 MiB``."""
    return f"{size / 2**20:,.1f} MiB"
