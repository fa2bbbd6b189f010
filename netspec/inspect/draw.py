"""Draw a net: a box for each layer, chains of layers stacked, lines from producers to readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from netspec.errors import NetSpecError, fail, unreadable
from netspec.formats.atomic import atomic_write
from netspec.frontend.graph import Graph
from netspec.frontend.shapes import KnownShapes
from netspec.inspect import canvas
from netspec.inspect.canvas import Box, Line, Scene, Text, text_width
from netspec.inspect.columns import fold
from netspec.inspect.layout import arrange
from netspec.inspect.net_diagram import Diagram, Entry, Kind, blob_text, diagram, printable
from netspec.inspect.placement import Point, Size, Wire
from netspec.proto.layers_pb2 import TRAIN

# Fill and edge of the boxes.
COLOURS = {
    Kind.SOURCE: ("#e3e6ea", "#8b95a1"),
    Kind.LEARNED: ("#d6e4f5", "#6c93c4"),
    Kind.POOLING: ("#d8ecd9", "#77ab7c"),
    Kind.JOIN: ("#fbe6c6", "#cf9f4f"),
    Kind.LOSS: ("#f6d5d3", "#c87f7b"),
    Kind.OTHER: ("#f5f5f2", "#a9a99f"),
    Kind.UNKNOWN: ("#ffffff", "#8b95a1"),
}
_INK, _SOFT = "#1f2933", "#5b6672"
_LINE, _PALE = "#66717d", "#b9c1ca"

# All in pixels: the picture's margin, letters, the height of a layer's box and of the strip for its
# tops, the step to the next box of a stack, and around and between what stands in a box.
_MARGIN = 24.0
_TITLE = 18.0
_LETTERS = 12.0
_ROW = 24.0
_STRIP = 22.0
_STEP = 6.0
_PAD = 9.0
_GAP = 14.0
_HEADER = 92.0


def draw(net: Graph | KnownShapes, out: str | Path, title: str = "") -> None:
    """Write a drawing of a net to ``out``, whose ending chooses among .svg, .png and .dot.

    With shapes it shows blob shapes and numbers of parameters, with a `Graph` alone it does not.
    title: the net's name, if empty. Raises NetSpecError for another ending and for a file that
    cannot be written.
    """
    out = Path(out)
    write = {".svg": svg, ".png": png, ".dot": dot}.get(out.suffix.lower())
    if write is None:
        fail(
            f'{out}: cannot draw "{out.suffix or out.name}"; '
            "the name of a drawing ends in .svg, .png or .dot",
            NetSpecError,
        )
    try:
        with atomic_write(out) as part:
            part.write_bytes(write(net, title))
    except OSError as error:
        raise NetSpecError(unreadable(out, error)) from None


def svg(net: Graph | KnownShapes, title: str = "") -> bytes:
    """A net as an SVG file."""
    return canvas.svg(scene(net, title)).encode()


def png(net: Graph | KnownShapes, title: str = "") -> bytes:
    """A net as a PNG file, at twice the size of the SVG unless that is huge."""
    return canvas.png(scene(net, title))


def scene(net: Graph | KnownShapes, title: str = "") -> Scene:
    """A net as boxes, lines and texts."""
    shown = diagram(net)
    cards = [_StackTable(stack) for stack in shown.stacks]
    sizes = [card.size for card in cards]
    layout = fold(arrange(sizes, _wires(shown, cards)), sizes)
    header = _header(shown, title or _name(shown.graph))
    width = max(layout.size.width, header.size.width)
    shift = Point(_MARGIN + (width - layout.size.width) / 2, _MARGIN + _HEADER)
    boxes, texts, lines = list(header.boxes), list(header.texts), list(header.lines)
    for route in sorted(layout.routes, key=lambda route: not route.wire.faint):
        points = tuple(Point(x + shift.x, y + shift.y) for x, y in route.points)
        lines.append(Line(points, _PALE if route.wire.faint else _LINE, arrow=True))
    for card, corner in zip(cards, layout.corners, strict=True):
        at = Point(corner.x + shift.x, corner.y + shift.y)
        lines.extend(card.links(at))
        boxes.extend(card.boxes(at))
        texts.extend(card.texts(at))
    size = Size(width + 2 * _MARGIN, shift.y + layout.size.height + _MARGIN)
    return Scene(size, tuple(lines), tuple(boxes), tuple(texts))


class _StackTable:
    """A stack of entries laid out as a table: name, settings, shape, arrays."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        cells = [(entry.name, entry.settings, entry.shape, entry.arrays) for entry in entries]
        self.widths = [
            max(text_width(cell, _LETTERS) for cell in column)
            for column in zip(*cells, strict=True)
        ]
        table = sum(self.widths) + _GAP * (sum(map(bool, self.widths)) - 1)
        strips = [sum(self._label_widths(entry)) for entry in entries]
        self.size = Size(
            max(table + 2 * _PAD, *strips),
            sum(map(_height, entries)) + _STEP * (len(entries) - 1),
        )

    def exits(self) -> dict[int, float]:
        """Where each value leaves the stack, in pixels from the middle of its foot."""
        last = self.entries[-1]
        middles = self._middles(last) if last.labels else [self.size.width / 2 for _ in last.outs]
        return {value: x - self.size.width / 2 for value, x in zip(last.outs, middles, strict=True)}

    def boxes(self, at: Point) -> Iterator[Box]:
        """The boxes of the stack whose top left corner is ``at``."""
        for entry, y in self._places(at):
            size = Size(self.size.width, _height(entry))
            yield Box(Point(at.x, y), size, *COLOURS[entry.kind], entry.dashed, entry.tip)

    def links(self, at: Point) -> Iterator[Line]:
        """The short lines between its boxes."""
        middle = at.x + self.size.width / 2
        for _, y in list(self._places(at))[1:]:
            yield Line((Point(middle, y - _STEP), Point(middle, y)), _LINE)

    def texts(self, at: Point) -> Iterator[Text]:
        """What stands in its boxes."""
        right = at.x + self.size.width - _PAD
        second = at.x + _PAD + self.widths[0] + _GAP
        third = right - (self.widths[3] + _GAP if self.widths[3] else 0)
        for entry, top in self._places(at):
            y = top + _ROW / 2
            yield Text(Point(at.x + _PAD, y), entry.name, _LETTERS, _INK)
            yield Text(Point(second, y), entry.settings, _LETTERS, _SOFT)
            if entry.shape:
                yield Text(Point(third, y), entry.shape, _LETTERS, _INK, "end")
            if entry.arrays:
                yield Text(Point(right, y), entry.arrays, _LETTERS, _SOFT, "end")
            y = top + _ROW + _STRIP / 2 - 2
            for label, x in zip(entry.labels, self._middles(entry), strict=True):
                yield Text(Point(at.x + x, y), label, _LETTERS, _INK, "middle")

    def _places(self, at: Point) -> Iterator[tuple[Entry, float]]:
        """Each entry with the top of its box."""
        y = at.y
        for entry in self.entries:
            yield entry, y
            y += _height(entry) + _STEP

    def _label_widths(self, entry: Entry) -> list[float]:
        return [text_width(label, _LETTERS) + 2 * _PAD for label in entry.labels]

    def _middles(self, entry: Entry) -> Iterator[float]:
        """The middle of each of an entry's labels, from the left edge; they share the width."""
        widths = self._label_widths(entry)
        left, spare = 0.0, self.size.width - sum(widths)
        for width in widths:
            share = width + spare / len(widths)
            yield left + share / 2
            left += share


def _height(entry: Entry) -> float:
    return _ROW + (_STRIP if entry.labels else 0)


def _wires(shown: Diagram, cards: Sequence[_StackTable]) -> list[Wire]:
    makers = {
        value: (i, exit) for i, card in enumerate(cards) for value, exit in card.exits().items()
    }
    return [
        Wire(*makers[value], i, shown.is_faint(card.entries[0], value))
        for i, card in enumerate(cards)
        for value in shown.reads(card.entries[0])
    ]


def _name(graph: Graph) -> str:
    return graph.name or Path(graph.file).stem


def _header(shown: Diagram, title: str) -> Scene:
    """Title, totals and legend."""
    graph, summary = shown.graph, shown.summary
    facts = [f"phase {'TRAIN' if graph.phase == TRAIN else 'TEST'}", f"{len(graph.nodes)} layers"]
    if summary:
        facts.append(summary.numbers)
    texts = [
        Text(Point(_MARGIN, _MARGIN + 8), printable(title), _TITLE, _INK),
        Text(Point(_MARGIN, _MARGIN + 32), ", ".join(facts), _LETTERS, _SOFT),
    ]
    boxes, lines = [], []
    x, y = _MARGIN, _MARGIN + 58
    for label, colours, dashed in _legend(shown):
        if colours:
            boxes.append(Box(Point(x, y - 7), Size(20, 14), *colours, dashed))
        else:
            lines.append(Line((Point(x, y), Point(x + 20, y)), _PALE))
        texts.append(Text(Point(x + 27, y), label, _LETTERS, _SOFT))
        x += 47 + text_width(label, _LETTERS)
    right = max(words.at.x + text_width(words.text, words.size) for words in texts)
    return Scene(Size(right - _MARGIN, _HEADER), tuple(lines), tuple(boxes), tuple(texts))


def _legend(shown: Diagram) -> Iterator[tuple[str, tuple[str, str] | None, bool]]:
    """What the drawing has of each: words, the colours of a box or None for a line, and dashes."""
    for kind, colours in COLOURS.items():
        if any(entry.kind is kind for entry in shown.entries):
            yield kind.value, colours, kind is Kind.UNKNOWN
    if any(entry.frozen for entry in shown.entries):
        yield "frozen (lr_mult: 0)", COLOURS[Kind.LEARNED], True
    if any(shown.is_faint(entry, value) for entry in shown.entries for value in shown.reads(entry)):
        yield "no gradient", None, False


def dot(net: Graph | KnownShapes, title: str = "") -> bytes:
    """A net in Graphviz' language: a node a box, an edge labelled with its blob."""
    shown = diagram(net)
    lines = [
        f"digraph {_quoted(title or _name(shown.graph))} {{",
        '  node [shape=box, style="filled,rounded", fontname="Helvetica", fontsize=11]',
        '  edge [fontname="Helvetica", fontsize=10]',
    ]
    makers: dict[int, int] = {}
    for i, entry in enumerate(shown.entries):
        lines.append(f"  n{i} [{_node(entry)}]")
        for value in shown.reads(entry):
            label = _quoted(blob_text(shown.graph, value, shown.shapes))
            pale = f', color="{_PALE}"' if shown.is_faint(entry, value) else ""
            lines.append(f"  n{makers[value]} -> n{i} [label={label}{pale}]")
        makers.update(dict.fromkeys(entry.outs, i))
    return "\n".join([*lines, "}", ""]).encode()


def _node(entry: Entry) -> str:
    fill, edge = COLOURS[entry.kind]
    label = "\n".join(filter(None, (entry.name, entry.settings, entry.arrays)))
    dashed = ', style="filled,rounded,dashed"' if entry.dashed else ""
    return (
        f"label={_quoted(label)}, tooltip={_quoted(entry.tip)}, "
        f'fillcolor="{fill}", color="{edge}"{dashed}'
    )


def _quoted(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
