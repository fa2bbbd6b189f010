"""A net's summary as text: a table to read, or CSV and JSON for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator

from netspec.inspect.summary import Row, Summary, Total, mebibytes, shape_text
from netspec.inspect.tabular import columns

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
    """CSV: a line a layer, then a line a type, then one of the net, as ``row`` says."""
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
    amounts = _amounts(row) if row.known else ("?", "?", "?")
    return (row.name, row.type, " ".join(map(shape_text, row.tops)), *amounts, _note(row))


def _note(row: Row) -> str:
    if row.frozen:
        return "frozen"
    if row.shares:
        return f"shares {', '.join(row.shares)}"
    return f"learns {row.learned:,}" if 0 < row.learned < row.params else ""


def _amounts(counted: Row | Total) -> tuple[str, str, str]:
    """Parameters, multiply-adds and activations; nothing where there are none."""
    return (
        f"{counted.params:,}" if counted.params else "",
        f"{counted.multiply_adds / _MEGA:,.1f}" if counted.multiply_adds else "",
        f"{counted.activation_bytes / _MEBI:,.1f}" if counted.activation_bytes else "",
    )


def _counts(counted: Row | Total) -> tuple[int, int, int, int]:
    return counted.params, counted.learned, counted.multiply_adds, counted.activation_bytes


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
    yield f"{summary.numbers}; {summary.multiply_adds / _GIGA:,.1f} GMAC a run"
    sizes = {
        "parameters": summary.param_bytes,
        "momentum": summary.momentum_bytes,
        "activations": summary.activation_bytes,
        "training, about": summary.training_bytes,
    }
    width = max(map(len, sizes))
    widest = max(len(mebibytes(size)) for size in sizes.values())
    for name, size in sizes.items():
        yield f"{name:<{width}}  {mebibytes(size):>{widest}}"
