"""The content of a net's drawing: entries (a layer with the in-place layers on it), in stacks.

A chain that neither branches nor joins is one stack, so that a drawing shows at a glance where
branches part and join.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from netspec.errors import blame
from netspec.frontend.graph import AUTOMATIC, Graph, Node
from netspec.frontend.shapes import KnownShapes
from netspec.inspect.summary import Row, Summary, shape_text, summarise
from netspec.layers.base import text


class Kind(Enum):
    """The kind of a layer in a drawing; the value is its name in the legend."""

    SOURCE = "input, data"
    LEARNED = "learned"
    POOLING = "pooling"
    JOIN = "joins streams"
    LOSS = "loss, accuracy"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Entry:
    """A layer as a drawing shows it, with the in-place layers on its blob.

    nodes: indices of these layers. outs: the values they leave behind. settings: types and
    settings, e.g. ``Convolution 3x3 + ReLU``. shape: of the only out. arrays: how many numbers the
    layers hold, e.g. ``36.9k``. labels: name and shape of each out, if there are several. tip: all
    that is known, on several lines. What shapes would tell is empty where they are not known.
    """

    nodes: tuple[int, ...]
    outs: tuple[int, ...]
    kind: Kind
    frozen: bool
    name: str
    settings: str
    shape: str
    arrays: str
    labels: tuple[str, ...]
    tip: str

    @property
    def dashed(self) -> bool:
        """Whether its edge is dashed: nothing in it is learned, or its type is unknown."""
        return self.frozen or self.kind is Kind.UNKNOWN


@dataclass(frozen=True)
class Diagram:
    """A net as stacks of entries; ``summary`` is there if shapes are known."""

    graph: Graph
    shapes: KnownShapes | None
    summary: Summary | None
    stacks: tuple[tuple[Entry, ...], ...]

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, in the order of the net."""
        entries = itertools.chain.from_iterable(self.stacks)
        return tuple(sorted(entries, key=lambda entry: entry.nodes))

    def reads(self, entry: Entry) -> tuple[int, ...]:
        """The values that an entry takes from others."""
        return tuple(dict.fromkeys(self.graph.nodes[entry.nodes[0]].bottoms))

    def is_faint(self, entry: Entry, value: int) -> bool:
        """Whether a value is beside the stream: no gradient returns, or it is fed as a reference.

        A blob that the host feeds and a layer reads after its first bottom is a label, a target or
        a size to crop to.
        """
        node = self.graph.nodes[entry.nodes[0]]
        fed = self.graph.nodes[self.graph.values[value].producer].layer.traits.is_source
        return not any(
            bottom == value
            and not (fed and i)
            and not node.stops[i]
            and i not in node.layer.bottom_use.no_gradient
            for i, bottom in enumerate(node.bottoms)
        )


def diagram(net: Graph | KnownShapes) -> Diagram:
    """The diagram of a net, with all that `KnownShapes` tell, or with what a `Graph` alone does."""
    graph, shapes, summary = (
        (net.graph, net, summarise(net)) if isinstance(net, KnownShapes) else (net, None, None)
    )
    entries = [_entry(graph, nodes, shapes, summary) for nodes in _folded(graph)]
    return Diagram(graph, shapes, summary, tuple(map(tuple, _stacked(graph, entries))))


def blob_text(graph: Graph, value: int, shapes: KnownShapes | None) -> str:
    """A value's name and shape, as far as they are known: ``conv1 1x64x698x698``."""
    name = graph.values[value].name
    shown = "" if name == AUTOMATIC else printable(name)
    return f"{shown} {shape_text(shapes.values[value]) if shapes else ''}".strip()


def printable(name: str) -> str:
    """A name without characters that cannot be drawn."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)


def short(number: int) -> str:
    """A number in three digits: ``832``, ``36.9k``, ``103M``."""
    rounded = float(f"{number:.3g}")
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{rounded / size:g}{unit}"
    return str(number)


def _folded(graph: Graph) -> list[tuple[int, ...]]:
    """Each layer with the in-place layers that work on its blob."""
    hosts: dict[int, list[int]] = {}
    host_of: dict[int, int] = {}
    for n, node in enumerate(graph.nodes):
        host = n
        if (
            node.layer.traits.known
            and node.in_place == (0,)
            and len(node.bottoms) == len(node.tops) == 1
        ):
            producer = graph.values[node.bottoms[0]].producer
            if len(graph.nodes[producer].tops) == 1:
                host = host_of[producer]
        host_of[n] = host
        hosts.setdefault(host, []).append(n)
    return [tuple(nodes) for nodes in hosts.values()]


def _stacked(graph: Graph, entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries in chains: each reads only the one before it, which nothing else reads."""
    stacks: list[list[Entry]] = []
    of_value: dict[int, list[Entry]] = {}
    for entry in entries:
        bottoms = set(graph.nodes[entry.nodes[0]].bottoms)
        stack = of_value[min(bottoms)] if len(bottoms) == 1 else []
        if not stack or not _leads_on(graph, stack[-1]):
            stack = []
            stacks.append(stack)
        stack.append(entry)
        of_value.update(dict.fromkeys(entry.outs, stack))
    return stacks


def _leads_on(graph: Graph, entry: Entry) -> bool:
    """Whether an entry may have another beneath it in its stack."""
    if entry.kind is Kind.SOURCE or len(entry.outs) != 1:
        return False
    return len(set(graph.readers[entry.outs[0]])) == 1


def _entry(
    graph: Graph, indices: tuple[int, ...], shapes: KnownShapes | None, summary: Summary | None
) -> Entry:
    nodes = [graph.nodes[n] for n in indices]
    rows = [summary.rows[n] for n in indices] if summary else []
    outs = nodes[-1].tops
    several = len(outs) > 1
    return Entry(
        nodes=indices,
        outs=outs,
        kind=_kind(nodes),
        frozen=_frozen(nodes, rows),
        name=printable(nodes[0].name),
        settings=" + ".join(
            printable(f"{graph.nodes[n].type} {_settings(graph, n, shapes)}".strip())
            for n in indices
        ),
        shape=shape_text(shapes.values[outs[0]]) if shapes and len(outs) == 1 else "",
        arrays=_arrays(rows),
        labels=tuple(blob_text(graph, out, shapes) for out in outs) if several else (),
        tip="\n".join(_tip(graph, n, shapes) for n in indices),
    )


def _settings(graph: Graph, n: int, shapes: KnownShapes | None) -> str:
    """What a layer says of itself, on the bottoms that it has if their shapes are known."""
    node = graph.nodes[n]
    bottoms = shapes.nodes[n].bottoms if shapes else ()
    known = [shape for shape in bottoms if shape is not None]
    with blame(node.place, node.who):
        if known and len(known) == len(bottoms):
            return node.layer.describe_on(*known)
        return node.layer.describe()


def _kind(nodes: Sequence[Node]) -> Kind:
    host = nodes[0].layer
    if not host.traits.known:
        return Kind.UNKNOWN
    if host.traits.is_source:
        return Kind.SOURCE
    if host.drawn_as == "loss" or any(host.loss_weights()):
        return Kind.LOSS
    if any(node.layer.learns for node in nodes):
        return Kind.LEARNED
    if len(set(nodes[0].bottoms)) > 1:
        return Kind.JOIN
    return Kind.POOLING if host.drawn_as == "pooling" else Kind.OTHER


def _frozen(nodes: Sequence[Node], rows: Sequence[Row]) -> bool:
    """Whether ``lr_mult: 0`` holds all that could be learned.

    Where the number of arrays is not known, the stated params decide.
    """
    if rows and all(row.known for row in rows):
        return any(row.frozen for row in rows) and not any(row.learned for row in rows)
    params = [param for node in nodes if node.layer.learns for param in node.layer.spec.param]
    return bool(params) and not any(param.lr_mult for param in params)


def _arrays(rows: Sequence[Row]) -> str:
    """How many numbers layers hold, or whose they use: ``36.9k``, ``as conv1``."""
    shares = dict.fromkeys(name for row in rows for name in row.shares)
    if shares:
        return f"as {', '.join(map(printable, shares))}"
    params = sum(row.params for row in rows)
    return short(params) if params else ""


def _tip(graph: Graph, n: int, shapes: KnownShapes | None) -> str:
    """Name and type, place, bottoms, tops and learned arrays of a layer, a line each."""
    node = graph.nodes[n]
    lines = [f"{printable(node.name)} ({printable(node.type)})", printable(str(node.place))]
    for noun, values in (("bottom", node.bottoms), ("top", node.tops)):
        lines += [f"{noun} {blob_text(graph, value, shapes)}".strip() for value in values]
    if shapes:
        lines += [f"{name} {text(blob.shape)}" for name, blob in shapes.nodes[n].blobs.items()]
    return "\n".join(lines)
