"""Format a net's summary: a table to read, or CSV and JSON for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from netspec.inspect.summary import Row, Summary, Total, mebibytes, shape_text

_MEGA = 10**6
_GIGA = 10**9
_MEBI = 2**20

FIELDS = (
    "row",
    "layer",
    "type",
    "tops",
    "params",
    "learned",
    "multiply_adds",
    "activation_bytes",
    "frozen",
)


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> Iterator[str]:
    """A line a row, under the header and a rule; ``align`` holds < or > for each column."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    for line in lines:
        cells = zip(line, align, widths, strict=True)
        yield "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip()


def table(summary: Summary) -> str:
    """A line a layer, a line a layer type, then the totals."""
    layers = columns(
        ("layer", "type", "top", "params", "MMAC", "MiB", ""), map(_cells, summary.rows), "<<<>>><"
    )
    types = columns(
        ("type", "layers", "params", "MMAC", "MiB"),
        ((name, f"{total.layers}", *_amounts(total)) for name, total in summary.by_type.items()),
        "<>>>>",
    )
    return "\n".join([*layers, "", *types, "", *_totals(summary)])


def comma_separated(summary: Summary) -> str:
    """CSV: a line a layer, then a line a type, then one of the net, as ``row`` says.

    Cells are empty where nothing is known.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for row in summary.rows:
        tops = " ".join(map(shape_text, row.tops))
        writer.writerow(["layer", row.name, row.type, tops, *_counts(row), int(row.frozen)])
    for name, total in summary.by_type.items():
        writer.writerow(["type", "", name, "", *_counts(total), ""])
    writer.writerow(["net", "", "", "", *_counts(summary.total), ""])
    return out.getvalue().rstrip("\n")


def as_json(summary: Summary) -> str:
    """One object: ``layers`` in order, ``types`` by name, ``total``, and whether all is known."""
    return json.dumps(
        {
            "layers": list(map(_object, summary.rows)),
            "types": {name: total._asdict() for name, total in summary.by_type.items()},
            "total": summary.total._asdict(),
            "known": summary.known,
        },
        indent=1,
    )


FORMATS: dict[str, Callable[[Summary], str]] = {
    "table": table,
    "csv": comma_separated,
    "json": as_json,
}


def _cells(row: Row) -> tuple[str, ...]:
    return (row.name, row.type, " ".join(map(shape_text, row.tops)), *_amounts(row), _note(row))


def _note(row: Row) -> str:
    """The class that a Python layer runs, and what is learned of the layer's arrays."""
    return ", ".join(filter(None, [row.runs_class, _learning(row)]))


def _learning(row: Row) -> str:
    if row.frozen:
        return "frozen"
    if row.shares:
        return f"shares {', '.join(row.shares)}"
    return f"learns {row.learned:,}" if 0 < row.learned < row.params else ""


def _amounts(counted: Row | Total) -> tuple[str, str, str]:
    """Parameters, multiply-adds and activations; nothing where there are none."""
    mega, mebi = counted.multiply_adds / _MEGA, counted.activation_bytes / _MEBI
    return (
        _amount(counted.params, f"{counted.params:,}", counted.known),
        _amount(counted.multiply_adds, f"{mega:,.1f}", counted.known),
        _amount(counted.activation_bytes, f"{mebi:,.1f}", counted.sized),
    )


def _amount(value: int, shown: str, known: bool) -> str:
    """``?`` if nothing is known of it, and ``12+`` if not all is."""
    if not known:
        return f"{shown}+" if value else "?"
    return shown if value else ""


def _counts(counted: Row | Total) -> list[int | None]:
    """Plain numbers; None, an empty cell or a null, for those of which nothing is known."""
    arrays = (counted.params, counted.learned, counted.multiply_adds)
    return [
        *(value if value or counted.known else None for value in arrays),
        counted.activation_bytes if counted.activation_bytes or counted.sized else None,
    ]


def _object(row: Row) -> dict[str, object]:
    return {
        "layer": row.name,
        "type": row.type,
        "tops": row.tops,
        **dict(zip(FIELDS[4:8], _counts(row), strict=True)),
        "frozen": row.frozen,
        "shares": row.shares,
        "known": row.known,
    }


def _totals(summary: Summary) -> Iterator[str]:
    total = summary.total
    lacking = not total.known and not total.multiply_adds
    giga = "?" if lacking else f"{summary.multiply_adds / _GIGA:,.1f}"
    yield f"{summary.numbers}; {giga} GMAC a run"
    sizes = {
        "parameters": (summary.param_bytes, total.known),
        "momentum": (summary.momentum_bytes, total.known),
        "activations": (summary.activation_bytes, total.sized),
        "training, about": (summary.training_bytes, total.known and total.sized),
    }
    shown = {n: mebibytes(size) if size or known else "?" for n, (size, known) in sizes.items()}
    width, widest = (max(map(len, column)) for column in (shown, shown.values()))
    for name, size in shown.items():
        yield f"{name:<{width}}  {size:>{widest}}"
