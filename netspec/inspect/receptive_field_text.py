"""Receptive fields of blobs, and the least padding that aligns a net, as text."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from netspec.frontend.shapes import KnownShapes
from netspec.geometry.coords import ranks
from netspec.geometry.min_padding import Alignment, alignment
from netspec.geometry.receptive_field import ReceptiveField, receptive_field, receptive_fields
from netspec.inspect.summary_text import columns
from netspec.layers.shape import text

HEADER = ("blob", "stride", "field", "offset")


def table(shapes: KnownShapes, blob: str | None = None) -> str:
    """A table for each fed blob that others see, of one blob or of all; then the least pads.

    stride, field and offset are in pixels of the fed blob. Where no blob has a field, the tables
    give the reasons. Raises GraphError if the net has no such blob, or if it sees no fed one.
    """
    graph = shapes.graph
    each = ranks(shapes)
    if blob is not None:
        # Says why, if there is nothing to say.
        receptive_field(graph, blob, rank=each)
    tables, reasons = [], []
    for name in graph.fed:
        found = receptive_fields(graph, name, each)
        if blob is not None:
            found = {other: field for other, field in found.items() if other == blob}
        # That a fed blob sees itself is worth no table, unless it is asked for.
        others = [field for other, field in found.items() if blob is not None or other != name]
        if any(isinstance(field, ReceptiveField) for field in others):
            tables.append(f"in pixels of {name}\n\n{_table(found)}")
        elif others:
            reasons.append(f"in pixels of {name}\n\n{_table(found)}")
    return "\n\n".join([*(tables or reasons), pads(alignment(shapes))])


def pads(found: Alignment | str) -> str:
    """The least pads, in words."""
    if isinstance(found, str):
        return f"no least pad: {found}"
    layers = ", ".join(found.layers)
    every = f"least pad of {layers} that aligns every input size: {found.every}"
    if found.large == found.every:
        return every
    return f"{every}\nwith sizes from {text((found.least,) * found.axes)} on: {found.large}"


def _table(fields: dict[str, ReceptiveField | str]) -> str:
    known = {name: field for name, field in fields.items() if isinstance(field, ReceptiveField)}
    rows = [
        (name, _each(field.stride), _each(field.size), _each(field.offset))
        for name, field in known.items()
    ]
    others = [f"{name} {field}" for name, field in fields.items() if isinstance(field, str)]
    return "\n".join([*columns(HEADER, rows, "<>>>"), *([""] if others else []), *others])


def _each(numbers: Sequence[Fraction | int]) -> str:
    """One number for all axes if they agree, else one for each."""
    texts = [_number(Fraction(number)) for number in numbers]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)


def _number(number: Fraction) -> str:
    """``12.5``, or ``1/3`` where decimals do not end soon."""
    exact = number * 8
    return f"{float(number):g}" if exact.denominator == 1 else str(number)
