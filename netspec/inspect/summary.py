"""What a net is made of, layer by layer, and what training it takes: the table before a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netspec.layers.base import Shape, count, text
from netspec.shapes import KnownShapes

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Row:
    """A layer: its tops' shapes, and how many numbers it holds.

    params: the elements of all its own arrays, running statistics included. learned: of these, how
    many the solver changes. shares: the layers whose arrays it uses instead of its own. frozen:
    ``lr_mult: 0`` keeps all arrays that it could learn, its own or another's, as they are. known:
    whether its arrays are known, and so counted.
    """

    name: str
    type: str
    tops: tuple[Shape | None, ...]
    params: int
    learned: int
    shares: tuple[str, ...]
    frozen: bool
    known: bool = True


@dataclass(frozen=True)
class Summary:
    """The layers of a net in order, and the totals in numbers of elements and bytes.

    activation_bytes: every blob once. momentum_bytes: one history array a learned array, as SGD
    keeps it. known: whether these are all; layers and blobs that are not known count nothing.
    """

    rows: tuple[Row, ...]
    params: int
    learned: int
    activation_bytes: int
    known: bool = True

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
        """An estimate: parameters, gradients, momentum, and activations kept for the way back."""
        gradients = self.learned * FLOAT_BYTES
        return self.param_bytes + gradients + self.momentum_bytes + self.activation_bytes

    @property
    def numbers(self) -> str:
        """How many parameters, in words."""
        words = f"{self.params:,} parameters, {self.learned:,} of them learned"
        return words if self.known else f"{words}, as far as shapes are known"


def summarise(shapes: KnownShapes) -> Summary:
    """Count the arrays and activations of a net, as far as its shapes are known."""
    rows = tuple(_row(shapes, n) for n in range(len(shapes.graph.nodes)))
    blobs = [shapes.values[i] for i in shapes.graph.blobs.values()]
    return Summary(
        rows=rows,
        params=sum(row.params for row in rows),
        learned=sum(row.learned for row in rows),
        activation_bytes=FLOAT_BYTES * sum(count(shape) for shape in blobs if shape is not None),
        known=not shapes.unasked,
    )


def _row(shapes: KnownShapes, n: int) -> Row:
    node, keys, blobs = shapes.graph.nodes[n], shapes.keys[n], shapes.blobs[n]
    own = {name for i, name in enumerate(blobs) if (n, i) not in shapes.graph.shared}
    learned = {name for name, blob in blobs.items() if blob.learned}
    changed = {name for name in learned if shapes.param_specs[keys[name]].lr_mult}
    return Row(
        name=node.name,
        type=node.type,
        tops=tuple(shapes.values[top] for top in node.tops),
        params=sum(count(blobs[name].shape) for name in own),
        learned=sum(count(blobs[name].shape) for name in own & changed),
        shares=tuple(dict.fromkeys(keys[name].layer for name in blobs if name not in own)),
        frozen=bool(learned) and not changed,
        known=n not in shapes.unasked or not node.layer.learns,
    )


def table(summary: Summary) -> str:
    """The summary as text: a line a layer, then the totals."""
    rows = [("layer", "type", "top", "learned")]
    rows += [
        (row.name, row.type, " ".join(map(shape_text, row.tops)), _note(row))
        for row in summary.rows
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *_totals(summary)])


def shape_text(shape: Shape | None) -> str:
    """A shape as people write it, ``?`` if it is not known."""
    return "?" if shape is None else text(shape)


def _note(row: Row) -> str:
    if not row.known:
        return "?"
    if row.frozen:
        return "frozen"
    if row.shares:
        return f"shares {', '.join(row.shares)}"
    return f"{row.learned:,}" if row.learned else ""


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, kind, top, learned = row
    cells = (name.ljust(widths[0]), kind.ljust(widths[1]), top.ljust(widths[2]))
    return "  ".join((*cells, learned.rjust(widths[3]))).rstrip()


def _totals(summary: Summary) -> list[str]:
    sizes = {
        "parameters": summary.param_bytes,
        "momentum": summary.momentum_bytes,
        "activations": summary.activation_bytes,
        "training, about": summary.training_bytes,
    }
    width = max(map(len, sizes))
    return [
        summary.numbers,
        *(f"{name.ljust(width)}  {mebibytes(size)}" for name, size in sizes.items()),
    ]


def mebibytes(size: int) -> str:
    """A number of bytes in MiB: ``12.3 MiB``."""
    return f"{size / 2**20:,.1f} MiB"
