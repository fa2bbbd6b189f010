"""Rows of text in columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> Iterator[str]:
    """A line a row, under the header and a rule; ``align`` holds < or > for each column."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    for line in lines:
        cells = zip(line, align, widths, strict=True)
        yield "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip()
